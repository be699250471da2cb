"""Labels in a CSV file with one row per image: its file name and its class."""

import csv
import io
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from sagan_jax.data.layouts import LabelledFiles, class_names_from_labels, is_image
from sagan_jax.errors import InvalidInputError, one_line

MAX_CSV_BYTES = 2**28
"""The largest accepted CSV file in bytes."""

# The names of the two columns, in lower case. The first is our own; the others are common elsewhere.
_FILE = ("file", "filename", "file_name", "image", "path")
_CLASS = ("class", "label", "class_name", "category")


class CsvLabels(NamedTuple):
    """The path of a CSV file, and the class of each listed file as a string."""

    path: Path
    classes: dict[str, str]


def read_csv_labels(path: Path) -> CsvLabels:
    """Returns the rows of a CSV file. It is UTF-8 with or without a byte order mark; cells may be quoted.

    The file has two columns, the file name of an image and its class. The first row is a header unless it names an
    image. If the header has the columns `file` and `class`, or similar names such as `filename` and `label`, other
    columns are ignored. Columns are separated by commas, or by tabs or semicolons if the first line has no comma.

    Args:
        path: the file.

    Raises:
        InvalidInputError: when the file cannot be read, has other columns, or gives a file no class or two classes.
    """
    where = repr(str(path))
    if path.exists() and not path.is_file():  # reading a pipe could block forever
        raise InvalidInputError(f"The labels need to be a CSV file; {where} is not a regular file.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CSV_BYTES + 1)
        if len(data) > MAX_CSV_BYTES:
            raise ValueError(f"it has more than {MAX_CSV_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = next((character for character in ",\t;" if character in first), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInputError(f"Cannot read the labels {where} as a CSV file in UTF-8: {one_line(error)}.") from error
    columns = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    named = [[columns.index(name) for name in names if name in columns] for names in (_FILE, _CLASS)]
    if all(named):
        file_column, class_column = (found[0] for found in named)
    else:
        file_column, class_column = 0, 1
        _check_width(rows, where)
    if columns and not is_image(rows[0][1][file_column].strip()):
        rows = rows[1:]
    return CsvLabels(path, _classes(rows, file_column, class_column, where))


def assign_csv_labels(names: list[str], labels: CsvLabels, where: str) -> LabelledFiles:
    """Returns the images with the labels of a CSV file.

    If all classes are integers, such as 3 or 3.0, they are the labels. Otherwise they are class names, sorted by their
    bytes, and a label is an index in that order.

    Args:
        names: the full names of all images in the source, in order.
        labels: the rows. Their file names are relative to the source, or to the single folder that holds all images.
        where: the source, quoted, for messages.

    Raises:
        InvalidInputError: when an image has no class or two classes, a row names no image, or one of the integers 0, 1,
            .., max is absent.
    """
    from_csv = repr(str(labels.path))
    if not names:
        raise InvalidInputError(f"{where} needs images for the labels {from_csv}; it holds none.")
    present, classes, unknown = set(names), {}, []
    common = os.path.commonpath([str(PurePosixPath(name).parent) for name in names])
    for written, name_of_class in labels.classes.items():
        plain = os.path.normpath(written.replace("\\", "/"))
        name = next((name for name in (written, plain, os.path.normpath(f"{common}/{plain}")) if name in present), None)
        if name is None:
            unknown.append(written)
        elif classes.setdefault(name, name_of_class) != name_of_class:
            raise InvalidInputError(f"{from_csv} needs one class for each image; {name!r} has two.")
    missing = [name for name in names if name not in classes]
    if missing or unknown:
        raise InvalidInputError(
            f"{from_csv} needs one row for each image of {where} and no others: {_some(missing, names, 'images')} have "
            f"no row, and {_some(unknown, labels.classes, 'rows')} name no image. Names are relative to {where}."
        )
    texts = [classes[name] for name in names]
    if all(re.fullmatch(r"-?[0-9]{1,9}(\.0*)?", text) for text in texts):  # pandas may write the integer 3 as 3.0
        numbers = np.array([int(text.partition(".")[0]) for text in texts], np.int32)
        return LabelledFiles(names, numbers, class_names_from_labels(numbers, len(names), from_csv))
    class_names = sorted(set(texts), key=str.encode)
    number_of = {text: number for number, text in enumerate(class_names)}
    return LabelledFiles(names, np.array([number_of[text] for text in texts], np.int32), class_names)


def _check_width(rows: list[tuple[int, list[str]]], where: str) -> None:
    for line, row in rows:
        if len(row) != 2:
            raise InvalidInputError(
                f"{where} needs two columns, file and class, or a header with these names; line {line} has {len(row)}: "
                f"{','.join(row)[:80]!r}. Are they separated by commas?"
            )


def _classes(rows: list[tuple[int, list[str]]], file_column: int, class_column: int, where: str) -> dict[str, str]:
    """Returns the class of each file. Rows are given with their line numbers."""
    if not rows:
        raise InvalidInputError(f"{where} needs rows of a file and its class; it has none.")
    classes: dict[str, str] = {}
    for line, row in rows:
        file, name_of_class = (
            row[column].strip() if column < len(row) else "" for column in (file_column, class_column)
        )
        if not file or not name_of_class:
            raise InvalidInputError(
                f"{where} needs a file and a class in each row; line {line} holds {','.join(row)[:80]!r}."
            )
        if classes.setdefault(file, name_of_class) != name_of_class:
            raise InvalidInputError(f"{where} needs one class for each image; {file!r} has two.")
    return classes


def _some(few: list[str], everything: Collection[str], what: str) -> str:
    example = f", such as {few[0]!r}," if few else ""
    return f"{len(few):,} of {len(everything):,} {what}{example}"
