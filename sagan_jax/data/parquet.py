"""Images in parquet files, the format in which Hugging Face publishes ImageNet-1k and CIFAR."""

import json
import os
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
from sagan_jax.data.layouts import is_hidden, is_split
from sagan_jax.errors import InvalidInputError, one_line

_FOLDER_LEVELS = 2  # of the Hugging Face hub: a configuration, and a split in it
_MAX_FOLDERS = 64  # per folder, since there may be thousands of class folders of images
_CACHED_BYTES = 2**28  # size of the cache of recently read row groups


def find_shards(path: Path) -> list[Path]:
    """Returns the .parquet files of a folder, sorted by the bytes of their names.

    They are in the folder itself or in one of the layouts of the Hugging Face hub. These are a folder such as `data`,
    and folders of splits such as `train` or `partial-train`. The folders of splits may be in the folder of a
    configuration, as in `default/train`.

    Raises:
        InvalidInputError: when a folder cannot be listed, a file is a pipe or a broken link, or several folders that
            are not splits contain files.
    """
    try:
        return _shards_below(path, repr(str(path)), _FOLDER_LEVELS)
    except OSError as error:
        raise InvalidInputError(f"Cannot list {str(path)!r}: {one_line(error)}.") from error


def _shards_below(folder: Path, where: str, levels: int) -> list[Path]:
    with os.scandir(folder) as scanned:
        entries = sorted((entry for entry in scanned if not is_hidden(entry.name)), key=lambda e: os.fsencode(e.name))
    found = [entry for entry in entries if entry.name.endswith(".parquet")]
    for entry in found:
        if not entry.is_file():
            raise InvalidInputError(f"{where} needs regular files; {entry.name!r} is a pipe or a broken link.")
    folders = [Path(entry.path) for entry in entries if entry.is_dir()]
    if found or not levels or len(folders) > _MAX_FOLDERS:
        return [Path(entry.path) for entry in found]
    below = {name: shards for name in folders if (shards := _shards_below(name, where, levels - 1))}
    if len(below) > 1 and not all(map(_split_of_folder, below)):
        raise InvalidInputError(
            f"{where} needs parquet files of one data set; its folders {listed(name.name for name in below)} each "
            f"hold some. Give the path of one of them."
        )
    return [shard for shards in below.values() for shard in shards]


def open_parquet(
    path: Path, shards: list[Path], notify: Notify, label_column: str = "", image_column: str = ""
) -> EncodedImages:
    """Returns the images of .parquet files, one file after the other.

    The column `image` (or `img`) holds the bytes of image files, either plain or as `{bytes, path}`. The labels are the
    first column of integers among `label`, `labels`, `fine_label` and `class`. The class names come from the Hugging
    Face metadata of the schema. Without metadata, each of the labels 0, 1, .., max must occur. Of several splits
    (`train-00000-of-00002.parquet`, `test-..`, or files in folders `train` and `test`), `train` is read.

    Row groups are read one at a time, and the last few are cached in memory. So sequential access is fastest.

    Args:
        path: the path that the user gave, for messages.
        shards: the files, at least one.
        notify: receives a line when files are ignored or missing, or when columns hold no labels.
        label_column: the column of the labels, or "" for the default names.
        image_column: the column of the images, or "" for the default names.

    Raises:
        InvalidInputError: when pyarrow is not installed, a file is damaged, the columns of two files differ, or a label
            is out of range.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidInputError(
            "Parquet files need the package pyarrow, which is not installed. Run: pip install 'sagan-jax[parquet]'."
        ) from error
    where = repr(str(path))
    shards = _select_split(path, shards, where, notify)
    schema = _read_schema(pq, shards, where, label_column, image_column)
    columns, labels, names = schema.columns, schema.labels, schema.names
    rows = _Rows(pq, shards, schema.metadata, columns)
    if not rows.count:
        raise InvalidInputError(f"{where} needs images; its parquet files have no rows.")
    default = next((name for name in IMAGE_COLUMNS if name in names), "")
    all_labels = np.concatenate(labels) if labels else None
    if all_labels is None and len(names) > 1:
        notify(
            f"{where} is read without labels: of its columns {listed(names)}, none holds integers and is named "
            f"{', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}"
        )
    class_names: list[str] = []
    if all_labels is not None:
        class_names = check_classes(all_labels, columns.class_names, rows.count, where, notify)
    return EncodedImages(
        title=path.name if path.is_file() else _title(path, shards[0]),
        where=where,
        count=rows.count,
        name=rows.name,
        read=rows.read,
        labels=all_labels,
        class_names=class_names,
        content=lambda: content_of_column(_digest(shards), image_column or default, default),
    )


class _Schema(NamedTuple):
    """The metadata of all files: pyarrow's metadata and the labels of each file, and the common columns."""

    metadata: list[Any]
    labels: list[np.ndarray]
    columns: "_Columns"
    names: list[str]
    """the names of all columns"""


