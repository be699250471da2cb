"""Sets of encoded images, wherever they lie: what a folder, a zip and parquet files have in common."""

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

from sagan_jax.data.decoding import decode, why_unreadable
from sagan_jax.errors import InvalidInputError

Say = Callable[[str], None]
"""Takes one line for the user."""

_STRETCH = 64  # images that one thread takes at a time
_SECONDS_BETWEEN_LINES = 60


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class EncodedImages:
    """Image files in a fixed order; `read` and `name` are safe to call from several threads."""

    title: str
    """for a description, such as `cifar10-train.zip`"""
    where: str
    """for messages, quoted"""
    count: int
    name: Callable[[int], str]
    """what image i is called in a message"""
    read: Callable[[int], bytes]
    """the bytes of image i; raises whatever stands in the way"""
    labels: np.ndarray | None
    """integers `[count]`; None when unlabelled"""
    class_names: list[str]
    content: Callable[[], str]
    """a digest of all names and bytes, in hexadecimal digits"""
    close: Callable[[], None] = _nothing


class Findings(NamedTuple):
    """What decoding a set has shown: the indices of the images that cannot be read, and of those that were CMYK."""

    skipped: np.ndarray
    cmyk: np.ndarray

    @classmethod
    def nothing(cls) -> Self:
        """Returns what is known of a set that was not decoded yet."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))


def decode_one(images: EncodedImages, index: int, resolution: int, image_channels: int) -> tuple[np.ndarray, bool]:
    """Returns image `index`, uint8 `[resolution, resolution, image_channels]`, and whether it was CMYK.

    Raises:
        InvalidInputError: it cannot be read or decoded; names it and the reason.
    """
    try:
        return decode(images.read(index), resolution, image_channels)
    except MemoryError:  # the machine's fault, not the file's
        raise
    except Exception as error:
        raise InvalidInputError(
            f"Cannot read image {images.name(index)!r} of {images.where} as PNG, JPEG or WEBP: {why_unreadable(error)}."
        ) from error


def decode_all(
    images: EncodedImages,
    put: Callable[[int, np.ndarray], None],
    *,
    resolution: int,
    image_channels: int,
    skip_unreadable: int,
    say: Say,
) -> Findings:
    """Decodes a whole set once, in threads, and returns what was found.

    Args:
        images: what to decode.
        put: is given each index with its image, in no fixed order and by several threads; not the unreadable ones.
        resolution: of the images that `put` is given.
        image_channels: likewise.
        skip_unreadable: how many images may be unreadable.
        say: gets a line a minute.

    Raises:
        InvalidInputError: more than `skip_unreadable` images cannot be read; names the first of them in order.
    """
    failures: list[tuple[int, InvalidInputError]] = []
    cmyk: list[int] = []

    def decode_stretch(start: int) -> tuple[list[tuple[int, InvalidInputError]], list[int]]:
        failed, converted = [], []
        for index in range(start, min(start + _STRETCH, images.count)):
            try:
                image, was_cmyk = decode_one(images, index, resolution, image_channels)
            except InvalidInputError as error:
                failed.append((index, error))
                continue
            put(index, image)
            if was_cmyk:
                converted.append(index)
        return failed, converted

    pool = ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1))
    said = time.monotonic()
    try:
        # In order, so that of several unreadable files the first is named, whatever the threads do.
        for number, (failed, converted) in enumerate(pool.map(decode_stretch, range(0, images.count, _STRETCH))):
            failures += failed
            cmyk += converted
            if len(failures) > skip_unreadable:
                first = failures[0][1]
                if not skip_unreadable:
                    raise first
                raise InvalidInputError(
                    f"{images.where} has more unreadable images than the {skip_unreadable} that may be skipped; the "
                    f"first: {first}"
                ) from first
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                say(f"{(number + 1) * _STRETCH:,} of {images.count:,} images decoded")
    finally:
        pool.shutdown(cancel_futures=True)
    return Findings(np.array([index for index, _ in failures], np.int64), np.array(cmyk, np.int64))


class DecodedOnRead:
    """The images of a set that is too large for memory: `images[index]` decodes."""

    def __init__(self, images: EncodedImages, resolution: int, image_channels: int, say: Say):
        self._images = images
        self._size = (resolution, image_channels)
        self._say = say
        self._said = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._images.count

    def be_quiet_about_cmyk(self) -> None:
        """It has been said."""
        self._said = True

    def __getitem__(self, index: int, /) -> np.ndarray:
        image, was_cmyk = decode_one(self._images, index, *self._size)
        if was_cmyk:
            with self._lock:
                first, self._said = not self._said, True
            if first:
                self._say(cmyk_line(self._images, index, "images"))
        return image


def cmyk_line(images: EncodedImages, index: int, how_many: str) -> str:
    """Returns the line that says that images were CMYK, such as image `index`."""
    return (
        f"warning: {images.where} has {how_many} in CMYK, such as {images.name(index)!r}: made RGB without a colour "
        f"profile, so colours may be off"
    )


def digest_files(root: Path, names: Sequence[str]) -> str:
    """Returns a sha256 over the names and bytes of files, in order, in hexadecimal digits.

    Args:
        root: the folder they are in.
        names: relative to it. One that cannot be read counts as such, and not as its bytes.
    """

    def digest(name: str) -> bytes:
        try:
            with (root / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return b"unreadable".ljust(32)

    whole = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for name, part in zip(names, pool.map(digest, names), strict=True):
            encoded = name.encode(errors="surrogateescape")
            whole.update(len(encoded).to_bytes(8) + encoded + part)
    return whole.hexdigest()
