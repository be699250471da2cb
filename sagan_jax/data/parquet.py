"""Images in parquet files, as ImageNet-1k and CIFAR are published: rows of image bytes and labels."""

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sagan_jax.data import decoding
from sagan_jax.data.encoded import EncodedImages, Say, digest_files
from sagan_jax.data.layouts import classes_of, is_hidden
from sagan_jax.errors import InvalidInputError, one_line

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "fine_label")
_SPLITS = {"train", "test", "validation", "valid", "val"}
_KEPT_BYTES = 2**28  # of row groups that were read last


def find_shards(path: Path) -> list[Path]:
    """Returns the .parquet files in a folder, or in the one folder in it, in the order of their names' bytes.

    Raises:
        InvalidInputError: the folder cannot be listed, or one of them is a pipe or a broken link.
    """

    def visible(folder: Path) -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]

    def shards(entries: Iterable[os.DirEntry[str]]) -> list[Path]:
        found = [entry for entry in entries if entry.name.endswith(".parquet")]
        for entry in found:
            if not entry.is_file():
                raise InvalidInputError(f"{str(path)!r} needs regular files; {entry.name!r} is none.")
        return [Path(entry.path) for entry in sorted(found, key=lambda entry: os.fsencode(entry.name))]

    try:
        entries = visible(path)
        folders = [Path(entry.path) for entry in entries if entry.is_dir()]
        return shards(entries) or (shards(visible(folders[0])) if len(folders) == 1 else [])
    except OSError as error:
        raise InvalidInputError(f"Cannot list {str(path)!r}: {one_line(error)}.") from error


