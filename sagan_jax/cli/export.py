"""`sagan-jax export`: the generator of a run, to be taken elsewhere."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write the generator of a run, its spectral norm and statistics folded in, with the lines of Python that load it.

    generator.safetensors holds the weights for this package; generator.jax_export is a function that runs without it,
    on jax alone; README.md says how.
    """

    workdir: Path
    """the run's folder"""
    out: Path | None = None
    """a folder; export in the workdir unless given"""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: the one with the best score, where the run was scored while it trained"""
    raw: bool = False
    """the weights as trained, even where the run keeps a moving average"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax export")
    from sagan_jax.cli.exporting import export_run

    for path in export_run(parsed.workdir, parsed.out, checkpoint=parsed.checkpoint, raw=parsed.raw):
        print(f"{path}: {path.stat().st_size / 1e3:,.1f} kB")
