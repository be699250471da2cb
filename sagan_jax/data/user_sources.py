"""User-defined data sets: any object with `__len__` and `__getitem__`, such as a grain data source."""

import hashlib
import operator
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from sagan_jax.data.columns import check_classes
from sagan_jax.data.decoding import MODES, fit_array, plain_array
from sagan_jax.data.encoded import Notify
from sagan_jax.data.layouts import check_label_array, class_names_from_labels
from sagan_jax.errors import InvalidInputError
from sagan_jax.import_paths import errors_of_user_code, find_object

_CHUNK = 64  # items that a thread reads at a time
_SECONDS_BETWEEN_LINES = 60
_SPOT_CHECKED = 4  # items that are digested in addition to a declared fingerprint


class DataSource(Protocol):
    """A user-defined data set, such as a `grain.sources.RandomAccessDataSource` or a map-style data set of PyTorch.

    It may have up to three optional attributes:

    - `labels`: integers `[N]`, the label of each item. They must equal the labels in the items, if these have any.
    - `class_names`: a string for each label. Without it the classes are named 0, 1, ..
    - `fingerprint`: a string that is unique for each data set and changes whenever an image or a label changes. The
      number of items and a digest of four items are added to it. Without it the fingerprint is a digest of all pixels
      and labels, for which every item is read at every start.
    """

    def __len__(self) -> int:
        """Returns N, the number of items; at least 1."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Returns item `index`: `(image, label)`, or only an image.

        This must be thread-safe. The same index must always give the same item; use `--augmentation` for random
        transforms.

        Args:
            index: in [0, N).

        Returns:
            The image, and optionally its label. The image is uint8 `[H, W, 3]` (RGB), `[H, W, 1]` or `[H, W]` (grey),
            or a `PIL.Image.Image` of any mode, and of any size. The label is an integer of at least 0, or None. Either
            all items have a label, or none has.
        """
        ...


class ReadItems(NamedTuple):
    """A user-defined data set at one size. Without labels, `labels` is None and `class_names` is empty."""

    images: Any
    labels: np.ndarray | None
    class_names: list[str]
    content: Callable[[], str]


def find_user_source(name: str) -> DataSource:
    """Returns the data set of an import path: an object, or the result of calling a class or function.

    Raises:
        InvalidInputError: there is no such object, or it is not a data set.
    """
    found = find_object(name, "The data source")
    if not is_user_source(found) and callable(found):
        with errors_of_user_code(f"The data source {name} could not be called without arguments"):
            found = found()
    if not is_user_source(found):
        raise InvalidInputError(
            f"The data source {name} needs to be an object with __len__ and __getitem__, or to make one; got "
            f"{_words(found)}."
        )
    return found


def is_user_source(value: Any) -> bool:
    """Returns whether an object has the methods of a `DataSource`, and is not a class, a string or a dictionary."""
    has_both = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return has_both and not isinstance(value, type | str | bytes | dict)


def first_size(data: DataSource, where: str) -> int:
    """Returns the shorter side of the first image, in pixels."""
    return min(_Items(data, where).read(0)[0].shape[:2])


def read_items(
    data: DataSource,
    where: str,
    *,
    resolution: int,
    image_channels: int,
    most_bytes: int,
    absent_classes: bool,
    notify: Notify,
    content: Callable[[], str] | None = None,
) -> ReadItems:
    """Returns the images of a user-defined data set, cropped and resized as in `sagan_jax.data.open_source`.

    All items are read here, in threads. The images are kept in memory if they take at most `most_bytes`; otherwise they
    are read again when needed. A larger set is not read here if it declares its fingerprint and, if it has labels, its
    labels.

    Args:
        data: the items.
        where: their quoted name for messages.
        resolution: R.
        image_channels: C.
        most_bytes: the maximum size of images in memory.
        absent_classes: whether some of the labels 0, 1, .., max may be absent.
        notify: receives a line of progress every minute.
        content: returns a digest of the content. Defaults to `data.fingerprint` with a few items, or to a digest of all
            items.

    Raises:
        InvalidInputError: an item or an attribute violates the interface of `DataSource`. The message names it.
    """
    items, size = _Items(data, where), (resolution, image_channels)
    first, again = items.read(0), items.read(0)
    if not np.array_equal(first[0], again[0]) or first[1] != again[1]:
        raise InvalidInputError(
            f"{where}: item 0 needs to be the same whenever it is read; two reads gave different items. Use "
            f"--augmentation for random transforms."
        )
    items.labelled, items.labels = first[1] is not None, _declared_labels(data, items.count, where)
    items.labels_declared = items.labels is not None
    content = content or _declared_fingerprint(data, items)
    in_memory = items.count * resolution**2 * image_channels <= most_bytes
    images: Any = _ReadWhenNeeded(items, *size)
    if in_memory or content is None or (items.labelled and items.labels is None):
        kept = np.zeros((items.count, resolution, resolution, image_channels), np.uint8) if in_memory else None
        labels, digest = _read_all(items, kept, content is None, notify)
        images = images if kept is None else kept
        items.labels = labels if items.labels is None else items.labels
        content = content or (lambda: digest)
    names = _class_names(data, items, absent_classes=absent_classes, notify=notify)
    return ReadItems(images, items.labels, names, content)


class _Items:
    """The items of a data set. Each is checked when it is read.

    Attributes:
        count: the number of items.
        labelled: whether the items contain labels; None before the first item is read.
        labels: the labels that the items must have, if known.
        labels_declared: whether `labels` is an attribute of the data set, instead of read from the items.
    """

    def __init__(self, data: DataSource, where: str):
        self._data, self.where = data, where
        self.labelled: bool | None = None
        self.labels: np.ndarray | None = None
        self.labels_declared = False
        with errors_of_user_code(f"{where}: len()"):
            self.count = len(data)
        if self.count < 1:
            raise InvalidInputError(f"{where} needs at least one item; len() is {self.count}.")

    def read(self, index: int) -> tuple[np.ndarray, int | None]:
        """Returns an image, uint8 `[H, W, 1 or 3]`, and its label or None."""
        what = f"{self.where}: item {index}"
        with errors_of_user_code(what):
            item = self._data[index]
            image, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
            pixels = _pixels(image, what)
        number = None if label is None else _label(label, what)
        if self.labelled is not None and self.labelled != (number is not None):
            raise InvalidInputError(
                f"{what} needs {'a label' if self.labelled else 'no label'}, as item 0 has; got {label!r}."
            )
        if self.labels is not None and number is not None and number != self.labels[index]:
            source = "according to its attribute labels" if self.labels_declared else "as before"
            raise InvalidInputError(f"{what} needs the label {self.labels[index]}, {source}; got {number}.")
        return pixels, number


class _ReadWhenNeeded:
    """The images of a large data set, read, cropped and resized lazily."""

    def __init__(self, items: _Items, resolution: int, image_channels: int):
        self._items, self._size = items, (resolution, image_channels)

    def __len__(self) -> int:
        return self._items.count

    def __getitem__(self, index: int, /) -> np.ndarray:
        return fit_array(self._items.read(index)[0], *self._size)


def _pixels(image: Any, what: str) -> np.ndarray:
    """Returns an image as uint8 `[H, W, 1 or 3]`."""
    if isinstance(image, Image.Image):
        return plain_array(image)
    array = np.asarray(image) if hasattr(image, "__array__") else None
    if array is not None and array.ndim == 2:
        array = array[..., None]
    if array is None or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in MODES or 0 in array.shape:
        hint = ""
        if array is not None:
            hint = " Scale floats to 0..255." if array.dtype.kind == "f" else ""
            hint += " Put the channels last." if array.ndim == 3 and array.shape[0] in MODES else ""
        raise InvalidInputError(
            f"{what} needs to be an image, uint8 [H, W, 3], [H, W, 1] or [H, W], or a Pillow image, alone or in a pair "
            f"with its label; got {_words(image)}.{hint}"
        )
    return array


def _label(label: Any, what: str) -> int:
    try:
        number = operator.index(label)
    except TypeError:
        number = -1
    if isinstance(label, bool) or not 0 <= number < 2**31:
        raise InvalidInputError(f"{what} needs a label that is an integer from 0, or None; got {_words(label)}.")
    return number


