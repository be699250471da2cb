"""`sagan-jax attend`: figures of the attention maps of a run."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments, refuse_given
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw the attention maps of a run: of G in generated images, and of D in real images or in your own.

    Each figure shows an image with coloured dots, and for each dot the attention of that position. The outline encloses
    half of the weight. Two more figures show the mean distance of each layer's attention, and gamma over training. All
    are PNG and SVG.
    """

    workdir: Path
    """the folder of the run"""
    out: Path | None = None
    """the folder for the figures. Defaults to attention/ in the workdir"""
    num_images: int = 4
    """number of generated images for G, and of real images for D"""
    image: Path | None = None
    """your own image file for D instead of real images; cropped to its centre square and resized"""
    queries: tuple[str, ...] = ()
    """query positions x,y in pixels, such as 12,20 30,8. Defaults to the most informative ones"""
    num_queries: int = 5
    """number of query positions to choose, when --queries gives none"""
    classes: tuple[str, ...] = ()
    """the classes to generate, by number or by name, in turn. Defaults to all"""
    source: str = ""
    """where the training images are now, if they were moved"""
    seed: int = 0
    """seed of the latents of the generated images"""
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
    parsed = parse_arguments(Arguments, arguments, "sagan-jax attend")
    if parsed.num_images < 1 or parsed.num_queries < 1:
        raise InvalidInputError(
            f"attend needs --num-images and --num-queries of at least 1; got {parsed.num_images}, {parsed.num_queries}."
        )
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.image and not parsed.image.is_file():
        raise InvalidInputError(
            f"--image needs an image file, such as PNG, JPEG or WebP; there is no {str(parsed.image)!r}."
        )
    if parsed.image:
        of_drawn = ("num_images", "classes", "source", "seed")
        refuse_given(parsed, of_drawn, "does nothing with --image: leave one out.")
    check_can_write((parsed.out or parsed.workdir / "attention") / "reach.png")
    queries = [read_position(word) for word in parsed.queries]
    announce("drawing where the attention looks", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.attention_figures import draw_attention

    out = parsed.out or parsed.workdir / "attention"
    written = draw_attention(
        parsed.workdir,
        out,
        num_images=parsed.num_images,
        image=parsed.image,
        queries=queries,
        num_queries=parsed.num_queries,
        classes=parsed.classes,
        source=parsed.source,
        seed=parsed.seed,
        checkpoint=parsed.checkpoint,
        trust_checkpoint=parsed.trust_checkpoint,
    )
    print(f"{len(written)} figures, as .png and .svg, in {out}")


def read_position(word: str) -> tuple[float, float]:
    """Returns the x and y of `12,20`.

    Examples:
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
