"""The two file formats of PyTorch: a zip archive, and before version 1.6 a sequence of pickles and raw storages.

Source: pytorch/pytorch:torch/serialization.py and torch/_utils.py.
"""

import dataclasses
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from sagan_jax.errors import one_line
from sagan_jax.interop.restricted_pickle import Constructor, Name, RefusedPickleError, read_pickle

_DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",  # the upper half of a float32; numpy has no such dtype
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "u1",  # any byte but 0 is True
}
_BYTES = "bytes"
_SIZES = {name: int(code[1:]) for name, code in _DTYPES.items()} | {_BYTES: 1}
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": _BYTES,
    "torch.UntypedStorage": _BYTES,
}
_NAMES = frozenset(_STORAGES) | {f"torch.{name}" for name in _DTYPES}
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_AXES = 64  # numpy's limit
_MAX_INTEGER = 2**63


@dataclasses.dataclass(frozen=True)
class Storage:
    """Entries of one type in a file, which tensors are views of.

    Attributes:
        key: its name in the file.
        dtype: the type of its entries, or `bytes`.
        length: the number of entries under that key.
        start: the first entry that belongs to it. In old files, a storage may be a part of another one.
        stop: the index after its last entry.
    """

    key: str
    dtype: str
    length: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor whose entries are still in the file.

    Attributes:
        storage: the storage of its entries.
        dtype: the type of the entries, with torch's name.
        offset: the index of its first entry in the storage.
        shape: the length of each axis.
        strides: the stride of each axis, in entries.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """The size of the array in bytes; half precision becomes float32."""
        return math.prod(self.shape) * (4 if self.dtype in ("float16", "bfloat16") else _SIZES[self.dtype])


@dataclasses.dataclass(frozen=True)
class PytorchFile:
    """The content of a file.

    Attributes:
        loaded: the saved object, as plain data with a `Tensor` for each tensor.
        storage_bytes: returns the bytes of a storage by key. Raises ValueError when they are absent or damaged.
        order: the byte order of the storages, in numpy's notation.
        whole: False when the file ends before its last storage.
    """

    loaded: Any
    storage_bytes: Callable[[str], memoryview]
    order: str = "<"
    whole: bool = True

    def array(self, tensor: Tensor) -> np.ndarray:
        """Returns a copy of the entries of a tensor. bfloat16 becomes float32.

        Raises:
            ValueError: when its storage is absent, damaged, or too small for its shape.
        """
        storage, size = tensor.storage, _SIZES[tensor.dtype]
        content = self.storage_bytes(storage.key)
        wanted = storage.length * _SIZES[storage.dtype]
        if len(content) != wanted:
            raise ValueError(f"needs {wanted:,} bytes in storage {storage.key[:40]!r}; the file has {len(content):,}")
        first, stop = storage.start * _SIZES[storage.dtype], storage.stop * _SIZES[storage.dtype]
        entries = np.frombuffer(content[first : stop - (stop - first) % size], self.order + _DTYPES[tensor.dtype])
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, np.float32)
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        if last >= len(entries):
            raise ValueError(
                f"has the shape {list(tensor.shape)} and needs entry {last:,} of storage {storage.key[:40]!r}, "
                f"which has {len(entries):,}"
            )
        strides = tuple(size * stride if n > 1 else 0 for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        seen = np.lib.stride_tricks.as_strided(entries[tensor.offset :], tensor.shape, strides, writeable=False)
        if tensor.dtype == "bfloat16":
            return (seen.astype(np.uint32) << 16).view(np.float32)
        return seen.astype(bool if tensor.dtype == "bool" else seen.dtype.newbyteorder("="))


def open_pytorch(content: bytes) -> PytorchFile:
    """Returns the content of a PyTorch file. No object in it is called or looked up.

    Args:
        content: the bytes of the file, in either format.

    Raises:
        RefusedPickleError: when it contains an object other than tensors and plain data.
        ValueError: when it is damaged or another kind of file.
    """
    if not content:
        raise ValueError("it is empty")
    for start, kind in _FOREIGN.items():
        if content[:200].lstrip().startswith(start):
            raise ValueError(f"it is {kind}")
    if content.startswith(b"PK"):
        return _open_zip(content)
    if content[257:262] == b"ustar":
        raise ValueError("it is a tar archive, as PyTorch wrote before version 0.2")
    return _open_sequence(content)


_FOREIGN = {
    b"version https://git-lfs": "a pointer of Git LFS, without the weights; run git lfs pull",
    b"<": "a web page, or another text",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a .npy file",
    b"\x1f\x8b": "a compressed file; unpack it first",
    b"GGUF": "a GGUF file",
}


def _open_zip(content: bytes) -> PytorchFile:
    archive = _Archive(content)
    roots = [name.removesuffix("data.pkl") for name in archive.entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"it is a zip archive with {len(roots)} entries data.pkl instead of one")
    root = roots[0]
    order = bytes(archive.read(f"{root}byteorder")) if f"{root}byteorder" in archive.entries else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"its entry byteorder says {order[:20]!r}")
    loaded, _ = read_pickle(
        archive.read(f"{root}data.pkl"), constructors=_CONSTRUCTORS, names=_NAMES, persistent=_storage
    )
    return PytorchFile(loaded, lambda key: archive.read(f"{root}data/{key}"), "<" if order == b"little" else ">")