def _words(value: Any) -> str:
    """Returns the dtype and shape of an array, a short value, or the type of another object."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an object of type {type(value).__name__}"


def _declared_labels(data: Any, count: int, where: str) -> np.ndarray | None:
    what = f"{where}: its attribute labels"
    with errors_of_user_code(what):
        declared = getattr(data, "labels", None)
        labels = None if declared is None else np.asarray(declared)
    if labels is None:
        return None
    check_label_array(labels.dtype, labels.shape, count, what)
    return labels.astype(np.int64)


def _declared_fingerprint(data: Any, items: _Items) -> Callable[[], str] | None:
    """Returns a function that computes the declared fingerprint with the length and a digest of a few items.

    So two data sets with the same declared fingerprint, such as training and test splits, are still distinguished.
    """
    where = items.where
    with errors_of_user_code(f"{where}: its attribute fingerprint"):
        declared = getattr(data, "fingerprint", None)
    if declared is None:
        return None
    if not (isinstance(declared, str) and declared):
        raise InvalidInputError(
            f"{where} needs an attribute fingerprint that is a string, or none; got {_words(declared)}."
        )

    def content() -> str:
        whole = hashlib.sha256()
        for index in np.linspace(0, items.count - 1, min(items.count, _SPOT_CHECKED)).astype(int).tolist():
            whole.update(_digest(items.read(index)[0]))
        return f"declared {declared} {items.count} {whole.hexdigest()}"

    return content


def _class_names(data: Any, items: _Items, *, absent_classes: bool, notify: Notify) -> list[str]:
    if items.labels is None:
        return []
    with errors_of_user_code(f"{items.where}: its attribute class_names"):
        declared = getattr(data, "class_names", None)
        names = () if declared is None or isinstance(declared, str) else tuple(declared)
    if declared is None:
        return class_names_from_labels(items.labels, items.count, items.where, absent_classes=absent_classes)
    if isinstance(declared, str) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(f"{items.where} needs an attribute class_names of strings; got {_words(declared)}.")
    return check_classes(items.labels, names, items.count, items.where, notify)


def _read_all(items: _Items, kept: np.ndarray | None, digested: bool, notify: Notify) -> tuple[np.ndarray | None, str]:
    """Reads all items once, and returns the labels, or None, and a digest of all pixels, or "".

    Args:
        items: the items to read.
        kept: an array that receives the cropped and resized images, or None.
        digested: whether to compute the digest.
        notify: receives a line of progress every minute.
    """

    def read_chunk(start: int) -> list[tuple[int | None, bytes]] | Exception:
        found = []
        try:
            for index in range(start, min(start + _CHUNK, items.count)):
                image, label = items.read(index)
                if kept is not None:
                    kept[index] = fit_array(image, *kept.shape[2:])
                found.append((label, _digest(image) if digested else b""))
        except Exception as error:
            return error
        return found

    labels: list[int | None] = []
    whole = hashlib.sha256()
    for part in _in_order(read_chunk, items, notify):
        labels += [label for label, _ in part]
        for _, digest in part:
            whole.update(digest)
    return np.array(labels, np.int64) if items.labelled else None, whole.hexdigest() if digested else ""


def _in_order(read_chunk: Callable[[int], Any], items: _Items, notify: Notify) -> Iterator[Any]:
    """Calls a function in threads for the start of each chunk, and yields the results in order. Raises its errors."""
    last_notice = time.monotonic()
    pool = ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1))
    try:
        for number, part in enumerate(pool.map(read_chunk, range(0, items.count, _CHUNK)), start=1):
            if isinstance(part, Exception):
                raise part
            yield part
            if time.monotonic() - last_notice > _SECONDS_BETWEEN_LINES:
                last_notice = time.monotonic()
                notify(f"{number * _CHUNK:,} of the {items.count:,} items of {items.where} read")
    finally:
        pool.shutdown(cancel_futures=True)


def _digest(image: np.ndarray) -> bytes:
    """Returns a digest of shape and pixels. Labels are part of the source's fingerprint separately."""
    return hashlib.sha256(f"{image.shape} ".encode() + image.tobytes()).digest()
