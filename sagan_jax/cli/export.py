"""`sagan-jax export`: the generator of a run, for use elsewhere."""

import dataclasses
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write the generator of a run, with spectral normalisation and batch-norm statistics folded into its weights.

    generator.safetensors holds the weights for this package. generator.jax_export is a function that needs jax alone.
    README.md has the Python code that loads each.
    """

    workdir: Path
    """the folder of the run"""
    out: Path | None = None
    """the folder for the files. Defaults to export/ in the workdir"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    raw: bool = False
    """use the weights as trained, even where the run keeps a moving average"""
    trust_checkpoint: bool = False
    """where config.json was changed: use the config that the checkpoint was saved with"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax export")
    announce("exporting the generator", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.export import export_run

    written = export_run(
        parsed.workdir,
        parsed.out,
        checkpoint=parsed.checkpoint,
        raw=parsed.raw,
        trust_checkpoint=parsed.trust_checkpoint,
    )
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e3:,.1f} kB")
