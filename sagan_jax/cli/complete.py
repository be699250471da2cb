"""`sagan-jax complete`: fills the hole of a photograph."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Fill the hole of a photograph, or of every photograph of a folder.

    For each photograph NAME it writes NAME.png, the most likely completion; NAME-1.png and so on, sampled completions;
    NAME-sheet.png, all of them side by side; and NAME-attention.png, where the network looks from inside the hole.

    The results have the size of the photograph. Outside the hole its pixels are kept. Inside, the detail is limited by
    the network's resolution. The command says when it cannot keep the pixels: a grey photograph with a colour network,
    or transparency.
    """

    photos: tyro.conf.Positional[Path]
    """an image file, such as PNG or JPEG, or a folder of them"""
    workdir: Path
    """the folder of a run that completes images"""
    mask: Path | None = None
    """an image of the photograph's shape, white (above 127 of 255) in the hole. It is resized if its size differs"""
    box: str = ""
    """or the hole as x0,y0,x1,y1, in pixels of the photograph, x1 and y1 excluded"""
    holes: str = ""
    """or the kind of hole: centre, half_left, half_right, half_top, half_bottom, half, rectangle, rectangles,
    strokes, area_10_20 and so on to area_50_60, mixed"""
    samples: int = 3
    """number of sampled completions"""
    checkpoint: Literal["newest"] | int = "newest"
    """the newest checkpoint, or that of a step, such as 1000"""
    seed: int = 0
    """seed of the sampled completions, and of --holes"""
    fit: Literal["crop", "resize"] = "crop"
    """what the network sees of a photograph that is not square: its centre square, or all of it, resized"""
    overwrite: bool = False
    """remove files of an earlier call for the same photographs that this one does not replace"""
    out: Path | None = None
    """the folder for the results. Defaults to completed/ in the workdir"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax complete")
    given = [f"--{name}" for name in ("mask", "box", "holes") if getattr(parsed, name)]
    if len(given) != 1:
        raise InvalidInputError(
            f"complete needs the hole as one of --mask, --box and --holes; got {' and '.join(given) or 'none'}."
        )
    if parsed.samples < 0 or not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(
            f"complete needs --samples from 0 up and a --seed in [0, 2**32); got {parsed.samples} and {parsed.seed}."
        )
    announce("completing", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.photographs import Hole, complete_photographs

    complete_photographs(
        parsed.workdir,
        parsed.photos,
        Hole(parsed.mask, parsed.box, parsed.holes, parsed.seed),
        out=parsed.out,
        samples=parsed.samples,
        seed=parsed.seed,
        fit=parsed.fit,
        checkpoint=parsed.checkpoint,
        overwrite=parsed.overwrite,
        trust_checkpoint=parsed.trust_checkpoint,
    )
