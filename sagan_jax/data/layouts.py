"""Which image belongs to which class: from the names of files and folders, or from integer labels."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from sagan_jax.errors import InvalidInputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".zst", ".7z", ".rar")


class Layout(NamedTuple):
    """The names of the images in their order, a label for each, and the name of each class; None and [] unlabelled."""

    names: list[str]
    labels: np.ndarray | None
    class_names: list[str]


def wrapper_of(files: Collection[str], folders: Collection[str]) -> str:
    """Returns `name/` of the one folder that the class folders were packed in, "" where there is none.

    It is alone at the top, holds folders, and no image lies beside it or right in it.

    Args:
        files: relative POSIX names, at least those at the top and one folder down.
        folders: likewise.

    >>> wrapper_of(["birds/owl/1.png", "README"], ["birds", "birds/owl"])
    'birds/'
    >>> wrapper_of(["owl/1.png"], ["owl"])
    ''
    """
    tops = {name.split("/")[0] for name in folders}
    if len(tops) != 1 or not any("/" in name for name in folders):
        return ""
    return "" if any(is_image(name) and name.count("/") <= 1 for name in files) else f"{tops.pop()}/"


def arrange(files: Collection[str], folders: Collection[str], where: str, prefix: str = "") -> Layout:
    """Returns the images in order, with labels.

    A label is the rank of the class folder's name by its bytes. Images at the top, or in just one folder, are
    unlabelled. What is no image is passed over.

    Args:
        files: relative POSIX names of all files, without `prefix`.
        folders: of all folders, likewise.
        where: the source, quoted, for messages.
        prefix: is put before the names that are returned or said.

    Raises:
        InvalidInputError: no images, images and class folders side by side, a folder without images, or folders
            further down.
    """
    deep = [folder for folder in folders if "/" in folder]
    if deep:
        raise InvalidInputError(
            f"{where} needs images at the top, or class folders there or in just one folder; "
            f"{prefix + min(deep)!r} is a folder further down: give the folder, or pack a zip from inside the folder, "
            f"that holds the class folders."
        )
    members: dict[str, list[str]] = {folder: [] for folder in sorted(folders, key=_by_bytes)}
    loose: list[str] = []
    for name in sorted(filter(is_image, files), key=_by_bytes):
        folder, slash, _ = name.rpartition("/")
        (members[folder] if slash else loose).append(name)
    if not loose and not any(members.values()):
        archives = sorted(name for name in files if is_archive(name))
        hint = f" {prefix + archives[0]!r} is an archive: give its path, or unpack it." if archives else ""
        raise InvalidInputError(
            f"{where} holds no images: needed files named {', '.join('*' + suffix for suffix in IMAGE_SUFFIXES)}, or a "
            f"folder of *.parquet.{hint}"
        )
    if loose and members:
        raise InvalidInputError(
            f"{where} needs either images or class folders at the top; it holds both, such as {prefix + loose[0]!r} "
            f"and the folder {prefix + next(iter(members))!r}."
        )
    for folder, held in members.items():
        if not held:
            raise InvalidInputError(
                f"{where} needs images in each of its folders; {prefix + folder!r} has none: fill it or remove it, "
                f"which renumbers the classes after it."
            )
    names = [prefix + name for name in [*loose, *(name for held in members.values() for name in held)]]
    if len(members) <= 1:
        return Layout(names, None, [])
    labels = np.repeat(np.arange(len(members), dtype=np.int32), [len(held) for held in members.values()])
    return Layout(names, labels, list(members))


def classes_of(labels: np.ndarray, num_images: int, where: str) -> list[str]:
    """Returns the names "0", "1", .. of the classes that integer labels speak of.

    Args:
        labels: integers `[num_images]` in which each of 0, 1, .., max occurs.
        num_images: how many there must be.
        where: the source, quoted, for messages.

    Raises:
        InvalidInputError: another dtype or shape, a negative label, or a class without images.
    """
    check_label_array(labels.dtype, labels.shape, num_images, where)
    if labels.min() < 0:
        index = int(labels.argmin())
        raise InvalidInputError(f"{where} needs labels from 0 up; got {labels[index]} for image {index}.")
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        raise InvalidInputError(
            f"{where} needs an image of every class from 0 to the largest label, {labels.max()}; class {gaps[0]} has "
            f"none: are these labels numbered from 0?"
        )
    return [str(label) for label in range(len(present))]


def check_label_array(dtype: np.dtype, shape: tuple[int, ...], num_images: int, where: str) -> None:
    """Raises InvalidInputError unless an array holds one integer for each image."""
    if dtype.kind not in "iu" or shape != (num_images,):
        raise InvalidInputError(
            f"{where} needs integer labels [{num_images}], one for each image; got {dtype} {list(shape)}."
        )


def is_hidden(name: str) -> bool:
    """Returns whether a file is one that programs leave behind: `.DS_Store`, `__MACOSX/..`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_image(name: str) -> bool:
    """Returns whether a file is one of the images, by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_archive(name: str) -> bool:
    """Returns whether a file is packed or compressed, by its name."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def _by_bytes(name: str) -> list[bytes]:
    return [part.encode(errors="surrogateescape") for part in name.split("/")]
