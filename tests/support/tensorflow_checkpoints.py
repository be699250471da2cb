"""Writes checkpoints as TensorFlow 1's Saver does, one block of the index for each few variables."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sagan_jax.interop.crc32c import masked_crc32c

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}
MAGIC = bytes.fromhex("57fb808b247547db")


def varint(number: int) -> bytes:
    """Returns a number as a varint of protobuf."""
    octets = []
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def field(number: int, value: int | bytes) -> bytes:
    """Returns a field of a protobuf message: a number, or a part with its length."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def entry(array: np.ndarray, offset: int, shard: int = 0) -> bytes:
    """Returns the entry of a variable in an index."""
    data = array.tobytes()
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    message = field(1, DTYPES[array.dtype.name]) + field(2, shape) + field(3, shard) + field(4, offset)
    return message + field(5, len(data)) + varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(data))


def header(shards: int = 1, *more: bytes) -> bytes:
    """Returns the header of an index."""
    return field(1, shards) + b"".join(more)


def block(entries: Mapping[bytes, bytes], kind: int = 0) -> bytes:
    """Returns a block with its kind of compression and its checksum. A key shares its beginning with the last one."""
    content, last = b"", b""
    for key, value in entries.items():
        shared = 0
        while key[shared : shared + 1] == last[shared : shared + 1] != b"":
            shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    content += struct.pack("<II", 0, 1) + bytes([kind])
    return content + struct.pack("<I", masked_crc32c(content))


def table(entries: Mapping[bytes, bytes], per_block: int = 4, **options: int) -> bytes:
    """Returns a sorted string table. The entries are written in the order in which they come."""
    content, places, items = b"", {}, list(entries.items())
    for start in range(0, len(items), per_block):
        part = dict(items[start : start + per_block])
        made = block(part, **options)
        places[list(part)[-1]] = varint(len(content)) + varint(len(made) - 5)
        content += made
    ends = b""
    for made in (block({}), block(places)):
        ends += varint(len(content)) + varint(len(made) - 5)
        content += made
    return content + ends.ljust(40, b"\x00") + MAGIC


def write_checkpoint(prefix: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes a checkpoint with one file of entries, and returns `prefix`."""
    data, entries = b"", {b"": header()}
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        entries[name.encode()] = entry(array, len(data))
        data += array.tobytes()
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix
