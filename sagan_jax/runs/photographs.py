"""Completes photographs of any size: maps them to the square that the network sees, and back."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from sagan_jax.data.decoding import decode_full_size, resize, unreadable_reason
from sagan_jax.data.layouts import IMAGE_SUFFIXES
from sagan_jax.data.masks import draw_mask
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.runs.load import CheckpointName, load_completer
from sagan_jax.runs.validate import check_hole_kind
from sagan_jax.runtime.files import check_can_write, read_regular, write_files_atomically
from sagan_jax.runtime.image_files import encode_png
from sagan_jax.runtime.manifest import check_results, finish_results, start_results
from sagan_jax.views.attention import Panel, attention_figure
from sagan_jax.views.figures import completion_sheet, encode_figure

_QUERIES = 5
_MAX_PHOTO_BYTES = 2**30

Fit = Literal["crop", "resize"]


@dataclasses.dataclass(frozen=True)
class Hole:
    """The hole that the user asked for: exactly one of a mask image, a box and a kind."""

    mask: Path | None = None
    box: str = ""
    kind: str = ""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph with its hole, and the square that the network sees.

    Attributes:
        path: the file of the photograph.
        pixels: `[H, W, C]` uint8.
        mask: `[H, W]` bool, True in the hole.
        window: top, left, height and width of the part that the network sees.
        image: the part in the window, resized for the network, `[R, R, C]` uint8.
        hole: the hole in `image`, `[R, R]` bool: every pixel that the hole overlaps.
        remarks: conversions of the photograph and the mask, for the user.
    """

    path: Path
    pixels: np.ndarray = dataclasses.field(repr=False)
    mask: np.ndarray = dataclasses.field(repr=False)
    window: tuple[int, int, int, int]
    image: np.ndarray = dataclasses.field(repr=False)
    hole: np.ndarray = dataclasses.field(repr=False)
    remarks: tuple[str, ...] = ()

    def filled(self, completed: np.ndarray) -> np.ndarray:
        """Returns the photograph with its hole filled from a completed square `[R, R, C]`; other pixels are kept."""
        top, left, height, width = self.window
        square = completed if completed.shape[:2] == (height, width) else resize(completed, height, width)
        whole = self.pixels.copy()
        part = np.s_[top : top + height, left : left + width]
        whole[part] = np.where(self.mask[part][..., None], square, whole[part])
        return whole