def open_parquet(path: Path, shards: list[Path], say: Say) -> EncodedImages:
    """Returns the images of .parquet files, one after the other.

    The column `image` (or `img`) holds the bytes of image files, plain or as `{bytes, path}`; `label` (or
    `fine_label`) integers. The names of the classes come from the schema's Hugging Face metadata; without it each of
    0, 1, .., max must occur. Of several splits (`train-00000-of-00002.parquet`, `test-..`) `train` is taken.

    One row group is read at a time, and the last few are kept, so order matters for speed alone.

    Args:
        path: what the user gave, for messages.
        shards: the files, at least one.
        say: takes a line on what was left out or is missing.

    Raises:
        InvalidInputError: pyarrow is not installed; a file is damaged, has other columns than the first, or a label is
            out of range.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidInputError(
            "Parquet files need the package pyarrow, which is not installed: pip install 'sagan-jax[parquet]'."
        ) from error
    where = repr(str(path))
    shards = _one_split(shards, where, say)
    metadata = []
    columns: list[_Columns] = []
    labels: list[np.ndarray] = []
    for shard in shards:
        try:
            with pq.ParquetFile(shard) as file:
                metadata.append(file.metadata)
                columns.append(_columns(file.schema_arrow, repr(str(shard))))
                if columns[-1] != columns[0]:
                    raise InvalidInputError(
                        f"{where} needs one kind of rows; {shard.name!r} has {columns[-1]} and {shards[0].name!r} "
                        f"{columns[0]}."
                    )
                if columns[0].label:
                    labels.append(_integers(file.read([columns[0].label]).column(0), repr(str(shard))))
        except InvalidInputError:
            raise
        except Exception as error:  # pyarrow's own, OSError, and whatever hostile bytes provoke
            raise InvalidInputError(f"Cannot read {str(shard)!r} as parquet: {one_line(error)}.") from error
    rows = _Rows(pq, shards, metadata, columns[0])
    if not rows.count:
        raise InvalidInputError(f"{where} holds no images: its parquet files have no rows.")
    all_labels = np.concatenate(labels) if labels else None
    class_names: list[str] = []
    if all_labels is not None:
        class_names = _check_classes(all_labels, columns[0].class_names, rows.count, where, say)
    return EncodedImages(
        title=path.name if path.is_file() else f"{path.resolve().name}/{_split(shards[0])}*.parquet",
        where=where,
        count=rows.count,
        name=rows.name,
        read=rows.read,
        labels=all_labels,
        class_names=class_names,
        content=lambda: digest_files(shards[0].parent, [shard.name for shard in shards]),
    )


class _Columns(NamedTuple):
    """Which columns a file has: the image's as pyarrow is asked for it, the label's or "", and the class names."""

    image: str
    label: str
    class_names: tuple[str, ...]


def _columns(schema: Any, where: str) -> _Columns:
    import pyarrow as pa

    image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    if image is None:
        raise InvalidInputError(f"{where} needs a column `image` or `img`; it has {schema.names}.")
    kind = schema.field(image).type
    inner = kind
    if pa.types.is_struct(kind):
        inner = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if not pa.types.is_binary(inner) and not pa.types.is_large_binary(inner):
        raise InvalidInputError(f"{where} needs image files in its column {image!r}, as bytes; it holds {kind}.")
    label = next((name for name in _LABEL_COLUMNS if name in schema.names), "")
    if label and not pa.types.is_integer(schema.field(label).type):
        raise InvalidInputError(
            f"{where} needs integer labels in its column {label!r}; it holds {schema.field(label).type}."
        )
    names = _class_names((schema.metadata or {}).get(b"huggingface", b""), label)
    return _Columns(f"{image}.bytes" if inner is not kind else image, label, names)


def _class_names(metadata: bytes, label: str) -> tuple[str, ...]:
    """Returns the names of a Hugging Face ClassLabel; () where the metadata holds none that can be used."""
    try:
        names = json.loads(metadata)["info"]["features"][label]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _integers(column: Any, where: str) -> np.ndarray:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise InvalidInputError(f"{where} needs a label in each row; row {row} has none.")
    return column.to_numpy().astype(np.int64)


def _check_classes(labels: np.ndarray, names: tuple[str, ...], count: int, where: str, say: Say) -> list[str]:
    if not names:
        return classes_of(labels, count, where)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise InvalidInputError(
            f"{where} needs labels from 0 to {len(names) - 1}, for the {len(names)} classes it names; got "
            f"{labels[wrong[0]]} in row {wrong[0]}: is it a split without labels?"
        )
    absent = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(absent):
        say(f"warning: {len(absent)} of {len(names)} classes of {where} have no image, such as {names[absent[0]]!r}")
    return list(names)


def _split(shard: Path) -> str:
    """Returns `train` of `train-00000-of-00002.parquet`, "" where a name does not begin with that of a split."""
    word = re.split(r"[-.]", shard.name)[0]
    return word if word in _SPLITS else ""


def _one_split(shards: list[Path], where: str, say: Say) -> list[Path]:
    """Returns the shards to read: those of `train` where there are several splits."""
    splits = {_split(shard) for shard in shards}
    if len(splits) > 1:
        if "train" not in splits:
            raise InvalidInputError(
                f"{where} needs one split; it holds {sorted(splits)}: give one file, or a folder with one split."
            )
        taken = [shard for shard in shards if _split(shard) == "train"]
        say(f"{len(taken)} of the {len(shards)} parquet files in {where} are taken, those of the split 'train'")
        shards = taken
    promised = re.search(r"-of-(\d+)", shards[-1].name)
    if len(shards) > 1 and promised and int(promised[1]) != len(shards):
        say(f"warning: {where} holds {len(shards)} of {int(promised[1])} parquet files, by their names: are some lost?")
    return shards


class _Rows:
    """The image bytes of every row of every file, by one index; a row group is read when one of its rows is."""

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
        self._kept: OrderedDict[int, Any] = OrderedDict()
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
        if len(data) > decoding.LARGEST_FILE:
            raise ValueError(f"it has more than {decoding.LARGEST_FILE:,} bytes")
        return data

    def _group(self, number: int) -> Any:
        with self._lock:  # one that several threads wait for is read once
            if number not in self._kept:
                file, group = self._groups[number]
                with self._pq.ParquetFile(self._shards[file], metadata=self._metadata[file]) as opened:
                    column = opened.read_row_group(group, columns=[self._column]).column(0)
                self._kept[number] = column
                while len(self._kept) > 1 and sum(held.nbytes for held in self._kept.values()) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]
