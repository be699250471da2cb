"""Files in PyTorch's two formats, put together by hand from the instructions of a pickle."""

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C


def instructions(value: Any) -> bytes:
    """Returns the instructions that put plain data on the stack of an unpickler."""
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


def looked_up(name: str) -> bytes:
    """Returns the instruction that looks up `module.object`."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def called(name: str, *arguments: bytes) -> bytes:
    """Returns the instructions that call `module.object`."""
    return looked_up(name) + b"(" + b"".join(arguments) + b"tR"


def storage(kind: str, key: str, length: int, *, view: Any = ()) -> bytes:
    """Returns the instructions for a storage, such as kind `torch.FloatStorage`."""
    start = b"(" + instructions("storage") + looked_up(kind) + instructions(key) + instructions("cpu")
    return start + instructions(length) + b"".join(instructions(part) for part in view) + b"tQ"


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: Any = 0,
    kind: str = "torch.FloatStorage",
    key: str = "0",
    length: int = 4,
    view: Any = (),
) -> bytes:
    """Returns the instructions for a tensor."""
    parts = [storage(kind, key, length, view=view), *map(instructions, (offset, shape, strides, False))]
    return called("torch._utils._rebuild_tensor_v2", *parts, called("collections.OrderedDict"))


def dictionary(values: Mapping[str, bytes]) -> bytes:
    """Returns the instructions for a dictionary of names to what other instructions make."""
    return b"}(" + b"".join(instructions(name) + value for name, value in values.items()) + b"u"


def as_zip(
    body: bytes, storages: Mapping[str, bytes] = {}, compression: int = zipfile.ZIP_STORED, **others: bytes
) -> bytes:
    """Returns a file of the newer format: an archive with the pickle and the storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in others.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def as_sequence(body: bytes, storages: Mapping[str, bytes] = {}, size: int = 4) -> bytes:
    """Returns a file of the older format: pickles, and after them the storages, of entries of `size` bytes."""
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, info))
    tail = b"".join(struct.pack("<q", len(data) // size) + data for data in storages.values())
    return heads + b"\x80\x02" + body + b"." + pickle.dumps(list(storages), 2) + tail


FORMATS = {"zip": as_zip, "sequence": as_sequence}