def complete_photographs(
    workdir: Path,
    photos: Path,
    hole: Hole,
    *,
    out: Path | None = None,
    samples: int = 3,
    seed: int = 0,
    fit: Fit = "crop",
    checkpoint: CheckpointName = "newest",
    overwrite: bool = False,
    trust_checkpoint: bool = False,
) -> None:
    """Fills the holes of photographs, writes the results and prints what was done to each.

    Args:
        workdir: the folder of a run that completes images and has a checkpoint.
        photos: an image file, or a folder of them.
        hole: the hole to fill.
        out: the folder of the results. Defaults to `completed/` in the workdir.
        samples: number of sampled completions of each photograph, besides the most likely one.
        seed: seed of the samples, in [0, 2**32).
        fit: the part of a photograph that the network sees, if it is not square.
        checkpoint: `newest`, or the step of a checkpoint.
        overwrite: whether files of an earlier call for the same photographs may be removed.
        trust_checkpoint: as for `open_completion_run`.

    Raises:
        InvalidInputError: a photograph, the hole, the run or `out` is not usable. Nothing is written then.
        StorageError: a file cannot be written.
    """
    if hole.kind:
        check_hole_kind(hole.kind)
    out = out or workdir / "completed"
    paths = photo_files(photos)
    check_output(paths, hole.mask, samples, out)
    if workdir.is_dir():  # else the next error is that there is no such run
        check_can_write(out / f"{paths[0].stem}.png")
    check_results(out, {path.stem: completed_names(path.stem, samples) for path in paths}, overwrite=overwrite)
    completer = load_completer(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    for number, path in enumerate(paths):  # checks all before anything is written, and keeps none in memory
        read_photo(path, hole, number, completer.network, fit)
    for number, path in enumerate(paths):
        photo = read_photo(path, hole, number, completer.network, fit)
        for remark in photo.remarks:
            print(f"{photo.path.name}: {remark}")
        files = completed_files(completer, photo, samples, seed)
        start_results(out, {photo.path.stem: list(files)})
        write_files_atomically(out, files)
        finish_results(out, {photo.path.stem: list(files)})
        print(f"{photo.path.name}: {', '.join(files)} in {out}")


def photo_files(path: Path) -> list[Path]:
    """Returns the photographs that a path names: itself, or those of a folder, sorted.

    Raises:
        InvalidInputError: there is none.
    """
    if path.is_file():
        return [path]
    if path.exists() and not path.is_dir():
        raise InvalidInputError(f"{str(path)!r} needs to be a regular file or a folder; it is a pipe or a device.")
    if not path.is_dir():
        raise InvalidInputError(f"complete needs a photograph, or a folder of them; there is no {str(path)!r}.")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InvalidInputError(f"There is no image file in {str(path)!r}.")
    return found


def check_output(photos: list[Path], mask: Path | None, samples: int, out: Path) -> None:
    """Refuses a folder in which completions would replace other files.

    Args:
        photos: the files.
        mask: the mask file of the hole, if there is one.
        samples: number of sampled completions of each photograph, besides the most likely one.
        out: the folder; it need not exist.

    Raises:
        InvalidInputError: `out` is not a folder; two completions would have the same name; or a completion would
            replace the mask, or a file in a folder of the photographs.
    """
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"--out needs a folder; {str(out)!r} is a file.")
    origin: dict[str, Path] = {}
    kept = mask.resolve() if mask else None
    theirs = out.resolve() in {photo.resolve().parent for photo in photos}
    for photo in photos:
        for name in completed_names(photo.stem, samples):
            if name in origin:
                raise InvalidInputError(
                    f"{origin[name].name!r} and {photo.name!r} would both become {name!r} when completed: rename one."
                )
            origin[name] = photo
            if (out / name).resolve() == kept or (theirs and (out / name).exists()):
                raise InvalidInputError(
                    f"Completing {photo.name!r} would replace {str(out / name)!r}, which is not a completion or an "
                    f"earlier one: give another --out."
                )


def completed_names(stem: str, samples: int) -> list[str]:
    """Returns the names of the images of one completed photograph.

    Examples:
        >>> completed_names("photo", 1)
        ['photo.png', 'photo-1.png', 'photo-sheet.png', 'photo-attention.png']
    """
    others = [str(number) for number in range(1, samples + 1)]
    return [f"{stem}.png", *(f"{stem}-{end}.png" for end in [*others, "sheet", "attention"])]


