"""A cache of decoded images on disk: a data set is decoded once, and later runs read or memory-map the result.

A cached set has two files. `KEY.npy` holds the images, uint8 `[N, R, R, C]`. `KEY.ledger.npz` is written last. It holds
the CRC-32 of each image, the labels and the class names. It also holds the indices of unreadable images (black in the
array), of CMYK images and of images with several frames. KEY is a digest of the content, the labels and everything else
that the set depends on. The cache folder can be deleted at any time.
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

from sagan_jax.data.decoding import DECODING_VERSION, FAST_DECODING_VERSION
from sagan_jax.data.encoded import EncodedImages, Findings, Notify
from sagan_jax.errors import one_line
from sagan_jax.runtime.files import open_regular

_SPARE_BYTES = 2**28  # disk space to leave free for checkpoints


class CachedImages(NamedTuple):
    """A decoded data set: images uint8 `[N, R, R, C]`, the CRC-32 of each image, and the findings of decoding."""

    images: np.ndarray
    checksums: np.ndarray
    findings: Findings


class DecodedCache:
    """One decoded data set on disk. The constructor creates no files.

    Args:
        folder: the cache folder; created when needed.
        encoded: the data set.
        resolution: R.
        image_channels: C.
        skip_unreadable: the maximum number of unreadable images.
        notify: receives a line when the cache is damaged, or when another process holds it.
    """

    def __init__(
        self,
        folder: Path,
        encoded: EncodedImages,
        *,
        resolution: int,
        image_channels: int,
        skip_unreadable: int,
        notify: Notify,
    ):
        self._shape = (encoded.count, resolution, resolution, image_channels)
        self._encoded = encoded
        self._notify = notify
        self._invalidated = False
        names = hashlib.sha256(self._labels().astype("<i8").tobytes() + json.dumps(encoded.class_names).encode())
        facts = (encoded.content(), *self._shape, skip_unreadable, DECODING_VERSION, PIL.__version__)
        facts += (names.hexdigest(),)  # labels in a separate file are not part of the content
        if encoded.decoding == "fast":  # keeps the keys of caches from before this option existed
            facts += ("fast", FAST_DECODING_VERSION)
        key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
        self.path = folder / f"{key}.npy"
        self._ledger = folder / f"{key}.ledger.npz"
        self._lock = folder / f"{key}.lock"

    @property
    def num_bytes(self) -> int:
        """The size of the decoded images in bytes."""
        return math.prod(self._shape)

    def load(self, *, mapped: bool) -> CachedImages | None:
        """Returns the stored data set, or None when it is absent or damaged.

        Args:
            mapped: whether to memory-map the images read-only. The caller then verifies the checksum of each image when
                it reads it.

        Raises:
            OSError: when a file cannot be read.
        """
        try:
            with open_regular(self._ledger) as file, np.load(file, allow_pickle=False) as ledger:
                checksums = ledger["checksums"]
                findings = Findings(*(ledger[name] for name in Findings._fields))
                same = np.array_equal(ledger["labels"], self._labels())
                same &= str(ledger["class_names"]) == json.dumps(self._encoded.class_names)
            open_regular(self.path).close()
            images = np.load(self.path, mmap_mode="r", allow_pickle=False)  # checks the header and the file size
            same &= images.shape == self._shape and images.dtype == np.uint8 and images.flags.c_contiguous
            if not same or len(checksums) != len(images):
                raise ValueError("it holds another data set")
            images = np.asarray(images) if mapped else np.array(images)
            if not mapped and any(zlib.crc32(image) != check for image, check in zip(images, checksums, strict=True)):
                raise ValueError("its images differ from those that were stored")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # not a sign of damaged data
            raise
        except Exception as error:  # numpy, zipfile and zlib raise many kinds of error for a damaged file
            self.invalidate(one_line(error))
            return None
        return CachedImages(images, checksums, findings)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of this data set. Waits, with a notice, while another process holds it.

        Raises:
            OSError: when the folder is not writable, or does not support file locks.
        """
        try:
            import fcntl
        except ImportError as error:
            raise OSError(errno.ENOSYS, "this system has no file locks") from error
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        # Without O_NONBLOCK, opening a named pipe may block.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        with os.fdopen(os.open(self._lock, flags, 0o666), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._notify(f"waiting for another process that decodes the same images into {str(self.path)!r}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def check_free_space(self) -> None:
        """Raises OSError when the disk has too little free space for the images."""
        free = shutil.disk_usage(self.path.parent).free
        if self.num_bytes + _SPARE_BYTES > free:
            raise OSError(
                errno.ENOSPC,
                f"the decoded images need {self.num_bytes / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free",
            )

    def store(self, fill: Callable[[Callable[[int, np.ndarray], None]], Findings]) -> Findings:
        """Writes a data set. `load` finds it only when it is complete. The caller must hold the lock.

        Args:
            fill: a function that decodes the set. It receives a function `put(index, image)` and calls it for each
                image, from any thread.

        Returns:
            The result of `fill`.

        Raises:
            OSError: when the disk is full or read-only. Files that existed before stay unchanged.
        """
        checksums = np.zeros(self._shape[0], np.uint32)
        with _atomic_writer(self.path) as file:
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
        with _atomic_writer(self._ledger) as file:
            names = json.dumps(self._encoded.class_names)
            np.savez(file, checksums=checksums, labels=self._labels(), class_names=names, **findings._asdict())
        return findings

    def invalidate(self, reason: str) -> None:
        """Marks the cached set as damaged, so that the next run decodes it again. The first call notifies the user."""
        with contextlib.suppress(OSError):
            self._ledger.unlink(missing_ok=True)
        if not self._invalidated:
            self._invalidated = True
            self._notify(f"warning: {str(self.path)!r} is damaged ({reason}); its images are decoded again")

    def _labels(self) -> np.ndarray:
        return np.zeros(0, np.int64) if self._encoded.labels is None else self._encoded.labels


@contextlib.contextmanager
def _atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces `path` when the block ends without an error."""
    # The name can be fixed, because the caller holds the lock. A file that a killed process left is replaced.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # it may be a pipe or a link
        with temporary.open("xb") as file:
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
