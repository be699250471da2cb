"""Photographs of any size and the holes in them, to the square that a network completes and back."""

import dataclasses
import itertools
from pathlib import Path
from typing import Literal

import numpy as np

from sagan_jax.cli.attending import encoded
from sagan_jax.data.decoding import decode_whole, resize
from sagan_jax.data.masks import draw_mask
from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.evaluation.completing import TrainedCompleter
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.training.recording import encode_png
from sagan_jax.views.attention import Panel, attention_figure
from sagan_jax.views.figures import completion_sheet

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_QUERIES = 5


@dataclasses.dataclass(frozen=True)
class Hole:
    """What is missing, as the user said it: one of a picture, a box and a kind."""

    mask: Path | None = None
    box: str = ""
    kind: str = ""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph with its hole, and the square of it that the network sees.

    Attributes:
        path: its file.
        pixels: `[H, W, C]` uint8.
        mask: `[H, W]` bool, True in the hole.
        window: top, left, height and width of the part that the network sees.
        image: that part in the network's size, `[R, R, C]` uint8.
        hole: the hole there, `[R, R]` bool: every pixel that the hole touches.
        remarks: what was done to it, for the user.
    """

    path: Path
    pixels: np.ndarray = dataclasses.field(repr=False)
    mask: np.ndarray = dataclasses.field(repr=False)
    window: tuple[int, int, int, int]
    image: np.ndarray = dataclasses.field(repr=False)
    hole: np.ndarray = dataclasses.field(repr=False)
    remarks: tuple[str, ...] = ()

    def filled(self, completed: np.ndarray) -> np.ndarray:
        """Returns the photograph with its hole filled from a completed square `[R, R, C]`; its own pixels elsewhere."""
        top, left, height, width = self.window
        square = completed if completed.shape[:2] == (height, width) else resize(completed, height, width)
        whole = self.pixels.copy()
        part = np.s_[top : top + height, left : left + width]
        whole[part] = np.where(self.mask[part][..., None], square, whole[part])
        return whole


def photo_files(path: Path) -> list[Path]:
    """Returns the photographs that a path names: itself, or those of a folder, sorted.

    Raises:
        InvalidInputError: there is none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise InvalidInputError(f"There is no PNG, JPEG or WebP file in {str(path)!r}.")
    for one, other in itertools.pairwise(sorted(found, key=lambda file: file.stem)):
        if one.stem == other.stem:
            raise InvalidInputError(f"{one.name!r} and {other.name!r} would have one name when completed: rename one.")
    return found


