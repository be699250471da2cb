"""Weight files as named arrays, read safely: nothing in a file is run, and what is damaged or odd is one line."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from sagan_jax.errors import InvalidInputError, one_line

_DIGEST = "arrays_sha256"  # in the metadata of what we write: the format itself has no checksum
_SPARE_BYTES = 2**30  # that an .npz may unpack to, beyond four times its size


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        name: of the file, without folders.
        sha256: of its bytes, in hexadecimal.
        arrays: names to arrays; floats are finite and float32 or wider.
        metadata: the notes in a .safetensors file.
    """

    name: str
    sha256: str
    arrays: dict[str, np.ndarray] = dataclasses.field(repr=False)
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)


def read_arrays(path: str | Path) -> WeightFile:
    """Returns the arrays of an .npz or .safetensors file; half precision is widened to float32.

    Args:
        path: the suffix says the format.

    Raises:
        InvalidInputError: the file is absent, of another format, damaged or empty; it holds Python objects, arrays
            without entries, or numbers that are not finite.
    """
    path = Path(path)
    where = repr(str(path))
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix.lower() in (".pth", ".pt"):
        raise InvalidInputError(
            f"Weights need to be a .npz or .safetensors file; got {where}, which PyTorch wrote: "
            f"convert it once, with sagan-jax convert."
        )
    if path.suffix.lower() not in readers:
        raise InvalidInputError(
            f"Weights need to be a .npz or .safetensors file; got {where}: the suffix says the format."
        )
    content = file_content(path)
    try:
        arrays, metadata = readers[path.suffix.lower()](content)
        arrays = plain_arrays(arrays)
        if metadata.get(_DIGEST, digest := _digest(arrays)) != digest:
            raise ValueError("its arrays are not those that were written")
    except Exception as error:  # numpy, zipfile, zlib and safetensors each have their own for every damage
        raise InvalidInputError(
            f"Weights need to be a whole {path.suffix} file of plain, finite arrays; {where} is not: {one_line(error)}."
        ) from error
    return WeightFile(path.name, hashlib.sha256(content).hexdigest(), arrays, metadata)


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a .safetensors file, whose arrays `read_arrays` verifies by a digest.

    Args:
        arrays: of numbers; half precision is widened to float32.
        metadata: notes that go with them.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in plain_arrays(arrays).items()}
    return safetensors.numpy.save(arrays, {**metadata, _DIGEST: _digest(arrays)})


def file_content(path: Path) -> bytes:
    """Returns the bytes of a file.

    Raises:
        InvalidInputError: there is no such file, or it cannot be read.
    """
    try:
        if not path.is_file():  # a pipe or a device may never end
            raise FileNotFoundError("there is no such file")
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"Cannot read the weights {str(path)!r}: {error.strerror or error}.") from error


def plain_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays in the byte order of this machine, half precision widened to float32.

    Raises:
        ValueError: there are none; or one is not of numbers, has no entries, or is not finite.
    """
    if not arrays:
        raise ValueError("it holds no arrays")
    plain = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name!r} is {array.dtype}, not of numbers")
        if not array.size:
            raise ValueError(f"{name!r} has no entries: {list(array.shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name!r} has entries that are not finite")
        half = array.dtype == np.float16
        plain[name] = array.astype(np.float32 if half else array.dtype.newbyteorder("="), copy=False)
    return plain


def _read_npz(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > 4 * len(content) + _SPARE_BYTES:
            raise ValueError("it would unpack to far more than its size")
        for member in archive.infolist():
            # A header that promises more than follows costs no memory: what numpy sets aside is not touched.
            array = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays, {}


def _read_safetensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    arrays = {}
    for name, entry in safetensors.deserialize(content):
        if entry["dtype"] == "BF16":  # the upper half of a float32, which numpy has no name for
            halves = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
            array = (halves << 16).view(np.float32)
        else:
            array = np.frombuffer(entry["data"], _NUMBERS[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # deserialize has validated it
    return arrays, header.get("__metadata__", {})


_NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"}
_NUMBERS |= {f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 of names, types, shapes and entries, in the order of the names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name!r} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
