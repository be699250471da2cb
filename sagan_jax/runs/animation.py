"""An animation of training, from the pictures of samples that a run has drawn."""

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import open_regular, write_atomically
from sagan_jax.runtime.image_files import encode_animation
from sagan_jax.views.animation import training_frame

_NAME = re.compile(r"samples-(\d{8,15})\.png")
_LAST_FRAME = 8  # duration of the last frame, as a multiple of that of the others


class Animation(NamedTuple):
    """Describes a written animation.

    Attributes:
        steps: the steps of the frames, ascending.
        size: the size of the file in bytes.
        left_out: a line for each reason why pictures were left out.
    """

    steps: list[int]
    size: int
    left_out: list[str]


def animate(
    workdir: Path,
    out: Path,
    *,
    max_frames: int = 100,
    pixels: int = 640,
    milliseconds: int = 120,
    budget: int = 10_000_000,
) -> Animation:
    """Writes the pictures in `samples/` as an animation that shows the step of each.

    Args:
        workdir: the folder of a run of any kind; only its pictures are read.
        out: a .gif, .webp or .png file (APNG).
        max_frames: largest number of frames, at least 2. If there are more pictures, some are left out, evenly over
            the run. The last one always stays.
        pixels: longest side of a picture; a larger one is made smaller.
        milliseconds: the duration of a frame; the last one stays longer.
        budget: the largest size of the file, in bytes. Pictures are left out evenly to fit.

    Raises:
        InvalidInputError: there are no pictures, or two of them do not fit into the budget.
        StorageError: a file cannot be written.
    """
    paths = _pictures(workdir)
    notes: list[str] = []
    chosen = _evenly(sorted(paths), max_frames)
    pictures = {step: picture for step in chosen if (picture := _read(paths[step], notes)) is not None}
    if not pictures:
        raise InvalidInputError(f"None of the pictures in {str(workdir / 'samples')!r} could be read: {notes[0]}")
    shape, last = pictures[max(pictures)].shape, max(1, max(pictures))
    others = [step for step, picture in pictures.items() if picture.shape != shape]
    if others:
        notes.append(f"{len(others)} of another size than the last one, such as that of step {others[0]}")
    frames = {
        step: training_frame(picture, step, last, pixels=pixels)
        for step, picture in pictures.items()
        if picture.shape == shape
    }
    steps, content = _fitting(frames, out.suffix.lower().lstrip("."), milliseconds, budget)
    fewer = len(paths) - len(steps) - len(others) - (len(chosen) - len(pictures))
    if fewer:
        notes.append(f"{fewer} of {len(paths)}, evenly over the run, to keep the file small")
    write_atomically(out, content)
    return Animation(steps, len(content), notes)


def _pictures(workdir: Path) -> dict[int, Path]:
    """Returns the pictures of samples of a run by their steps."""
    folder = workdir / "samples"
    try:
        found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    except (FileNotFoundError, NotADirectoryError):
        found = {}
    if not found:
        raise InvalidInputError(
            f"{str(folder)!r} needs pictures of samples, such as samples-00001000.png; there are none. Is "
            f"{str(workdir)!r} the folder of a run? It draws one every --sample-every-steps steps."
        )
    return found


def _evenly(steps: Sequence[int], number: int) -> list[int]:
    """Returns at most `number` steps, evenly spaced from the first to the last; only the last one if `number` is 1."""
    if len(steps) <= number:
        return list(steps)
    return [steps[index] for index in np.unique(np.linspace(len(steps) - 1, 0, number).round().astype(int))]


def _read(path: Path, notes: list[str]) -> np.ndarray | None:
    """Returns a picture, uint8 `[H, W, 3]`. For a damaged file it returns None and adds a note to `notes`."""
    try:
        with open_regular(path) as file, Image.open(file, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        notes.append(f"{path.name}, which is damaged")
        return None


def _fitting(frames: dict[int, np.ndarray], kind: str, milliseconds: int, budget: int) -> tuple[list[int], bytes]:
    """Returns the steps of as many frames as fit into `budget`, and the content of the file."""
    steps = list(frames)
    while True:
        times = [milliseconds] * (len(steps) - 1) + [milliseconds * _LAST_FRAME]
        content = encode_animation(kind, [frames[step] for step in steps], milliseconds=times)
        if len(content) <= budget:
            return steps, content
        if len(steps) <= 2:
            raise InvalidInputError(
                f"{len(steps)} frames take {len(content) / 1e6:.2f} MB, more than --megabytes {budget / 1e6:g}: give "
                f"more of those, or fewer --pixels."
            )
        steps = _evenly(steps, max(2, min(len(steps) - 1, int(0.9 * len(steps) * budget / len(content)))))
