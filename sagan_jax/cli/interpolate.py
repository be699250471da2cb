"""`sagan-jax interpolate`: from one sample to another, as a picture or an animation."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw what lies between two samples of a run: between their latents, their classes, or both."""

    workdir: Path
    """the run's folder"""
    out: Path
    """a .png, one row a pair, or an animation: .gif or .webp"""
    between: Literal["z", "class", "both"] = "z"
    """what changes from the first to the last; the other stays"""
    rows: int = 5
    """how many pairs"""
    steps: int = 9
    """images from one end to the other, both among them"""
    classes: tuple[int, ...] = ()
    """from each of these to the next; all of them unless given"""
    seed: int = 0
    checkpoint: Literal["newest", "best"] = "newest"


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax interpolate")
    kind = parsed.out.suffix.lower()
    if kind not in (".png", ".gif", ".webp"):
        raise InvalidInputError(f"--out needs a .png, .gif or .webp file; got {str(parsed.out)!r}.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    from sagan_jax.cli.wiring import load_run
    from sagan_jax.evaluation.interpolation import interpolate
    from sagan_jax.runtime.image_files import save_animation, save_png
    from sagan_jax.views.figures import image_grid

    images = interpolate(
        load_run(parsed.workdir, checkpoint=parsed.checkpoint),
        between=parsed.between,
        rows=parsed.rows,
        steps=parsed.steps,
        classes=parsed.classes,
        seed=parsed.seed,
    )
    if kind == ".png":
        save_png(parsed.out, image_grid(images.reshape(-1, *images.shape[2:]), parsed.steps))
    else:
        there = [image_grid(images[:, step], parsed.rows, scale=2) for step in range(parsed.steps)]
        save_animation(parsed.out, [*there, *there[-2:0:-1]])
    print(f"{parsed.rows} rows of {parsed.steps} images in {parsed.out}")
