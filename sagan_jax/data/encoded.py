"""Data sets of encoded images: the common code for folders, zip files and parquet files."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from sagan_jax.data.decoding import Decoding, Traits, decode, unreadable_reason
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import open_regular

Notify = Callable[[str], None]
"""A callback that receives one line for the user."""

_CHUNK_IMAGES = 64  # images that a thread decodes at a time
_SECONDS_BETWEEN_LINES = 60


def _do_nothing() -> None:
    pass


@dataclass(frozen=True)
class EncodedImages:
    """Image files in a fixed order. `read` and `name` are thread-safe."""

    title: str
    """the name for descriptions, such as `cifar10-train.zip`"""
    where: str
    """the quoted path for messages"""
    count: int
    name: Callable[[int], str]
    """returns the name of image i for messages"""
    read: Callable[[int], bytes]
    """returns the bytes of image i; may raise any error"""
    labels: np.ndarray | None
    """integers `[count]`, or None when the set has no labels"""
    class_names: list[str]
    content: Callable[[], str]
    """returns a digest of all names and bytes, and of the name of the image column if it is not the default"""
    close: Callable[[], None] = _do_nothing
    total: int = 0
    """the number of images in the whole set if these are a subset, else 0"""
    decoding: Decoding = "exact"
    """how JPEGs are decoded"""


class Findings(NamedTuple):
    """The findings of decoding a data set: indices of unreadable images, and of images with each of the `Traits`."""

    skipped: np.ndarray
    cmyk: np.ndarray
    frames: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """Returns the findings of a set that has not been decoded yet."""
        return cls(*(np.zeros(0, np.int64) for _ in cls._fields))


def decode_one(images: EncodedImages, index: int, resolution: int, image_channels: int) -> tuple[np.ndarray, Traits]:
    """Returns image `index`, uint8 `[resolution, resolution, image_channels]`, and its traits.

    Raises:
        InvalidInputError: when the image cannot be read or decoded. The message names the image and the reason.
    """
    try:
        return decode(images.read(index), resolution, image_channels, images.decoding)
    except MemoryError:  # not a sign of a damaged file
        raise
    except Exception as error:
        raise InvalidInputError(
            f"Cannot read image {images.name(index)!r} of {images.where}: {unreadable_reason(error)}."
        ) from error


def decode_all(
    images: EncodedImages,
    put: Callable[[int, np.ndarray], None],
    *,
    resolution: int,
    image_channels: int,
    skip_unreadable: int,
    notify: Notify,
) -> Findings:
    """Decodes a whole data set in threads, and returns the findings.

    Args:
        images: the data set.
        put: called with the index and the pixels of each readable image, from several threads and in any order.
        resolution: the size of the images that `put` receives.
        image_channels: the channels of the images that `put` receives.
        skip_unreadable: the maximum number of unreadable images.
        notify: receives a line of progress every minute.

    Raises:
        InvalidInputError: when more than `skip_unreadable` images cannot be read. The message names the first one.
    """
    failures: list[tuple[int, InvalidInputError]] = []
    remarkable: list[tuple[int, Traits]] = []

    def decode_chunk(start: int) -> tuple[list[tuple[int, InvalidInputError]], list[tuple[int, Traits]]]:
        failed, marked = [], []
        for index in range(start, min(start + _CHUNK_IMAGES, images.count)):
            try:
                image, traits = decode_one(images, index, resolution, image_channels)
            except InvalidInputError as error:
                failed.append((index, error))
                continue
            put(index, image)
            if any(traits):
                marked.append((index, traits))
        return failed, marked

    pool = ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1))
    last_notice = time.monotonic()
    try:
        # `map` keeps the order, so the message always names the first unreadable file.
        for number, (failed, marked) in enumerate(pool.map(decode_chunk, range(0, images.count, _CHUNK_IMAGES))):
            failures += failed
            remarkable += marked
            if len(failures) > skip_unreadable:
                first = failures[0][1]
                if not skip_unreadable:
                    raise first
                raise InvalidInputError(
                    f"{images.where} has more unreadable images than the {skip_unreadable} that may be skipped. The "
                    f"first: {first}"
                ) from first
            if time.monotonic() - last_notice > _SECONDS_BETWEEN_LINES:
                last_notice = time.monotonic()
                notify(f"{(number + 1) * _CHUNK_IMAGES:,} of {images.count:,} images decoded")
    finally:
        pool.shutdown(cancel_futures=True)
    marks = {
        trait: np.array([index for index, traits in remarkable if getattr(traits, trait)], np.int64)
        for trait in Traits._fields
    }
    return Findings(np.array([index for index, _ in failures], np.int64), **marks)


class DecodedOnRead:
    """The images of a data set that is too large for memory. `images[index]` decodes one image."""

    def __init__(self, images: EncodedImages, resolution: int, image_channels: int, notify: Notify):
        self._images = images
        self._size = (resolution, image_channels)
        self._notify = notify
        self._reported: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._images.count

    def mark_reported(self, trait: str) -> None:
        """Suppresses the notice about one of the `Traits`, because it was already given."""
        self._reported.add(trait)

    def __getitem__(self, index: int, /) -> np.ndarray:
        image, traits = decode_one(self._images, index, *self._size)
        for trait, present in traits._asdict().items():
            if not present:
                continue
            with self._lock:
                first = trait not in self._reported
                self._reported.add(trait)
            if first:
                self._notify(trait_line(trait, self._images, index, "images"))
        return image


def trait_line(trait: str, images: EncodedImages, index: int, how_many: str) -> str:
    """Returns the notice that images have one of the `Traits`, with image `index` as the example."""
    example = f"such as {images.name(index)!r}"
    if trait == "cmyk":
        return (
            f"warning: {images.where} has {how_many} in CMYK, {example}; they were converted to RGB without a colour "
            f"profile, so colours may be wrong"
        )
    return f"{images.where} has {how_many} with several frames or pages, {example}; the first of each is read"


def digest_files(root: Path, names: Sequence[str]) -> str:
    """Returns a sha256 over the names and bytes of files, in order, in hexadecimal digits.

    Args:
        root: the folder of the files.
        names: the paths of the files, relative to `root`. For an unreadable file, a fixed marker replaces its bytes.
    """

    def digest(name: str) -> bytes:
        try:
            with open_regular(root / name) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except (OSError, InvalidInputError):
            return b"unreadable".ljust(32)

    whole = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for name, part in zip(names, pool.map(digest, names), strict=True):
            encoded = name.encode(errors="surrogateescape")
            whole.update(len(encoded).to_bytes(8) + encoded + part)
    return whole.hexdigest()
