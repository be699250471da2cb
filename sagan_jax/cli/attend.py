"""`sagan-jax attend`: the paper's figures of where attention looks, of a run or of one image."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw where the attention layers of a run look: G in images that it generates, D in real ones or in your own.

    Each picture shows an image with coloured dots, and for each dot where its position looks; the outline holds half of
    the weight. PNG and SVG; beside them how far each layer looks, and how gamma went over training.
    """

    workdir: Path
    """the run's folder"""
    out: Path | None = None
    """the folder for the pictures; attention/ in the workdir unless given"""
    num_images: int = 4
    """how many of G, and how many real ones for D"""
    image: Path | None = None
    """a picture of your own for D instead of real ones: PNG, JPEG or WebP, cropped to its centre square and resized"""
    queries: tuple[str, ...] = ()
    """positions x,y in pixels, such as 12,20 30,8; those that say most unless given"""
    num_queries: int = 5
    """how many are chosen, where none are given"""
    classes: tuple[int, ...] = ()
    """the classes to generate, in turn; all unless given"""
    source: str = ""
    """where the images of the run's --source lie now, if they have moved"""
    seed: int = 0
    checkpoint: Literal["newest", "best"] = "newest"


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax attend")
    if parsed.num_images < 1 or parsed.num_queries < 1:
        raise InvalidInputError(
            f"attend needs --num-images and --num-queries of at least 1; got {parsed.num_images}, {parsed.num_queries}."
        )
    from sagan_jax.cli import attending

    out = parsed.out or parsed.workdir / "attention"
    written = attending.draw_attention(
        parsed.workdir,
        out,
        num_images=parsed.num_images,
        image=parsed.image,
        queries=[read_position(word) for word in parsed.queries],
        num_queries=parsed.num_queries,
        classes=parsed.classes,
        source=parsed.source,
        seed=parsed.seed,
        checkpoint=parsed.checkpoint,
    )
    print(f"{len(written)} pictures, as .png and .svg, in {out}")


def read_position(word: str) -> tuple[float, float]:
    """Returns the x and y of `12,20`.

    >>> read_position("12,20")
    (12.0, 20.0)
    """
    try:
        x, y = map(float, word.split(","))
    except ValueError:
        raise InvalidInputError(f"--queries needs positions such as 12,20; got {word!r}.") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InvalidInputError(f"--queries needs positions such as 12,20; got {word!r}.")
    return x, y
