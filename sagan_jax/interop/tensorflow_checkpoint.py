"""Reading of TensorFlow 1 checkpoints, as variables by name, without TensorFlow.

`model.ckpt-7.index` lists the variables. Files such as `model.ckpt-7.data-00000-of-00001` hold their entries.

Source: tensorflow/tensorflow:tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/tensor_bundle.
"""

import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.interop.crc32c import masked_crc32c
from sagan_jax.interop.sorted_table import is_table, read_table, read_varint
from sagan_jax.interop.weight_files import WeightFile, validated_arrays
from sagan_jax.runtime.files import MAX_DOCUMENT_BYTES, open_regular, read_regular

# By number of TensorFlow's DataType. bfloat16 is the upper half of a float32; numpy has no such dtype.
_DTYPES = {
    1: "f4",
    2: "f8",
    3: "i4",
    4: "u1",
    5: "i2",
    6: "i1",
    9: "i8",
    10: "u1",
    17: "u2",
    19: "f2",
    22: "u4",
    23: "u8",
}
_BOOL, _BFLOAT16 = 10, 14
_DTYPES |= {_BFLOAT16: "u2"}
_NOT_NUMBERS = {7, 20, 21}  # strings, resources and variants, such as TensorFlow 2's object graph
_MAX_SHARDS = 99_999
_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_NAMED_AS_ONE = re.compile(r"\.ckpt(-\d+)?$")


@dataclasses.dataclass(frozen=True)
class _Variable:
    """The location of the entries of a variable: a message BundleEntryProto."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0


def checkpoint_prefix(path: str | Path) -> Path | None:
    """Returns the common prefix of the files of a checkpoint, or None if the path is not that of a checkpoint.

    Args:
        path: the prefix, which need not be a file itself, or one of the files.

    Examples:
        >>> checkpoint_prefix("runs/model.ckpt-7.index").name
        'model.ckpt-7'
        >>> checkpoint_prefix("weights.npz")
    """
    path = Path(path)
    if part := _PART.search(path.name):
        return path.with_name(path.name[: part.start()])
    if _NAMED_AS_ONE.search(path.name) or (not path.exists() and path.with_name(f"{path.name}.index").exists()):
        return path
    return None


def read_checkpoint(path: str | Path, ignored: str | None = None) -> WeightFile:
    """Returns the variables of a checkpoint. Half precision is widened to float32; strings are ignored.

    Args:
        path: as for `checkpoint_prefix`.
        ignored: a regular expression. Variables with a match anywhere in their names are not read.

    Returns:
        The arrays by name. `name` and `sha256` are those of the `.index` file, which has a checksum of every variable.

    Raises:
        InvalidInputError: when a file is missing or damaged, or a variable is not finite or not numeric.
    """
    prefix = checkpoint_prefix(path) or Path(path)
    index = prefix.with_name(f"{prefix.name}.index")
    content = _read_index(prefix, index)
    try:
        table = read_table(content)
        shards = _num_shards(table.pop(b"", None))
        variables = {key.decode(): _variable(key.decode(), value) for key, value in table.items()}
    except ValueError as error:
        raise InvalidInputError(
            f"{str(index)!r} needs to be the index of a TensorFlow checkpoint; {one_line(error)}."
        ) from error
    wanted = {
        name: variable
        for name, variable in variables.items()
        if variable.dtype not in _NOT_NUMBERS and not (ignored and re.search(ignored, name))
    }
    try:
        arrays = validated_arrays(dict(_arrays(prefix, shards, wanted)))
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"The checkpoint {str(prefix)!r} needs complete, finite variables; {one_line(error)}."
        ) from error
    return WeightFile(index.name, hashlib.sha256(content).hexdigest(), arrays)


def _read_index(prefix: Path, index: Path) -> bytes:
    try:
        return read_regular(index, MAX_DOCUMENT_BYTES)
    except FileNotFoundError as error:
        if prefix.is_file() and is_table(_last_bytes(prefix)):
            raise InvalidInputError(
                f"{str(prefix)!r} is a checkpoint of TensorFlow before 0.12, in one file, which is not read. Save it "
                f"again with a later Saver."
            ) from error
        raise InvalidInputError(
            f"The checkpoint {str(prefix)!r} needs its file {index.name!r}, which does not exist. A checkpoint "
            f"is {prefix.name}.index and {prefix.name}.data-00000-of-00001 together."
        ) from error
    except OSError as error:
        raise InvalidInputError(f"Cannot read {str(index)!r}: {error.strerror or error}.") from error


def _last_bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 48))
        return file.read(48)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the field numbers and values of a protobuf message."""
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        kind, size = tag & 7, 0
        if kind == 0:
            value, position = read_varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = read_varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("it is damaged: a field of an unknown type")
        if position + size > len(message):
            raise ValueError("it is damaged: a field is longer than its entry")
        value = message[position : position + size]
        yield tag >> 3, value if kind == 2 else int.from_bytes(value, "little")
        position += size


