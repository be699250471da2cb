"""Labels in a file next to the images: `dataset.json`, in the format of StyleGAN's `dataset_tool`."""

import json
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from sagan_jax.data.csv_labels import CsvLabels, assign_csv_labels
from sagan_jax.data.encoded import Notify
from sagan_jax.data.layouts import (
    LabelledFiles,
    assign_labels,
    class_names_from_labels,
    passed_over_line,
    sorted_images,
)
from sagan_jax.errors import InvalidInputError, one_line

LABEL_FILE = "dataset.json"
MAX_LABEL_FILE_BYTES = 2**27
"""The largest accepted label file in bytes. The label file of ImageNet has 50 MB."""


class LabelFile(NamedTuple):
    """The name of a label file, and the class of each image name; None if its labels are `null`."""

    name: str
    classes: dict[str, int] | None


def label_images(
    files: Collection[str],
    folders: Collection[str],
    everything: set[str],
    prefix: str,
    read: Callable[[str], bytes],
    where: str,
    notify: Notify,
    csv_labels: CsvLabels | None = None,
) -> LabelledFiles:
    """Returns the images with labels from a file, or else from their folders. Reports ignored files to the user.

    Args:
        files: the names of the files in the folder `prefix`, relative to it.
        folders: the names of the folders in it, relative to it.
        everything: the full names of all files of the source.
        prefix: as for `find_label_file`.
        read: returns the first `MAX_LABEL_FILE_BYTES + 1` bytes of a file.
        where: the source, quoted, for messages.
        notify: receives a line when labels come from a file, and when files are ignored.
        csv_labels: labels that the user gave. They replace all others.

    Raises:
        InvalidInputError: when the source has another layout, or its label file is invalid.
    """
    label_file = None if csv_labels else find_label_file(everything, prefix, read, where, notify)
    if csv_labels:
        found = assign_csv_labels([prefix + name for name in sorted_images(files)], csv_labels, where)
        notify(f"{where}: the labels are those in {str(csv_labels.path)!r}")
    elif label_file:
        found = assign_file_labels(files, label_file, where, prefix)
    else:
        found = assign_labels(files, folders, where, prefix)
    others = everything.difference(found.names, [label_file.name] if label_file else [])
    if others:
        notify(passed_over_line(others, where))
    return found


def find_label_file(
    files: Collection[str], prefix: str, read: Callable[[str], bytes], where: str, notify: Notify
) -> LabelFile | None:
    """Returns the labels in a file `dataset.json`, or None when there is no such file or it has no `labels`.

    Args:
        files: the full names of the files of a source; at least those at the top level and in the folder `prefix`.
        prefix: the folder that contains all images, with a trailing slash, or "". The file may be in it or next to it.
        read: returns the first `MAX_LABEL_FILE_BYTES + 1` bytes of a file.
        where: the source, quoted, for messages.
        notify: receives a line with the origin of the labels.

    Raises:
        InvalidInputError: when the file cannot be read, is too large or not JSON, or does not have one integer class
            for each of its names.
    """
    folder = next((folder for folder in (prefix, "") if folder + LABEL_FILE in files), None)
    if folder is None:
        return None
    name = folder + LABEL_FILE
    try:
        data = read(name)
        if len(data) > MAX_LABEL_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_LABEL_FILE_BYTES:,} bytes")
        content = json.loads(data)
    except (MemoryError, InvalidInputError):
        raise
    except Exception as error:  # zipfile, zlib and json raise many kinds of error
        raise InvalidInputError(f"Cannot read the labels {name!r} of {where}: {one_line(error)}.") from error
    if not isinstance(content, dict) or "labels" not in content:
        return None
    if content["labels"] is None:
        notify(f"{where} has no labels, according to its {name!r}")
        return LabelFile(name, None)
    notify(f"{where}: the labels are those in {name!r}, not the folders")
    return LabelFile(name, _classes(content["labels"], folder, f"{name!r} of {where}"))


def assign_file_labels(files: Collection[str], label_file: LabelFile, where: str, prefix: str) -> LabelledFiles:
    """Returns the images, sorted by the bytes of their names, with the labels in a label file.

    Args:
        files: the names of all files, relative to `prefix`.
        label_file: the labels, by full name.
        where: the source, quoted, for messages.
        prefix: the folder to prepend to the names.

    Raises:
        InvalidInputError: when there are no images, an image has no label, or one of the labels 0, 1, .., max does not
            occur.
    """
    names = [prefix + name for name in sorted_images(files)]
    if not names:
        raise InvalidInputError(f"{where} needs images; it holds {label_file.name!r} and no images.")
    if label_file.classes is None:
        return LabelledFiles(names, None, [])
    missing = [name for name in names if name not in label_file.classes]
    if missing:
        raise InvalidInputError(
            f"{label_file.name!r} of {where} needs a label for each image; {len(missing):,} of {len(names):,} have "
            f"none, such as {missing[0]!r}. Are its names relative to its own folder?"
        )
    labels = np.array([label_file.classes[name] for name in names], np.int32)
    return LabelledFiles(names, labels, class_names_from_labels(labels, len(names), f"{label_file.name!r} of {where}"))


def _classes(entries: object, folder: str, where: str) -> dict[str, int]:
    """Returns the class of each full name from a list of `[name, class]`."""
    if not isinstance(entries, list):
        raise InvalidInputError(f"{where} needs `labels` as a list of [name, class]; it holds {_shown(entries)}.")
    classes: dict[str, int] = {}
    for entry in entries:
        match entry:
            case [str(name), int(label)] if not isinstance(label, bool) and 0 <= label < 2**31:
                if classes.setdefault(folder + name, label) != label:
                    raise InvalidInputError(f"{where} needs one class for each image; {name!r} has two.")
            case _:
                raise InvalidInputError(
                    f"{where} needs entries [name, class] with a class of 0, 1, 2, ..; it holds {_shown(entry)}."
                )
    return classes


def _shown(value: object) -> str:
    """Returns the start of a JSON value in short, printable form."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}.."