def _read_schema(pq: Any, shards: list[Path], where: str, label_column: str, image_column: str) -> _Schema:
    """Returns the schema that all files share, and their labels.

    Raises:
        InvalidInputError: a file is damaged, or has other columns than the first.
    """
    metadata = []
    columns: list[_Columns] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    for shard in shards:
        try:
            with pq.ParquetFile(shard) as file:
                metadata.append(file.metadata)
                names = names or file.schema_arrow.names
                columns.append(_columns(file.schema_arrow, repr(str(shard)), label_column, image_column))
                if columns[-1] != columns[0]:
                    raise InvalidInputError(
                        f"{where} needs files with the same columns; {shard.name!r} has {list(columns[-1])} and "
                        f"{shards[0].name!r} has {list(columns[0])}."
                    )
                if columns[0].label:
                    labels.append(integers(file.read([columns[0].label]).column(0), repr(str(shard))))
        except InvalidInputError:
            raise
        except Exception as error:  # malformed bytes can raise any error in pyarrow
            raise InvalidInputError(f"Cannot read {str(shard)!r} as parquet: {one_line(error)}.") from error
    return _Schema(metadata, labels, columns[0], names)


class _Columns(NamedTuple):
    """The columns of a file: pyarrow's path of the image column, the label column or "", and the class names."""

    image: str
    label: str
    class_names: tuple[str, ...]


def _digest(shards: list[Path]) -> str:
    folder = shards[0].parent
    return digest_files(folder, [os.path.relpath(shard, folder) for shard in shards])


def _title(path: Path, shard: Path) -> str:
    """Returns the name of the shards of a folder, such as `cifar10/train*.parquet` or `cifar10/train/*.parquet`."""
    in_folder = shard.parent != path and _split_of_name(shard) == "" and _split_of_folder(shard.parent)
    return f"{path.resolve().name}/{f'{in_folder}/' if in_folder else _split_of_name(shard)}*.parquet"


def _columns(schema: Any, where: str, label_column: str, image_column: str) -> _Columns:
    import pyarrow as pa

    usual = (image_column,) if image_column else IMAGE_COLUMNS
    image = next((name for name in usual if name in schema.names), None)
    if image is None:
        wanted = " or ".join(f"`{name}`" for name in usual)
        raise InvalidInputError(f"{where} needs a column {wanted}; its columns are {listed(schema.names)}.")
    kind = _type(schema, image, where)
    inner = kind
    if pa.types.is_struct(kind):
        inner = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if not pa.types.is_binary(inner) and not pa.types.is_large_binary(inner):
        raise InvalidInputError(f"{where} needs the bytes of image files in its column {image!r}; it holds {kind}.")
    label = _label_column(schema, where, label_column)
    names = _class_names((schema.metadata or {}).get(b"huggingface", b""), label)
    return _Columns(f"{image}.bytes" if inner is not kind else image, label, names)


def _type(schema: Any, name: str, where: str) -> Any:
    """Returns pyarrow's type of a column. Raises InvalidInputError if several columns have this name."""
    if (count := schema.names.count(name)) > 1:  # pyarrow would say that there is none
        raise InvalidInputError(f"{where} needs one column {name!r}; it has {count}.")
    return schema.field(name).type