def read_photo(path: Path, hole: Hole, number: int, network: CompletionNetwork, fit: Fit) -> Photo:
    """Returns a photograph with its hole, as the network sees it.

    Args:
        path: an image file.
        hole: the hole to fill.
        number: index of the photograph, from 0; random holes depend on it.
        network: the network that will complete it.
        fit: the part of a photograph that the network sees, if it is not square.

    Raises:
        InvalidInputError: the photograph or the mask cannot be read; they have different shapes; the hole is empty or
            covers everything; or some of the hole lies outside the part that the network sees.
    """
    pixels, done = _read(path, network.image_channels, "photograph")
    height, width, _ = pixels.shape
    mask, remarks = _mask(hole, height, width, number)
    if done:
        remarks.append(f"{', '.join(done)}, outside the hole too")
    if mask.all():
        raise InvalidInputError(f"The hole in {str(path)!r} covers the whole photograph: nothing is visible.")
    if not mask.any():
        hint = f" {str(hole.mask)!r} needs to be white in the hole, and is black everywhere." if hole.mask else ""
        raise InvalidInputError(f"The hole in {str(path)!r} covers no pixel.{hint}")
    side = min(height, width)
    window = ((height - side) // 2, (width - side) // 2, side, side)
    if fit == "resize":
        window = (0, 0, height, width)
    top, left, tall, wide = window
    inside = mask[top : top + tall, left : left + wide]
    if inside.sum() < mask.sum():
        raise InvalidInputError(
            f"{mask.sum() - inside.sum():,} pixels of the hole in {str(path)!r} lie outside the square of {side} "
            f"around its centre, which is what the network sees: try --fit resize, or crop around the hole."
        )
    size = network.resolution
    part = pixels[top : top + tall, left : left + wide]
    if (tall, wide) == (size, size):
        image, small = part, inside
    else:
        seen = "all of it" if fit == "resize" or height == width else f"the centre square of {side}"
        remarks.append(f"{width}x{height}: {seen}, resized to {size}, is what the network sees")
        # With area interpolation, the hole affects only pixels that it overlaps.
        image, small = resize(part, size, size, area=True), _touched(inside, size)
        if small.all():
            raise InvalidInputError(
                f"At {size} pixels the hole in {str(path)!r} covers the whole image: nothing is visible."
            )
    return Photo(path, pixels, mask, window, image, small, tuple(remarks))


def completed_files(completer: TrainedCompleter, photo: Photo, samples: int, seed: int) -> dict[str, bytes]:
    """Returns the names and contents of the images of one completed photograph.

    Args:
        completer: fills holes.
        photo: the photograph with its hole.
        samples: number of sampled completions besides the most likely one.
        seed: seed of the sampled completions, in [0, 2**32).
    """
    images, masks = photo.image[None], photo.hole[None]
    squares = [completer.complete(images, masks)[0]]
    if samples:
        squares += list(completer.sample(images, masks, samples, seed=seed)[:, 0])
    wholes = [photo.filled(square) for square in squares]
    sheet = completion_sheet(photo.pixels[None], photo.mask[None], [whole[None] for whole in wholes], original=False)
    files = [*map(encode_png, [*wholes, sheet]), attention_over_hole(completer, photo)]
    return {name: file for name, file in zip(completed_names(photo.path.stem, samples), files, strict=True) if file}


def attention_over_hole(completer: TrainedCompleter, photo: Photo) -> bytes | None:
    """Returns a PNG of the attention of some positions inside the hole; None for a network without attention."""
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
    return encode_figure(attention_figure(holed, [(x + 0.5, y + 0.5) for y, x in chosen], panels), "png")


def _touched(hole: np.ndarray, size: int) -> np.ndarray:
    """Divides a mask `[H, W]` into equal cells, and returns whether the hole overlaps each: bool `[size, size]`.

    Cells may end inside a pixel. An overlap with a part of a pixel counts.
    """
    rows, columns = ([(i * side // size, -(-(i + 1) * side // size)) for i in range(size)] for side in hole.shape)
    tall = np.stack([hole[first:end].any(axis=0) for first, end in rows])
    return np.stack([tall[:, first:end].any(axis=1) for first, end in columns], axis=1)


def _mask(hole: Hole, height: int, width: int, number: int) -> tuple[np.ndarray, list[str]]:
    """Returns the hole in a photograph of the given size, and remarks on conversions of the mask."""
    if hole.kind:
        return draw_mask(hole.kind, height, width, seed=hole.seed, index=number), []
    if hole.box:
        return _box(hole.box, height, width), []
    assert hole.mask
    picture, _ = _read(hole.mask, 1, "mask")
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
    if x0 >= x1 or y0 >= y1:
        raise InvalidInputError(f"--box needs x0,y0,x1,y1 with x0 < x1 and y0 < y1; got {words}.")
    if not (x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height):
        raise InvalidInputError(f"--box needs a box inside the {width}x{height} photograph; got {words}.")
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _read(path: Path, image_channels: int, what: str) -> tuple[np.ndarray, list[str]]:
    """Returns the pixels of a file, and the conversions that were made."""
    if not path.exists():
        raise InvalidInputError(f"There is no {what} {str(path)!r}.")
    try:
        return decode_full_size(read_regular(path, _MAX_PHOTO_BYTES), image_channels)
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, ..
        raise InvalidInputError(
            f"Cannot read the {what} {str(path)!r} as an image: {unreadable_reason(error)}."
        ) from error
