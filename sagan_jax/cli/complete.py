"""`sagan-jax complete`: photographs with a hole, filled by a trained network."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Fill the hole of a photograph, or of every photograph of a folder.

    Of each NAME there will be NAME.png, the most likely completion; NAME-1.png and so on, other ones; NAME-sheet.png,
    all of them side by side; and NAME-attention.png, where the network looked from inside the hole. They have the
    photograph's size, and outside the hole its very pixels; what fills the hole has the detail of the network's size.
    Where those pixels cannot be kept (a grey photograph and a network of colours, transparency) that is said.
    """

    photos: tyro.conf.Positional[Path]
    """a PNG, JPEG or WebP file, or a folder of them"""
    workdir: Path
    """of a run that completes images"""
    mask: Path | None = None
    """a picture of the photograph's shape that is white (above 127 of 255) where the hole is; resized, which is said"""
    box: str = ""
    """or the hole as x0,y0,x1,y1, in pixels of the photograph; x1 and y1 lie outside"""
    holes: str = ""
    """or a kind of hole: centre, half_left, half_right, half_top, half_bottom, half, rectangle, rectangles, strokes,
    area_10_20 and so on to area_50_60, mixed"""
    samples: int = 3
    """other completions"""
    seed: int = 0
    fit: Literal["crop", "resize"] = "crop"
    """what the network sees of a photograph that is no square: the square around its middle, or all of it, squeezed"""
    out: Path | None = None
    """a folder; completed/ in the workdir unless given"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax complete")
    said = [f"--{name}" for name in ("mask", "box", "holes") if getattr(parsed, name)]
    if len(said) != 1:
        raise InvalidInputError(
            f"complete needs the hole as one of --mask, --box and --holes; got {' and '.join(said) or 'none'}."
        )
    if parsed.samples < 0 or not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(
            f"complete needs --samples from 0 up and a --seed in [0, 2**32); got {parsed.samples} and {parsed.seed}."
        )
    from sagan_jax.cli import photographs
    from sagan_jax.cli.checks import check_hole_kind
    from sagan_jax.cli.completing import load_completer
    from sagan_jax.runtime.files import write_together

    hole = photographs.Hole(parsed.mask, parsed.box, parsed.holes, parsed.seed)
    if hole.kind:
        check_hole_kind(hole.kind)
    out = parsed.out or parsed.workdir / "completed"
    paths = photographs.photo_files(parsed.photos)
    photographs.check_output(paths, hole.mask, parsed.samples, out)
    completer = load_completer(parsed.workdir)
    # All are read before anything is written.
    photos = [
        photographs.read_photo(path, hole, number, completer.network, parsed.fit) for number, path in enumerate(paths)
    ]
    for photo in photos:
        for remark in photo.remarks:
            print(f"{photo.path.name}: {remark}")
        files = photographs.completed_files(completer, photo, parsed.samples, parsed.seed)
        write_together(out, files)
        print(f"{photo.path.name}: {', '.join(files)} in {out}")
