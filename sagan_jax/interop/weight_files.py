"""Reading and writing of weight files as named arrays. Reading never runs code; damaged files give one-line errors."""

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
from sagan_jax.runtime.files import MAX_WEIGHTS_BYTES, read_regular

_DIGEST = "arrays_sha256"  # our own metadata, because the safetensors format has no checksum
_EXTRA_BYTES = 2**30  # an .npz may expand to four times its size plus this many bytes


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Attributes:
        name: the file name without folders.
        sha256: the sha256 of the file's bytes, in hexadecimal digits.
        arrays: names to arrays. Floats are finite and float32 or wider.
        metadata: the metadata of a .safetensors file.
    """

    name: str
    sha256: str
    arrays: dict[str, np.ndarray] = dataclasses.field(repr=False)
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The name and sha256 of the published file: for a file by `sagan-jax convert`, those of the converted file."""
        name, sha256 = (self.metadata.get(f"source_{what}", getattr(self, what)) for what in ("name", "sha256"))
        return f"{name} sha256:{sha256}"


def read_arrays(path: str | Path) -> WeightFile:
    """Returns the arrays of an .npz or .safetensors file. Half precision is widened to float32.

    Args:
        path: the file; its suffix determines the format.

    Raises:
        InvalidInputError: when the file is missing, has another format, is damaged, or has no arrays. Also when it
            contains Python objects, arrays that are empty or not numeric, or numbers that are not finite.
    """
    path = Path(path)
    where = repr(str(path))
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix.lower() in (".pth", ".pt"):
        if path.is_file():
            refuse_torchscript(path, read_bytes(path))
        raise InvalidInputError(
            f"Weights need to be a .npz or .safetensors file; got {where}, a PyTorch file. "
            f"Convert it with sagan-jax convert."
        )
    if path.suffix.lower() not in readers:
        raise InvalidInputError(
            f"Weights need to be a .npz or .safetensors file; got {where}. The suffix determines the format. sagan-jax "
            f"convert reads .pth and .pt too."
        )
    content = read_bytes(path)
    try:
        arrays, metadata = readers[path.suffix.lower()](content)
        arrays = validated_arrays(arrays)
        if metadata.get(_DIGEST, digest := _digest(arrays)) != digest:
            raise ValueError("its arrays differ from those that were written")
    except Exception as error:  # numpy, zipfile, zlib and safetensors raise many kinds of error
        raise InvalidInputError(
            f"Weights need to be a complete {path.suffix} file of finite arrays; {where} is not: {one_line(error)}."
        ) from error
    return WeightFile(path.name, hashlib.sha256(content).hexdigest(), arrays, metadata)


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the bytes of a .safetensors file. `read_arrays` verifies its arrays by a digest in the metadata.

    Args:
        arrays: names to arrays of numbers. Half precision is widened to float32.
        metadata: strings to store with the arrays.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in validated_arrays(arrays).items()}
    return safetensors.numpy.save(arrays, {**metadata, _DIGEST: _digest(arrays)})


def read_bytes(path: Path) -> bytes:
    """Returns the bytes of a file.

    Raises:
        InvalidInputError: when the file does not exist, is not regular, is too large or cannot be read.
    """
    try:
        return read_regular(path, MAX_WEIGHTS_BYTES)
    except FileNotFoundError as error:
        raise InvalidInputError(f"Cannot read the weights {str(path)!r}: there is no such file.") from error
    except OSError as error:
        raise InvalidInputError(f"Cannot read the weights {str(path)!r}: {error.strerror or error}.") from error


def refuse_torchscript(path: Path, content: bytes) -> None:
    """Raises InvalidInputError when the content is a TorchScript archive, such as the FID network of NVIDIA."""
    if not content.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises many kinds of error for a damaged file; reading it later reports the damage
        return
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        raise InvalidInputError(
            f"{str(path)!r} is a TorchScript archive: a program with its weights, which is not run here. For the FID "
            f"network use weights-inception-2015-12-05-6726825d.pth, which sagan-jax fetch-weights downloads; for "
            f"another network save its state dict."
        )


def validated_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays in native byte order, with half precision widened to float32.

    Raises:
        ValueError: when there are no arrays, or one is not numeric, has no entries, or is not finite.
    """
    if not arrays:
        raise ValueError("it holds no arrays")
    plain = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name!r} has the dtype {array.dtype}, which is not numeric")
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
        if sum(member.file_size for member in archive.infolist()) > 4 * len(content) + _EXTRA_BYTES:
            raise ValueError("it would expand far beyond its size")
        for member in archive.infolist():
            name, member_content = member.filename.removesuffix(".npy"), archive.read(member)
            if not member_content.startswith(np.lib.format.MAGIC_PREFIX):
                raise ValueError(f"its entry {member.filename!r} is not a numpy array")
            try:
                # A header with a huge size costs no memory, because numpy does not touch the memory that it allocates.
                arrays[name] = np.load(io.BytesIO(member_content), allow_pickle=False)
            except Exception as error:  # numpy raises many kinds of error
                raise ValueError(f"{name!r} cannot be read: {one_line(error)}") from error
    return arrays, {}


def _read_safetensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    arrays = {}
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{one_line(error)}{_where_it_was_cut(content)}") from error
    for name, entry in entries:
        if entry["dtype"] == "BF16":  # the upper half of a float32; numpy has no such dtype
            halves = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
            array = (halves << 16).view(np.float32)
        else:
            array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # deserialize has validated the header
    return arrays, header.get("__metadata__", {})


def _where_it_was_cut(content: bytes) -> str:
    """Returns a phrase with the first tensor beyond the end of a truncated .safetensors file; "" if not truncated."""
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        stops = {name: start + entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"}
        stop, name = min((stop, name) for name, stop in stops.items() if stop > len(content))
    except Exception:  # the header may be arbitrary bytes
        return ""
    return f"; {name!r} needs the bytes up to {stop:,}, and the file has {len(content):,}"


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"}
_DTYPES |= {f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 of names, dtypes, shapes and entries, sorted by name."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name!r} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
