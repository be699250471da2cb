"""Weight files of PyTorch, read once for conversion: tensors alone, never the objects that could run code."""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.interop.weight_files import WeightFile, file_content, plain_arrays

SUFFIXES = (".pth", ".pt")

_OLDEST = (2, 10)  # before it, `weights_only` could be got round (CVE-2025-32434, CVE-2026-24747)
_INSTALL = "pip install 'sagan-jax[torch]'"


def read_pth(path: str | Path) -> WeightFile:
    """Returns the tensors of a .pth or .pt file, the older stream or the newer zip.

    The file holds a state dict, or a dictionary that has one under `state_dict`. A leading `module.` is dropped from
    the names, and half precision is widened to float32. Where the name of the file carries the start of its sha256,
    as published weights do (`NAME-0123abcd.pth`), it is compared before anything is parsed.

    Raises:
        InvalidInputError: torch is not installed or too old; the file is absent, damaged, not the one that its name
            says, or holds anything else than finite tensors.
    """
    path = Path(path)
    where = repr(str(path))
    content = file_content(path)
    sha256 = hashlib.sha256(content).hexdigest()
    check_hash_prefix(path.name, sha256)
    torch = _torch(where)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch has many for a damaged file, and its advice is to trust it
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        cause = f"it asks for the Python object {refused[1]}, and such a file can run code" if refused else "damaged"
        raise InvalidInputError(
            f"Cannot read {where} as tensors alone: {cause}; download it again, or save its state dict alone."
        ) from error
    try:
        arrays = plain_arrays({name: _array(name, tensor, torch) for name, tensor in _state_dict(loaded).items()})
    except ValueError as error:
        raise InvalidInputError(
            f"{where} needs to hold a state dict of finite tensors; it does not: {one_line(error)}."
        ) from error
    return WeightFile(path.name, sha256, arrays)


def hash_prefix(name: str) -> str | None:
    """Returns the start of the sha256 that the name of a published file carries, or None.

    >>> hash_prefix("weights-inception-2015-12-05-6726825d.pth")
    '6726825d'
    """
    found = re.search(r"-([0-9a-f]{8})\.pth$", name)
    return found and found[1]


def check_hash_prefix(name: str, sha256: str) -> None:
    """Raises InvalidInputError when the name of a file says that it has another sha256."""
    prefix = hash_prefix(name)
    if prefix and not sha256.startswith(prefix):
        raise InvalidInputError(
            f"{name!r} needs a sha256 that starts with {prefix}, as its name says; got {sha256}: "
            f"the file is damaged, cut short or another one."
        )


def _torch(where: str) -> Any:
    try:
        import torch  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise InvalidInputError(
            f"Reading {where} needs the package torch, which is not installed: {_INSTALL}."
        ) from error
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST:
        raise InvalidInputError(
            f"Reading {where} needs torch 2.10 or newer, which tells tensors from code; got {torch.__version__}: "
            f"{_INSTALL}."
        )
    return torch


def _state_dict(loaded: Any) -> Mapping[str, Any]:
    """Returns names to tensors, without the prefix of a network that was trained on several devices."""
    found = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"it holds a {type(found).__name__}, not names and tensors")
    names = [name.removeprefix("module.") for name in found]
    return dict(zip(names, found.values(), strict=True))


def _array(name: str, tensor: Any, torch: Any) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{name!r} is no plain tensor but {type(tensor).__name__}")
    # A stride of zero lets a file of a kilobyte promise a terabyte.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r} promises {list(tensor.shape)} entries and stores fewer")
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.detach().numpy()
    except TypeError as error:  # numpy knows no such numbers
        raise ValueError(f"{name!r} is of {tensor.dtype}") from error
