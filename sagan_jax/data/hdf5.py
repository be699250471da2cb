"""Images in an HDF5 file, in the format of StudioGAN and BigGAN-PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.data.columns import listed
from sagan_jax.data.decoding import MODES
from sagan_jax.data.layouts import check_label_array
from sagan_jax.errors import InvalidInputError, one_line

SUFFIXES = (".hdf5", ".h5")
_IMAGES, _LABELS = ("imgs", "images"), ("labels", "label")


class Hdf5Images:
    """The images of an HDF5 file, as a `sagan_jax.data.DataSource`. They are read lazily.

    Images are an array at the top level of the file, named `imgs` or `images`. It is uint8 `[N, C, H, W]` or
    `[N, H, W, C]` with C 1 or 3, or `[N, H, W]`. Optional labels are integers `[N]` named `labels` or `label`.

    Args:
        path: the file.
        label_column: the name of the label array, or "" for the default names.
        image_column: the name of the image array, or "" for the default names.

    Attributes:
        labels: int64 `[N]`, or None.
        name: the name of the image array.
        default: the name of the image array that is read if `image_column` is "", or "" if there is no such array.

    Raises:
        InvalidInputError: when the package h5py is not installed, the file is damaged, or it holds other arrays.
    """

    def __init__(self, path: Path, *, label_column: str = "", image_column: str = ""):
        try:
            import h5py
        except ImportError as error:
            raise InvalidInputError(
                "HDF5 files need the package h5py, which is not installed. Run: pip install 'sagan-jax[hdf5]'."
            ) from error
        where = repr(str(path))
        try:
            file = h5py.File(path, "r", locking="best-effort")
            arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        except Exception as error:  # a damaged file can raise any error
            raise InvalidInputError(f"Cannot read {where} as HDF5: {one_line(error)}.") from error
        name = _named(arrays, image_column, _IMAGES, "images", where)
        if not name:
            raise InvalidInputError(
                f"{where} needs images, called {' or '.join(_IMAGES)}, or named by --image-column; it holds "
                f"{listed(arrays) or 'no arrays at its top'}."
            )
        self.name, self.default = name, next((usual for usual in _IMAGES if usual in arrays), "")
        self._images: Any = arrays[name]
        self._channels_first = _channels_first(self._images, f"{where}: {name}")
        self.labels: np.ndarray | None = None
        labels = _named(arrays, label_column, _LABELS, "labels", where)
        if labels:
            array = arrays[labels]
            check_label_array(array.dtype, array.shape or (), len(self._images), f"{where}: {labels}")
            try:
                self.labels = np.asarray(array[:]).astype(np.int64)
            except Exception as error:  # a damaged chunk can raise any error
                raise InvalidInputError(f"Cannot read {labels!r} in {where}: {one_line(error)}.") from error

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        image = self._images[index]
        return image.transpose(1, 2, 0) if self._channels_first else image


def _named(arrays: dict[str, Any], wanted: str, usual: tuple[str, ...], what: str, where: str) -> str:
    """Returns the name of an array: the given one, or a default one; "" if there is none."""
    if wanted and wanted not in arrays:
        raise InvalidInputError(f"{where} has no {what} {wanted!r}; it holds {listed(arrays) or 'no arrays'}.")
    return wanted or next((name for name in usual if name in arrays), "")


def _channels_first(images: Any, where: str) -> bool:
    """Returns whether images are `[N, C, H, W]`. Raises InvalidInputError if the array does not hold images."""
    shape = images.shape or ()  # None for a data set without data
    last = len(shape) == 3 or (len(shape) == 4 and shape[3] in MODES)
    first = len(shape) == 4 and shape[1] in MODES and not last
    if images.dtype != np.uint8 or not (first or last) or 0 in shape:
        raise InvalidInputError(
            f"{where} needs images uint8 [N, C, H, W] or [N, H, W, C] with C 1 or 3, or [N, H, W], and no empty axis; "
            f"got {images.dtype} {list(shape)}."
        )
    return first
