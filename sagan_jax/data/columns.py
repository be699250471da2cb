"""Images and labels in the columns of a table: the names of the columns, and checks of the labels."""

from collections.abc import Iterable
from typing import Any, TypedDict

import numpy as np

from sagan_jax.data.encoded import Notify
from sagan_jax.data.layouts import class_names_from_labels
from sagan_jax.errors import InvalidInputError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")


class ColumnNames(TypedDict):
    """The column names that the user gave; "" for the default names."""

    label_column: str
    image_column: str


def listed(names: Iterable[str]) -> str:
    """Returns quoted names for a message."""
    return ", ".join(map(repr, names))


def content_of_column(content: str, column: str, default: str) -> str:
    """Returns a digest of the images of one column of a file.

    Args:
        content: a digest of the file, which holds all columns.
        column: the column that is read. The result differs from `content` only if it is not the default.
        default: the column that is read by default; "" if the user has to name one.
    """
    return content if column == default else f"{content} {column}"


def integers(column: Any, where: str) -> np.ndarray:
    """Returns a pyarrow column as int64 `[N]`. Raises InvalidInputError if a row has no value."""
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise InvalidInputError(f"{where} needs a label in each row; row {row} has none.")
    return column.to_numpy().astype(np.int64)


def check_classes(labels: np.ndarray, names: tuple[str, ...], count: int, where: str, notify: Notify) -> list[str]:
    """Checks the labels and returns the class names. Without names, these are the labels 0, 1, .., max.

    Args:
        labels: integers `[count]`.
        names: one for each label, or () for none.
        count: the number of images.
        where: the source, quoted, for messages.
        notify: receives a line when a named class has no image.

    Raises:
        InvalidInputError: when a label has no name; or, without names, when a label does not occur.
    """
    if not names:
        return class_names_from_labels(labels, count, where)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise InvalidInputError(
            f"{where} needs labels from 0 to {len(names) - 1}, because it names {len(names)} classes; got "
            f"{labels[wrong[0]]} in row {wrong[0]}. Is it a split without labels?"
        )
    absent = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(absent):
        notify(f"warning: {len(absent)} of {len(names)} classes of {where} have no image, such as {names[absent[0]]!r}")
    return list(names)