def _num_shards(header: bytes | None) -> int:
    """Returns the number of data files, from a message BundleHeaderProto."""
    if header is None:
        raise ValueError("its header is missing")
    fields = dict(_fields(header))
    if fields.get(2):
        raise ValueError("it is big-endian, which is not read")
    shards = fields.get(1, 0)
    if not isinstance(shards, int) or not 0 < shards <= _MAX_SHARDS:
        raise ValueError("its number of data files is damaged")
    return shards


def _variable(name: str, message: bytes) -> _Variable:
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    for field, value in _fields(message):
        if field == 2 and isinstance(value, bytes):
            shape = _shape(name, value)
        elif field == 7:
            raise ValueError(f"{name!r} is stored in slices, which is not read; save it without a partitioner")
        elif isinstance(value, int):
            numbers[field] = value
    return _Variable(numbers.get(1, 0), shape, *(numbers.get(field, 0) for field in (3, 4, 5, 6)))


def _shape(name: str, message: bytes) -> tuple[int, ...]:
    sizes = []
    for field, value in _fields(message):
        if field == 2 and isinstance(value, bytes):
            size = dict(_fields(value)).get(1, 0)
            if not isinstance(size, int) or size >= 2**63:
                raise ValueError(f"{name!r} has an axis of unknown size")
            sizes.append(size)
        elif field == 3 and value:
            raise ValueError(f"{name!r} has no shape")
    return tuple(sizes)


def _arrays(prefix: Path, shards: int, variables: dict[str, _Variable]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the names and entries of variables, shard by shard."""
    unknown = [name for name, variable in variables.items() if variable.shard >= shards]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is listed in a data file that the checkpoint does not have")
    for shard in sorted({variable.shard for variable in variables.values()}):
        path = prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}")
        parts = {name: variable for name, variable in variables.items() if variable.shard == shard}
        try:
            with open_regular(path) as file:
                length = os.fstat(file.fileno()).st_size
                left = length
                for name, variable in sorted(parts.items(), key=lambda part: part[1].offset):
                    _check(name, variable, path, length)
                    left -= variable.size
                    if left < 0:
                        raise ValueError(f"{name!r} overlaps with another variable")
                    file.seek(variable.offset)
                    yield name, _array(name, variable, file.read(variable.size), path)
        except FileNotFoundError as error:
            raise InvalidInputError(
                f"The checkpoint {str(prefix)!r} needs its file {path.name!r}, which does not exist; it holds "
                f"{min(parts)!r}."
            ) from error
        except OSError as error:
            raise InvalidInputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error


def _check(name: str, variable: _Variable, path: Path, length: int) -> None:
    """Raises ValueError unless the file contains the entries of the variable."""
    if variable.dtype not in _DTYPES:
        raise ValueError(f"{name!r} has TensorFlow's dtype {variable.dtype}, which is not a real number")
    wanted = math.prod(variable.shape) * int(_DTYPES[variable.dtype][1:])
    if wanted != variable.size:
        raise ValueError(
            f"{name!r} has the shape {list(variable.shape)} and needs {wanted:,} bytes; "
            f"the index says {variable.size:,}"
        )
    if variable.offset + variable.size > length:
        raise ValueError(
            f"{name!r} needs the bytes up to {variable.offset + variable.size:,} of {path.name}, which has {length:,}: "
            f"the file is incomplete"
        )


def _array(name: str, variable: _Variable, content: bytes, path: Path) -> np.ndarray:
    if masked_crc32c(content) != variable.checksum:
        raise ValueError(f"{name!r} has another checksum than the index says: {path.name} is damaged")
    entries = np.frombuffer(content, f"<{_DTYPES[variable.dtype]}").reshape(variable.shape)
    if variable.dtype == _BFLOAT16:
        return (entries.astype(np.uint32) << 16).view(np.float32)
    return entries.astype(bool) if variable.dtype == _BOOL else entries