def _label_column(schema: Any, where: str, wanted: str) -> str:
    """Returns the name of the label column: the one that the user gave or a default name; "" if there is none."""
    import pyarrow as pa

    if wanted and wanted not in schema.names:
        raise InvalidInputError(f"{where} has no column {wanted!r}; its columns are {listed(schema.names)}.")
    found = [name for name in ((wanted,) if wanted else LABEL_COLUMNS) if name in schema.names]
    label = next((name for name in found if pa.types.is_integer(_type(schema, name, where))), "")
    refused = wanted or next((name for name in ("label", "fine_label") if name in found), "")
    if refused and not label:  # `labels` and `class` may be something else, such as a list or a string
        integers = [field.name for field in schema if pa.types.is_integer(field.type)]
        hint = f" Integers are in {listed(integers)}: give one as the label column." if integers else ""
        raise InvalidInputError(
            f"{where} needs integer labels in its column {refused!r}; it holds {schema.field(refused).type}. Its "
            f"columns are {listed(schema.names)}.{hint}"
        )
    return label


def _class_names(metadata: bytes, label: str) -> tuple[str, ...]:
    """Returns the class names of a Hugging Face ClassLabel, or () if the metadata have no valid names."""
    try:
        names = json.loads(metadata)["info"]["features"][label]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _split_of_name(shard: Path) -> str:
    """Returns the split in a file name: `train` for `train-00000-of-00002.parquet`, "" for a name without a split."""
    word = re.split(r"[-.]", shard.name)[0]
    return word if is_split(word) else ""


def _split_of_folder(folder: Path) -> str:
    """Returns the split that a folder is named after, such as `train` or `partial-train`, or ""."""
    return folder.name if is_split(folder.name.removeprefix("partial-")) else ""


def _select_split(path: Path, shards: list[Path], where: str, notify: Notify) -> list[Path]:
    """Returns the shards to read: those of `train` if there are several splits."""
    split_of = {
        shard: _split_of_name(shard) or ("" if shard.parent == path else _split_of_folder(shard.parent))
        for shard in shards
    }
    splits = set(split_of.values())
    if len(splits) > 1:
        train = next((split for split in ("train", "partial-train") if split in splits), None)
        if train is None:
            raise InvalidInputError(
                f"{where} needs one split, or a split `train`; it holds {sorted(splits)}. Give one file, or a folder "
                f"with one split."
            )
        taken = [shard for shard in shards if split_of[shard] == train]
        notify(f"reading {len(taken)} of the {len(shards)} parquet files in {where}: those of the split {train!r}")
        shards = taken
    total = re.search(r"-of-(\d+)", shards[-1].name)
    if len(shards) > 1 and total and int(total[1]) != len(shards):
        notify(
            f"warning: {where} holds {len(shards)} of {int(total[1])} parquet files, according to their names. Are "
            f"some missing?"
        )
    return shards


class _Rows:
    """Random access to the image bytes of all rows of all files. Reading a row reads its whole row group."""

    def __init__(self, pq: Any, shards: list[Path], metadata: list[Any], columns: _Columns):
        self._pq = pq
        self._shards = shards
        self._metadata = metadata
        self._column = columns.image
        self._groups = [(file, group) for file, held in enumerate(metadata) for group in range(held.num_row_groups)]
        rows = [metadata[file].row_group(group).num_rows for file, group in self._groups]
        self._starts = np.cumsum([0, *rows])
        self._first_of_file = np.cumsum([0, *(held.num_rows for held in metadata)])
        self.count = int(self._starts[-1])
        self._cached: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def name(self, index: int) -> str:
        file = int(np.searchsorted(self._first_of_file, index, side="right")) - 1
        return f"{self._shards[file].name} row {index - int(self._first_of_file[file])}"

    def read(self, index: int) -> bytes:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        value = self._group(number)[index - int(self._starts[number])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise ValueError("its row holds no bytes")
        if len(data) > decoding.MAX_FILE_BYTES:
            raise ValueError(f"it has more than {decoding.MAX_FILE_BYTES:,} bytes")
        return data

    def _group(self, number: int) -> Any:
        with self._lock:  # so that threads that need the same row group read it only once
            if number not in self._cached:
                file, group = self._groups[number]
                with self._pq.ParquetFile(self._shards[file], metadata=self._metadata[file]) as opened:
                    column = opened.read_row_group(group, columns=[self._column]).column(0)
                self._cached[number] = column
                while len(self._cached) > 1 and sum(held.nbytes for held in self._cached.values()) > _CACHED_BYTES:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(number)
            return self._cached[number]