class _Archive:
    """The entries of a zip archive, which PyTorch stores uncompressed."""

    def __init__(self, content: bytes) -> None:
        self.content = memoryview(content)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                listed = archive.infolist()
        except Exception as error:  # zipfile raises many kinds of error for a damaged file
            raise ValueError(f"it is damaged or incomplete: {one_line(error)}") from error
        self.entries = {entry.filename: entry for entry in listed}
        if len(self.entries) < len(listed) or sum(entry.file_size for entry in listed) > len(content):
            raise ValueError("it is damaged: entries of its archive overlap or are compressed")
        self._verified: set[str] = set()

    def read(self, name: str) -> memoryview:
        """Returns the bytes of an entry. Raises ValueError when it is absent or damaged."""
        if name not in self.entries:
            raise ValueError(f"needs the entry {name[:100]!r}, which the file does not have")
        entry = self.entries[name]
        header = self.content[entry.header_offset : entry.header_offset + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"needs the entry {name[:100]!r}, which is damaged")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        data = self.content[start : start + entry.file_size]
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"needs the entry {name[:100]!r} uncompressed; it is compressed, which PyTorch never does")
        # PyTorch can write files without checksums, which are then 0.
        if len(data) < entry.file_size or (entry.CRC and name not in self._verified and zlib.crc32(data) != entry.CRC):
            raise ValueError(f"needs the entry {name[:100]!r}, which is damaged: its CRC-32 does not match")
        self._verified.add(name)
        return data


def _open_sequence(content: bytes) -> PytorchFile:
    """Reads the format before version 1.6: four pickles, a list of keys, and the length and entries for each key."""
    magic, position = read_pickle(content)
    if magic != _MAGIC:
        raise ValueError("it is a pickle, but not one of torch.save")
    version, position = read_pickle(content, position)
    if version != _PROTOCOL:
        raise ValueError("it has an unknown version of the format")
    _, position = read_pickle(content, position)  # sizes of C types; entries are always little-endian
    found: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        made = _storage(identifier)
        same = found.setdefault(made.key, made)
        if (same.dtype, same.length) != (made.dtype, made.length):
            raise ValueError(f"its storage {made.key[:40]!r} is described in two ways")
        return made

    loaded, position = read_pickle(content, position, constructors=_CONSTRUCTORS, names=_NAMES, persistent=storage)
    keys, position = read_pickle(content, position)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in found for key in keys):
        raise ValueError("its list of storages is damaged")
    parts: dict[str, memoryview] = {}
    for key in keys:
        length = int.from_bytes(content[position : position + 8], "little")
        end = position + 8 + length * _SIZES[found[key].dtype]
        if end > len(content) or position + 8 > len(content):
            break
        parts[key] = memoryview(content)[position + 8 : end]
        position = end

    def storage_bytes(key: str) -> memoryview:
        if key not in parts:
            raise ValueError(f"needs the storage {key[:40]!r}, before which the file ends")
        return parts[key]

    return PytorchFile(loaded, storage_bytes, whole=len(parts) == len(set(keys)))


def _storage(identifier: Any) -> Storage:
    """Returns the storage of a persistent id."""
    match identifier:
        case ("storage", Name(text=kind), str(key), str() | None, int(length), *view) if kind in _STORAGES:
            dtype = _STORAGES[kind]
        case ("module", *_):
            raise RefusedPickleError("it holds a whole module with its source code")
        case _:
            raise ValueError("its pickle describes a storage in an unknown way")
    start, stop = 0, length
    match view:
        case [] | [None]:
            pass
        case [(str(), int(first), int(count))] if first >= 0 and count >= 0:
            start, stop = first, first + count
        case _:
            raise ValueError("its pickle describes a part of a storage in an unknown way")
    if not 0 <= length < _MAX_INTEGER or stop > length:
        raise ValueError(f"its pickle describes a storage of {length} entries, of which {start} to {stop} are used")
    return Storage(key, dtype, length, start, stop)


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Returns the tensor of `_rebuild_tensor_v2`."""
    match arguments:
        case (Storage(dtype=dtype) as storage, offset, shape, strides, bool(), dict() | None, *metadata) if (
            dtype != _BYTES
        ):
            return _checked(storage, dtype, offset, shape, strides, metadata)
    raise ValueError("its pickle describes a tensor in an unknown way")


def _tensor_of_bytes(arguments: tuple[Any, ...]) -> Tensor:
    """Returns the tensor of `_rebuild_tensor_v3`, whose dtype is independent of its storage."""
    match arguments:
        case (Storage() as storage, offset, shape, strides, bool(), dict() | None, Name(text=dtype), *metadata) if (
            dtype.removeprefix("torch.") in _DTYPES
        ):
            return _checked(storage, dtype.removeprefix("torch."), offset, shape, strides, metadata)
    raise ValueError("its pickle describes a tensor in an unknown way")


def _checked(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any, metadata: list[Any]) -> Tensor:
    if not all(isinstance(axes, tuple) for axes in (shape, strides)):
        raise ValueError("its pickle describes a tensor without a shape")
    numbers = (offset, *shape, *strides)
    if (
        len(shape) != len(strides)
        or len(shape) > _MAX_AXES
        or not all(isinstance(number, int) and 0 <= number < _MAX_INTEGER for number in numbers)
    ):
        raise ValueError("its pickle describes a tensor with an impossible shape")
    if metadata and metadata != [{}] and metadata != [None]:
        raise ValueError("its pickle describes a tensor that is negated or conjugated")
    return Tensor(storage, dtype, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    match arguments:
        case (Tensor() as tensor, bool(), dict() | None):
            return tensor
    raise ValueError("its pickle describes a parameter in an unknown way")


_CONSTRUCTORS: dict[str, Constructor] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": _parameter,
}
