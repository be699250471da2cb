"""Decoded images on disk: a set is decoded once, and every later run reads or maps the result.

A set is `KEY.npy`, uint8 `[N, R, R, C]`, and `KEY.ledger.npz`, which is written last and says what must be in it: a
CRC-32 of each image, the images that cannot be read (their places in the array are black), those that were CMYK, the
labels and the class names. KEY is a digest of the content and of everything that the pixels depend on. The folder can
be deleted at any time.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from numpy.lib import format as npy

from sagan_jax.data.decoding import DECODING_RULES
from sagan_jax.data.encoded import EncodedImages, Findings, Say
from sagan_jax.errors import one_line

_SPARE_BYTES = 2**28  # of the disk that are left for checkpoints


def cache_folder(name: str, kind: str = "images") -> Path | None:
    """Returns the folder that `name` means; None for none.

    Args:
        name: a path; "" for none; `auto` for $SAGAN_JAX_CACHE where it is set, else `sagan_jax/KIND` in
            $XDG_CACHE_HOME or ~/.cache.
        kind: of what is kept; what is not images lies in a folder of that name in the one that was named.
    """
    if name == "auto" and "SAGAN_JAX_CACHE" not in os.environ:
        return Path(_user_cache(), kind).expanduser()
    name = os.environ["SAGAN_JAX_CACHE"] if name == "auto" else name
    return Path(name).expanduser() / ("" if kind == "images" else kind) if name else None


def weights_folder() -> Path:
    """Returns the folder of weights that nobody wants to name each time.

    That is `weights` in $SAGAN_JAX_CACHE where it is set and not empty, else in `sagan_jax` in $XDG_CACHE_HOME or
    ~/.cache, beside the images.
    """
    return cache_folder("auto", "weights") or Path(_user_cache(), "weights").expanduser()


def _user_cache() -> str:
    return f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/sagan_jax"


class CachedImages(NamedTuple):
    """A set as it was decoded: uint8 `[N, R, R, C]`, the CRC-32 of each image, and what was found."""

    images: np.ndarray
    checksums: np.ndarray
    findings: Findings


class DecodedCache:
    """One decoded set on disk; nothing is made before `store`.

    Args:
        folder: that holds the cache, made when needed.
        encoded: the set.
        resolution: R.
        image_channels: C.
        skip_unreadable: how many images may be missing.
        say: takes a line on what is damaged or waited for.
    """

    def __init__(
        self,
        folder: Path,
        encoded: EncodedImages,
        *,
        resolution: int,
        image_channels: int,
        skip_unreadable: int,
        say: Say,
    ):
        self._shape = (encoded.count, resolution, resolution, image_channels)
        self._encoded = encoded
        self._say = say
        self._distrusted = False
        facts = (encoded.content(), *self._shape, skip_unreadable, DECODING_RULES, PIL.__version__)
        key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
        self.path = folder / f"{key}.npy"
        self._ledger = folder / f"{key}.ledger.npz"
        self._lock = folder / f"{key}.lock"

    @property
    def num_bytes(self) -> int:
        """The size of the images."""
        return math.prod(self._shape)

    def load(self, *, mapped: bool) -> CachedImages | None:
        """Returns what is stored, or None when it is absent or damaged.

        Args:
            mapped: leave the images on disk, read-only; their checksums are then left to be verified on reading.

        Raises:
            OSError: the disk refuses.
        """
        try:
            with self._ledger.open("rb") as file, np.load(file, allow_pickle=False) as ledger:
                checksums, skipped, cmyk = (ledger[name] for name in ("checksums", "skipped", "cmyk"))
                same = np.array_equal(ledger["labels"], self._labels())
                same &= str(ledger["class_names"]) == json.dumps(self._encoded.class_names)
            images = np.load(self.path, mmap_mode="r", allow_pickle=False)  # which compares header and size first
            same &= images.shape == self._shape and images.dtype == np.uint8 and images.flags.c_contiguous
            if not same or len(checksums) != len(images):
                raise ValueError("it holds another set")
            images = np.asarray(images) if mapped else np.array(images)
            if not mapped and any(zlib.crc32(image) != check for image, check in zip(images, checksums, strict=True)):
                raise ValueError("its images are not those that were stored")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # says nothing of what is stored
            raise
        except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file
            self.distrust(one_line(error))
            return None
        return CachedImages(images, checksums, Findings(skipped, cmyk))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of this set; says so when another process has it, and waits.

        Raises:
            OSError: the folder cannot be written to, or locks do not work in it.
        """
        try:
            import fcntl
        except ImportError as error:
            raise OSError(errno.ENOSYS, "this system has no file locks") from error
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"waiting for another process, which decodes the same images into {str(self.path)!r}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def check_room(self) -> None:
        """Raises OSError when the disk has not got the room for the images."""
        free = shutil.disk_usage(self.path.parent).free
        if self.num_bytes + _SPARE_BYTES > free:
            raise OSError(
                errno.ENOSPC,
                f"the decoded images have {self.num_bytes / 1e9:.1f} GB, the disk {free / 1e9:.1f} GB free",
            )

    def store(self, fill: Callable[[Callable[[int, np.ndarray], None]], Findings]) -> Findings:
        """Writes a set; it counts only once it is whole. To be called under the lock.

        Args:
            fill: is given `put`, to be called with each index and image, from any thread; returns what it found.

        Returns:
            What `fill` returned.

        Raises:
            OSError: the disk refuses; what was there before is untouched.
        """
        checksums = np.zeros(self._shape[0], np.uint32)
        with _replaced(self.path) as file:
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": self._shape})
            file.flush()
            start, size = file.tell(), math.prod(self._shape[1:])
            checksums[:] = zlib.crc32(bytes(size))
            file.truncate(start + self.num_bytes)

            def put(index: int, image: np.ndarray) -> None:
                data = image.tobytes()
                checksums[index] = zlib.crc32(data)
                if os.pwrite(file.fileno(), data, start + index * size) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            findings = fill(put)
        with _replaced(self._ledger) as file:
            names = json.dumps(self._encoded.class_names)
            np.savez(file, checksums=checksums, labels=self._labels(), class_names=names, **findings._asdict())
        return findings

    def distrust(self, reason: str) -> None:
        """Forgets the set, which is damaged, so that the next to ask for it decodes it again; says so once."""
        with contextlib.suppress(OSError):
            self._ledger.unlink(missing_ok=True)
        if not self._distrusted:
            self._distrusted = True
            self._say(f"warning: {str(self.path)!r} is damaged ({reason}): its images are decoded again")

    def _labels(self) -> np.ndarray:
        return np.zeros(0, np.int64) if self._encoded.labels is None else self._encoded.labels


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that takes the place of `path` at the end, whole, and only if nothing went wrong."""
    temporary = path.with_name(f"{path.name}.tmp")  # of one name: the lock is held, and what a kill left is overwritten
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
