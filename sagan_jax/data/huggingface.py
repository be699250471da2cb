"""Images in a folder written by `save_to_disk` of Hugging Face datasets."""

import json
import os
from pathlib import Path
from typing import Any

from sagan_jax.data import decoding
from sagan_jax.data.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_classes,
    content_of_column,
    integers,
    listed,
)
from sagan_jax.data.encoded import EncodedImages, Notify, digest_files
from sagan_jax.errors import InvalidInputError, one_line

_SPLITS_FILE = "dataset_dict.json"
_FILES = ("state.json", "dataset_info.json")


def is_saved_dataset(path: Path) -> bool:
    """Returns whether a path is a folder written by `save_to_disk`, with one data set or several splits."""
    try:
        return (path / _SPLITS_FILE).is_file() or all((path / name).is_file() for name in _FILES)
    except OSError:  # a folder without access; listing it later reports the error
        return False


def open_saved_dataset(path: Path, notify: Notify, *, label_column: str = "", image_column: str = "") -> EncodedImages:
    """Returns the images of a saved data set. Nothing is downloaded.

    The images are in the column `image` or `img`, or in the only column with the feature `Image`. The labels are in the
    first of the columns `label`, `labels`, `fine_label` and `class` that is a `ClassLabel` or an integer. Otherwise
    they are in the only column with the feature `ClassLabel`. The class names are those of the `ClassLabel`. If there
    are several splits, `train` is read.

    Args:
        path: a folder that `is_saved_dataset` accepts.
        notify: receives a line when one of several splits is read, or when no column holds labels.
        label_column: the column of the labels, or "" for the default names.
        image_column: the column of the images, or "" for the default names.

    Raises:
        InvalidInputError: when the package datasets is not installed, the folder is damaged, it has no split `train`,
            or a column is absent or holds something else.
    """
    try:
        import datasets
    except ImportError as error:
        raise InvalidInputError(
            f"{str(path)!r} is a folder of Hugging Face datasets, and needs the package datasets, which is not "
            f"installed. Run: pip install 'sagan-jax[datasets]'."
        ) from error
    title = path.resolve().name
    split = _split(path, notify)
    if split:
        path, title = path / split, f"{title}/{split}"
    where = repr(str(path))
    try:
        found = datasets.Dataset.load_from_disk(str(path), keep_in_memory=False)  # its files are the content
    except Exception as error:  # malformed bytes can raise any error in pyarrow
        raise InvalidInputError(f"Cannot read {where} as a folder of datasets: {one_line(error)}.") from error
    if not len(found):
        raise InvalidInputError(f"{where} needs images; it has no rows.")
    image = _image_column(found.features, where, image_column)
    label = _label_column(found.features, where, label_column)
    if not label and len(found.features) > 1:
        notify(f"{where} is read without labels: none of its columns {listed(found.features)} holds classes")
    rows: Any = found.with_format("arrow")
    labels, class_names = None, []
    if label:
        names = tuple(getattr(found.features[label], "names", ()))
        labels = integers(rows.select_columns([label])[:].column(0), where)
        class_names = check_classes(labels, names, len(found), where, notify)
    files = [os.path.relpath(file["filename"], path) for file in found.cache_files]

    def read(index: int) -> bytes:
        value = rows[index].column(image)[0].as_py()
        data = value["bytes"] if value else None
        if data is None:
            raise ValueError("its row holds no bytes")
        if len(data) > decoding.MAX_FILE_BYTES:
            raise ValueError(f"it has more than {decoding.MAX_FILE_BYTES:,} bytes")
        return data

    return EncodedImages(
        title=title,
        where=where,
        count=len(found),
        name=lambda index: f"row {index}",
        read=read,
        labels=labels,
        class_names=class_names,
        content=lambda: content_of_column(digest_files(path, files), image, _default_column(found.features)),
    )


def _split(path: Path, notify: Notify) -> str:
    """Returns the split to read, which is `train` if there are several; "" for a folder with one data set."""
    file = path / _SPLITS_FILE
    if not file.is_file():
        return ""
    try:
        splits = json.loads(file.read_bytes())["splits"]
        known = [name for name in splits if isinstance(name, str) and is_saved_dataset(path / name)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"Cannot read {str(file)!r}: {one_line(error)}.") from error
    if "train" not in known and len(known) != 1:
        raise InvalidInputError(
            f"{str(path)!r} needs one split, or a split 'train'; it holds {listed(known) or 'none'}. Give the folder "
            f"of one."
        )
    split = known[0] if len(known) == 1 else "train"
    if len(known) > 1:
        notify(f"reading one of the {len(known)} splits in {str(path)!r}: {split!r}")
    return split


def _image_column(features: Any, where: str, wanted: str) -> str:
    images = _image_columns(features)
    if wanted and wanted not in images:
        raise InvalidInputError(
            f"{where} needs a column {wanted!r} of the feature Image; such columns are {listed(images) or 'none'}."
        )
    default = _default_column(features)
    if not wanted and not default:
        raise InvalidInputError(
            f"{where} needs a column of the feature Image; such columns are {listed(images) or 'none'}. "
            f"{'Give one with --image-column.' if images else 'Its columns are ' + listed(features) + '.'}"
        )
    return wanted or default


def _default_column(features: Any) -> str:
    """Returns the image column that is read by default, or "" if the user has to name one."""
    images = _image_columns(features)
    usual = [name for name in IMAGE_COLUMNS if name in images]
    return usual[0] if usual else images[0] if len(images) == 1 else ""


def _image_columns(features: Any) -> list[str]:
    import datasets

    return [name for name, feature in features.items() if isinstance(feature, datasets.Image)]


def _label_column(features: Any, where: str, wanted: str) -> str:
    """Returns the name of the label column, or "" if there is none."""
    import datasets

    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    single = (datasets.ClassLabel, datasets.Value)  # one value per row, not an array
    whole = [name for name, feature in features.items() if isinstance(feature, single) and "int" in feature.dtype]
    if wanted and wanted not in whole:
        raise InvalidInputError(
            f"{where} needs a column {wanted!r} of the feature ClassLabel, or of integers; such columns are "
            f"{listed(whole) or 'none'}."
        )
    usual = [name for name in LABEL_COLUMNS if name in whole]
    if not wanted and not usual and len(classes) > 1:
        raise InvalidInputError(
            f"{where} has several columns of classes, {listed(classes)}: give one with --label-column."
        )
    return wanted or next(iter([*usual, *classes]), "")
