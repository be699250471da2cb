"""Reading of PyTorch weight files without PyTorch: only tensors, never objects that could run code."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.interop.pytorch_files import PytorchFile, Storage, Tensor, open_pytorch
from sagan_jax.interop.restricted_pickle import Name, NumpyType, RefusedPickleError
from sagan_jax.interop.weight_files import WeightFile, read_bytes, refuse_torchscript, validated_arrays

SUFFIXES = (".pth", ".pt")

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_MAX_WRAPPERS = 4  # nesting depth
# Tensors may share entries, so together they may have more entries than the file.
_MAX_EXPANSION = 4
_EXTRA_BYTES = 2**20


def read_pth(path: str | Path) -> WeightFile:
    """Returns the tensors of a .pth or .pt file, in the older or the newer (zip) format.

    The file holds a state dict, or a dictionary with one under `state_dict`, `model` or `model_state_dict`. A leading
    `module.` is removed from the names, and half precision is widened to float32. Names of published weights often
    contain the start of the sha256 (`NAME-0123abcd.pth`). The sha256 is then checked before the file is parsed.

    Nothing in the file is executed. Its pickle is read by an interpreter that supports only tensors, numbers, strings
    and their containers, and rejects all other objects. Memory use is bounded by the file size.

    Raises:
        InvalidInputError: when the file is missing, is damaged, has another sha256 than its name states, is a
            TorchScript archive, or contains anything other than finite tensors.
    """
    path = Path(path)
    where = repr(str(path))
    content = read_bytes(path)
    sha256 = hashlib.sha256(content).hexdigest()
    check_hash_prefix(path.name, sha256)
    refuse_torchscript(path, content)
    try:
        file = open_pytorch(content)
    except RefusedPickleError as error:
        raise InvalidInputError(
            f"Cannot read {where} as a file of tensors: {one_line(error)}. Only tensors, numbers, strings and their "
            f"containers are read, and nothing is executed. Save only the state dict."
        ) from error
    except ValueError as error:
        raise InvalidInputError(
            f"Cannot read {where} as a file of tensors: {one_line(error)}. It is damaged, incomplete or another kind "
            f"of file: download it again."
        ) from error
    try:
        arrays = validated_arrays(_arrays(file, _state_dict(file.loaded), len(content)))
    except ValueError as error:
        raise InvalidInputError(f"{where} needs to hold a state dict of finite tensors; {one_line(error)}.") from error
    return WeightFile(path.name, sha256, arrays)


def hash_prefix(name: str) -> str | None:
    """Returns the start of the sha256 in the name of a published file, or None.

    Examples:
        >>> hash_prefix("weights-inception-2015-12-05-6726825d.pth")
        '6726825d'
    """
    found = re.search(r"-([0-9a-f]{8})\.pth$", name)
    return found and found[1]


def check_hash_prefix(name: str, sha256: str) -> None:
    """Raises InvalidInputError when the start of the sha256 in a file name does not match."""
    prefix = hash_prefix(name)
    if prefix and not sha256.startswith(prefix):
        raise InvalidInputError(
            f"{name!r} needs a sha256 that starts with {prefix}, as its name states; got {sha256}. The file is "
            f"damaged, incomplete or a different one."
        )


def _state_dict(loaded: Any) -> dict[str, Any]:
    """Returns names to tensors, without the prefix `module.` of data-parallel training."""
    found = loaded
    for _ in range(_MAX_WRAPPERS):
        inner = [
            found[name] for name in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)
        ]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"it holds {_kind(found)}, not names and tensors")
    names = [name.removeprefix("module.") for name in found]
    if len(set(names)) < len(names):
        both = next(name for name in found if f"module.{name}" in found)
        raise ValueError(f"it holds {both!r} twice, with and without module. in front")
    return dict(zip(names, found.values(), strict=True))


def _arrays(file: PytorchFile, tensors: Mapping[str, Any], file_size: int) -> dict[str, np.ndarray]:
    """Returns the entries of all tensors."""
    arrays, left = {}, _MAX_EXPANSION * file_size + _EXTRA_BYTES
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name!r} is not a tensor but {_kind(tensor)}")
        left -= tensor.num_bytes
        if left < 0:
            raise ValueError(
                f"{name!r} has the shape {list(tensor.shape)}, but a file of {file_size:,} bytes stores fewer entries"
            )
        try:
            arrays[name] = file.array(tensor)
        except ValueError as error:
            raise ValueError(f"{name!r} {error}") from error
    if not file.whole:
        raise ValueError("it ends before its last tensor, so it is damaged or incomplete")
    return arrays


def _kind(value: Any) -> str:
    """Returns a description of a value that is not a tensor, for a message."""
    for kind, title in ((Storage, "a storage"), (Name | NumpyType, "a dtype"), (Mapping, "a dictionary")):
        if isinstance(value, kind):
            return title
    return f"a value of type {type(value).__name__}"