def read_photo(
    path: Path, hole: Hole, number: int, network: CompletionNetwork, fit: Literal["crop", "resize"]
) -> Photo:
    """Returns a photograph with its hole, as the network sees it.

    Args:
        path: a PNG, JPEG or WebP file.
        hole: what is missing.
        number: of the photograph, from 0; holes that are drawn depend on it.
        network: that will complete it.
        fit: what it sees of a photograph that is no square.

    Raises:
        InvalidInputError: the photograph or the mask cannot be read, they have different shapes, there is no hole or
            nothing but hole, or a part of it lies where the network does not look.
    """
    pixels = _read(path, network.image_channels, "a photograph")
    height, width, _ = pixels.shape
    mask, remarks = _mask(hole, height, width, number)
    if mask.all() or not mask.any():
        raise InvalidInputError(
            f"The hole in {str(path)!r} covers {'everything: there is nothing to go by' if mask.any() else 'no pixel'}."
        )
    side = min(height, width)
    window = ((height - side) // 2, (width - side) // 2, side, side)
    if fit == "resize":
        window = (0, 0, height, width)
    top, left, tall, wide = window
    inside = mask[top : top + tall, left : left + wide]
    if inside.sum() < mask.sum():
        raise InvalidInputError(
            f"{mask.sum() - inside.sum():,} pixels of the hole in {str(path)!r} lie outside the square of {side} "
            f"around its middle, which is all that the network sees: try --fit resize, or crop around the hole."
        )
    size = network.resolution
    part = pixels[top : top + tall, left : left + wide]
    if (tall, wide) == (size, size):
        image, small = part, inside
    else:
        seen = "all of it" if fit == "resize" or height == width else f"the square of {side} around its middle"
        remarks.append(f"{width}x{height}: {seen}, resized to {size}, is what the network sees")
        # By area, so that nothing of the hole leaks into a pixel that it does not touch.
        image = resize(part, size, size, area=True)
        small = resize(inside[..., None].astype(np.uint8) * 255, size, size, area=True)[..., 0] > 0
        if small.all():
            raise InvalidInputError(f"At {size} pixels the hole in {str(path)!r} leaves nothing to go by.")
    return Photo(path, pixels, mask, window, image, small, tuple(remarks))


def completed_files(completer: TrainedCompleter, photo: Photo, samples: int, seed: int) -> dict[str, bytes]:
    """Returns names and contents of the pictures of one completed photograph.

    Args:
        completer: fills holes.
        photo: with its hole.
        samples: how many completions besides the most likely one.
        seed: of those, in [0, 2**32).
    """
    images, masks = photo.image[None], photo.hole[None]
    squares = [completer.complete(images, masks)[0]]
    if samples:
        squares += list(completer.sample(images, masks, samples, seed=seed)[:, 0])
    wholes = [photo.filled(square) for square in squares]
    name = photo.path.stem
    numbered = {f"{name}{f'-{number}' if number else ''}.png": whole for number, whole in enumerate(wholes)}
    numbered[f"{name}-sheet.png"] = completion_sheet(
        photo.pixels[None], photo.mask[None], [whole[None] for whole in wholes], original=False
    )
    files = {file: encode_png(picture) for file, picture in numbered.items()}
    figure = attention_over_hole(completer, photo)
    return files | ({f"{name}-attention.png": figure} if figure else {})


def attention_over_hole(completer: TrainedCompleter, photo: Photo) -> bytes | None:
    """Returns a picture of where the network looks from positions inside the hole, or None without attention."""
    size = completer.network.resolution
    places = np.argwhere(photo.hole)
    chosen = places[np.linspace(0, len(places) - 1, min(_QUERIES, len(places)) + 2).astype(int)[1:-1]]
    panels = []
    for name, maps in completer.attention(photo.image[None], photo.hole[None]).items():
        side, keys = (round(length**0.5) for length in maps.shape[1:])
        rows = [int(y * side // size) * side + int(x * side // size) for y, x in chosen]
        panels.append(Panel(f"{name.replace('_', ' at ')}", maps[0, rows].reshape(len(rows), keys, keys)))
    if not panels:
        return None
    holed = np.where(photo.hole[..., None], np.uint8(128), photo.image)
    return encoded(attention_figure(holed, [(x + 0.5, y + 0.5) for y, x in chosen], panels), "png")


def _mask(hole: Hole, height: int, width: int, number: int) -> tuple[np.ndarray, list[str]]:
    """Returns the hole in a photograph of a size, and what was done to get it."""
    if hole.kind:
        return draw_mask(hole.kind, height, width, seed=hole.seed, index=number), []
    if hole.box:
        return _box(hole.box, height, width), []
    assert hole.mask
    picture = _read(hole.mask, 1, "a mask")
    if picture.shape[:2] == (height, width):
        return picture[..., 0] > 127, []
    found = f"{picture.shape[1]}x{picture.shape[0]}"
    if abs(picture.shape[1] * height - picture.shape[0] * width) > 0.01 * height * picture.shape[1]:
        raise InvalidInputError(
            f"The mask {str(hole.mask)!r} needs the shape of the photograph, {width}x{height}; got {found}."
        )
    return resize(picture, height, width)[..., 0] > 127, [f"the mask of {found} was resized to {width}x{height}"]


def _box(words: str, height: int, width: int) -> np.ndarray:
    try:
        x0, y0, x1, y1 = map(int, words.split(","))
    except ValueError:
        raise InvalidInputError(f"--box needs x0,y0,x1,y1 such as 16,16,48,48; got {words!r}.") from None
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InvalidInputError(f"--box needs a box inside the {width}x{height} photograph; got {words}.")
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _read(path: Path, image_channels: int, what: str) -> np.ndarray:
    try:
        return decode_whole(path.read_bytes(), image_channels)
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, ..
        raise InvalidInputError(
            f"complete needs {what} that is a PNG, JPEG or WebP file; {str(path)!r} cannot be read: {one_line(error)}."
        ) from error
