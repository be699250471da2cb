"""`sagan-jax explore`: the interactive attention page of a run."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write an interactive page: point at an image, and see the attention of that position in every layer of G and D.

    The page is one file and needs no network. A sample is a class and a seed; a slider interpolates between two latents
    of the seed, z1 and z2.
    """

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .html file"""
    num_samples: int | None = None
    """number of samples. Defaults to 20, or with --seeds to every class with each seed"""
    seeds: tuple[int, ...] = ()
    """seeds of the latents. Defaults to 0, 1, 2, .."""
    classes: tuple[int, ...] = ()
    """Defaults to all"""
    steps: int = 5
    """images from z1 to z2, both included; 1 has no slider and leaves room for more samples"""
    budget_mb: float = 10.0
    """largest size of the file. Samples that do not fit are left out, and the page says how many"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax explore")
    if parsed.out.suffix.lower() not in (".html", ".htm") or parsed.out.is_dir():
        raise InvalidInputError(f"--out needs a .html file; got {str(parsed.out)!r}, which is of another kind.")
    for flag, number in (("num-samples", parsed.num_samples), ("steps", parsed.steps)):
        if number is not None and number < 1:
            raise InvalidInputError(f"--{flag} needs to be at least 1; got {number}.")
    for seed in parsed.seeds:
        if not 0 <= seed < 2**32:
            raise InvalidInputError(f"--seeds needs numbers in [0, 2**32); got {seed}.")
    if not (math.isfinite(parsed.budget_mb) and parsed.budget_mb > 0):
        raise InvalidInputError(f"--budget-mb needs to be a number above 0; got {parsed.budget_mb}.")
    from sagan_jax.runs.explorer import write_explorer

    page, requested = write_explorer(
        parsed.workdir,
        parsed.out,
        num_samples=parsed.num_samples,
        seeds=parsed.seeds,
        classes=parsed.classes,
        steps=parsed.steps,
        budget=int(parsed.budget_mb * 1e6),
        checkpoint=parsed.checkpoint,
    )
    left_out = f" ({requested - page.num_samples} did not fit)" if page.num_samples < requested else ""
    print(f"{page.num_samples} samples{left_out} in {parsed.out}, {len(page.content) / 1e6:.1f} MB")
