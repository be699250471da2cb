"""The class of each image, from the names of files and folders or from integer labels."""

from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from sagan_jax.errors import InvalidInputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jfif", ".jpe", ".apng")
IMAGE_SUFFIXES += (".mpo", ".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi")
IMAGE_SUFFIXES += (".dib", ".pcx", ".sgi", ".bw", ".rgb", ".rgba", ".dds", ".psd")
_MAX_KINDS = 5  # kinds of ignored files in one message
_SPLITS = {"train", "test", "validation", "valid", "val"}
_MOST_CLASSES = 1_000_000  # a larger label is a mistake, and so many class names would exhaust the memory
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".zst", ".7z", ".rar")


class LabelledFiles(NamedTuple):
    """The names of the images in order, their labels and the class names. Without labels these are None and []."""

    names: list[str]
    labels: np.ndarray | None
    class_names: list[str]


def wrapper_folder(files: Collection[str], folders: Collection[str]) -> str:
    """Returns `name/` of the single folder that contains the class folders, or "" if there is no such folder.

    This wrapper is the only folder at the top level, and it contains folders. There is no image next to it or directly
    in it.

    Args:
        files: relative POSIX names of files, at least those of the first two levels.
        folders: relative POSIX names of folders, at least those of the first two levels.

    Examples:
        >>> wrapper_folder(["birds/owl/1.png", "README"], ["birds", "birds/owl"])
        'birds/'
        >>> wrapper_folder(["owl/1.png"], ["owl"])
        ''
    """
    tops = {name.split("/")[0] for name in folders}
    if len(tops) != 1 or not any("/" in name for name in folders):
        return ""
    return "" if any(is_image(name) and name.count("/") <= 1 for name in files) else f"{tops.pop()}/"


def assign_labels(files: Collection[str], folders: Collection[str], where: str, prefix: str = "") -> LabelledFiles:
    """Returns the images in order, with labels.

    Class folders are sorted by the bytes of their names, and a label is an index in that order. Images at the top
    level, or in a single folder, have no labels. Files that are not images are ignored.

    Args:
        files: POSIX names of all files, relative to `prefix`.
        folders: POSIX names of all folders, relative to `prefix`.
        where: the source, quoted, for messages.
        prefix: the folder to prepend to the names in the result and in messages.

    Raises:
        InvalidInputError: when there are no images, images lie next to class folders, a folder has no images, or class
            folders have subfolders.
    """
    deep = [folder for folder in folders if "/" in folder]
    if deep:
        splits = [folder for folder in folders if is_split(folder)]
        hint = f" Are {', '.join(sorted(splits))} splits of one set? Then give one of them." if len(splits) > 1 else ""
        raise InvalidInputError(
            f"{where} needs images at the top, or class folders at the top or in a single folder; "
            f"{prefix + min(deep)!r} is a folder at a deeper level. Give the folder that holds the class folders, or "
            f"create the zip inside that folder.{hint}"
        )
    members: dict[str, list[str]] = {folder: [] for folder in sorted(folders, key=_by_bytes)}
    top_level: list[str] = []
    for name in sorted_images(files):
        folder, slash, _ = name.rpartition("/")
        (members[folder] if slash else top_level).append(name)
    if not top_level and not any(members.values()):
        archives = sorted(name for name in files if is_archive(name))
        hint = f" {prefix + archives[0]!r} is an archive: give its path, or unpack it." if archives else ""
        raise InvalidInputError(
            f"{where} needs files named {', '.join(f'*{suffix}' for suffix in IMAGE_SUFFIXES)}, or a folder of "
            f"*.parquet files; it holds no images.{hint}"
        )
    if top_level and members:
        raise InvalidInputError(
            f"{where} needs either images or class folders at the top; it holds both, such as "
            f"{prefix + top_level[0]!r} and the folder {prefix + next(iter(members))!r}."
        )
    for folder, held in members.items():
        if not held:
            raise InvalidInputError(
                f"{where} needs images in each of its folders; {prefix + folder!r} has none. Fill it, or remove it, "
                f"which changes the labels of the classes after it."
            )
    names = [prefix + name for name in [*top_level, *(name for held in members.values() for name in held)]]
    if len(members) <= 1:
        return LabelledFiles(names, None, [])
    labels = np.repeat(np.arange(len(members), dtype=np.int32), [len(held) for held in members.values()])
    return LabelledFiles(names, labels, list(members))


def sorted_images(files: Collection[str]) -> list[str]:
    """Returns the names of images among the names of files, sorted by the bytes of their parts."""
    return sorted(filter(is_image, files), key=_by_bytes)


def passed_over_line(names: Collection[str], where: str) -> str:
    """Returns the notice that these files are ignored because they are not images, with the number of each kind.

    Examples:
        >>> passed_over_line(["a/notes.txt", "b.TXT", "README"], "'birds'")
        "'birds': ignored 3 files that are not read as images: 2 .txt, 1 without a suffix"
    """
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names)
    shown = [f"{count:,} {kind if kind.isprintable() else repr(kind)}" for kind, count in kinds.most_common(_MAX_KINDS)]
    more = [f"{len(kinds) - _MAX_KINDS:,} more kinds"] if len(kinds) > _MAX_KINDS else []
    what = (
        "1 file that is not read as an image"
        if len(names) == 1
        else f"{len(names):,} files that are not read as images"
    )
    return f"{where}: ignored {what}: {', '.join(shown + more)}"


def class_names_from_labels(
    labels: np.ndarray, num_images: int, where: str, *, absent_classes: bool = False
) -> list[str]:
    """Returns the class names "0", "1", .. for integer labels.

    Args:
        labels: integers `[num_images]`. Each of 0, 1, .., max must occur.
        num_images: the number of images.
        where: the source, quoted, for messages.
        absent_classes: whether classes may have no image, as in samples of only some classes.

    Raises:
        InvalidInputError: when the labels have another dtype or shape, a label is negative, or a class has no image.
    """
    check_label_array(labels.dtype, labels.shape, num_images, where)
    if labels.min() < 0:
        index = int(labels.argmin())
        raise InvalidInputError(f"{where} needs labels of at least 0; got {labels[index]} for image {index}.")
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if absent_classes and labels.max() >= _MOST_CLASSES:
        raise InvalidInputError(f"{where} needs labels below {_MOST_CLASSES:,}; got {labels.max()}.")
    if len(gaps) and not absent_classes:
        raise InvalidInputError(
            f"{where} needs an image of every class from 0 to the largest label, {labels.max()}; class {gaps[0]} has "
            f"none. Do the labels start at 0?"
        )
    return [str(label) for label in range(int(labels.max()) + 1)]


def check_label_array(dtype: np.dtype, shape: tuple[int, ...], num_images: int, where: str) -> None:
    """Raises InvalidInputError unless an array has one integer label for each image."""
    if dtype.kind not in "iu" or shape != (num_images,):
        raise InvalidInputError(
            f"{where} needs integer labels [{num_images}], one for each image; got {dtype} {list(shape)}."
        )


def is_hidden(name: str) -> bool:
    """Returns whether a path is hidden or a system file, such as `.DS_Store` or `__MACOSX/..`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_split(name: str) -> bool:
    """Returns whether a name is that of a split of a data set, such as `train`."""
    return name in _SPLITS


def is_image(name: str) -> bool:
    """Returns whether a file name is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_archive(name: str) -> bool:
    """Returns whether a file name is that of an archive or a compressed file."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def _by_bytes(name: str) -> list[bytes]:
    return [part.encode(errors="surrogateescape") for part in name.split("/")]
