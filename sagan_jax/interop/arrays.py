"""Weight files, read safely: arrays by name out of .npz and .safetensors, nothing in them ever executed."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from sagan_jax.errors import InvalidInputError, one_line

_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a weight file holds.

    Attributes:
        arrays: by name.
        name: of the file.
        sha256: of all its bytes, in hexadecimal digits.
        metadata: words beside the arrays; `source_sha256` and `source_name` say what it was converted from.
    """

    arrays: dict[str, np.ndarray] = dataclasses.field(repr=False)
    name: str
    sha256: str
    metadata: dict[str, str]

    @property
    def identity(self) -> str:
        """What a result file says of the weights."""
        source = self.metadata.get("source_sha256")
        return f"sha256:{self.sha256}" + (f" from sha256:{source}" if source else "")

    def require(self, shapes: Mapping[str, tuple[int, ...]], what: str, ignored: Sequence[str] = ()) -> None:
        """Raises InvalidInputError unless the file holds exactly these arrays.

        Args:
            shapes: of each array, by name.
            what: has these arrays, for the message.
            ignored: endings of names that may be there as well.
        """
        found = {name: array.shape for name, array in self.arrays.items() if not name.endswith(tuple(ignored))}
        wrong = [f"no {name!r}" for name in shapes if name not in found]
        wrong += [f"an unknown {name!r}" for name in found if name not in shapes]
        wrong += [
            f"{name!r} of {list(found[name])} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in found and found[name] != shape
        ]
        if wrong:
            more = f" and {len(wrong) - _NAMES_SHOWN} more" if len(wrong) > _NAMES_SHOWN else ""
            raise InvalidInputError(
                f"{self.name!r} does not hold the weights of {what}: it has {', '.join(wrong[:_NAMES_SHOWN])}{more}."
            )


def read_weights(path: str | Path) -> Weights:
    """Returns the arrays in a weight file.

    Args:
        path: .npz or .safetensors.

    Returns:
        Arrays of numbers, every one finite.

    Raises:
        InvalidInputError: another kind of file, a damaged one, or one with objects in it or values that are no numbers.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in (".pth", ".pt"):
        raise InvalidInputError(
            f"{str(path)!r} is a PyTorch file, which only `sagan-jax convert` reads: it makes a .safetensors of it."
        )
    if kind not in (".npz", ".safetensors"):
        raise InvalidInputError(f"Weights need a .npz or .safetensors file; got {str(path)!r}.")
    if not path.is_file():
        raise InvalidInputError(f"There are no weights at {str(path)!r}: is the path right?")
    try:
        arrays, metadata = _read_npz(path) if kind == ".npz" else _read_safetensors(path)
        digest = sha256_of(path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise InvalidInputError(
            f"{str(path)!r} cannot be read as weights ({one_line(error)}): is the download whole?"
        ) from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InvalidInputError(
                f"{name!r} in {str(path)!r} holds values that are no finite numbers: it is damaged."
            )
    if not arrays:
        raise InvalidInputError(f"{str(path)!r} holds no arrays.")
    return Weights(arrays, path.name, digest, metadata)


def safetensors_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a .safetensors file."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(whole, dict(metadata))


def sha256_of(path: str | Path) -> str:
    """Returns the sha256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with np.load(path, allow_pickle=False) as stored:
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("it is no archive of arrays")
        return {name: stored[name] for name in stored.files}, {}


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        metadata = json.loads(file.read(size)).get("__metadata__", {})
    return safetensors.numpy.load_file(path), metadata
