"""`sagan-jax interpolate`: images between two samples, as a picture or an animation."""

import dataclasses
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw images between two samples of a run: between their latents, their classes, or both."""

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .png with one row per pair, or an animation: .gif or .webp"""
    between: Literal["z", "class", "both"] = "z"
    """what changes from the first image to the last; the other stays"""
    rows: int = 5
    """number of pairs"""
    steps: int = 9
    """images from one end to the other, both included"""
    classes: tuple[str, ...] = ()
    """interpolate from each of these, by number or by name, to the next. Defaults to all"""
    seed: int = 0
    """seed of the latents at both ends"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax interpolate")
    kind = parsed.out.suffix.lower()
    if kind not in (".png", ".gif", ".webp"):
        raise InvalidInputError(f"--out needs a .png, .gif or .webp file; got {str(parsed.out)!r}.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.rows < 1 or parsed.steps < 2:
        raise InvalidInputError(
            f"interpolate needs --rows from 1 and --steps from 2 up; got {parsed.rows}, {parsed.steps}."
        )
    check_can_write(parsed.out)
    announce(f"drawing {parsed.rows * parsed.steps:,} images", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.class_names import class_numbers
    from sagan_jax.runs.load import open_run
    from sagan_jax.runs.samples import write_interpolation

    run = open_run(parsed.workdir, checkpoint=parsed.checkpoint, trust_checkpoint=parsed.trust_checkpoint)
    write_interpolation(
        run.generator(),
        parsed.out,
        between=parsed.between,
        rows=parsed.rows,
        steps=parsed.steps,
        classes=class_numbers(run, parsed.classes),
        seed=parsed.seed,
    )
    print(f"{parsed.rows} rows of {parsed.steps} images in {parsed.out}")
