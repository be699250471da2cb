"""Reads PyTorch weight files for conversion: tensors only, never objects that could run code."""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.interop.weight_files import WeightFile, read_bytes, refuse_torchscript, validated_arrays

SUFFIXES = (".pth", ".pt")

_MIN_VERSION = (2, 10)  # `weights_only` of earlier versions is unsafe (CVE-2025-32434, CVE-2026-24747)
_INSTALL = "pip install 'sagan-jax[torch]'"


def read_pth(path: str | Path) -> WeightFile:
    """Returns the tensors of a .pth or .pt file, in the older or the newer (zip) format.

    The file holds a state dict, or a dictionary with one under `state_dict`. A leading `module.` is removed from the
    names, and half precision is widened to float32. Names of published weights often contain the start of the sha256
    (`NAME-0123abcd.pth`). The sha256 is then checked before the file is parsed.

    Raises:
        InvalidInputError: when torch is not installed or too old, or when the file is missing, is damaged, has another
            sha256 than its name states, is a TorchScript archive, or holds anything other than finite tensors.
    """
    path = Path(path)
    where = repr(str(path))
    content = read_bytes(path)
    sha256 = hashlib.sha256(content).hexdigest()
    check_hash_prefix(path.name, sha256)
    refuse_torchscript(path, content)
    torch = _torch(where)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of error, and advises to trust the file
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        cause = f"it needs the Python object {refused[1]}, which could run code" if refused else "it is damaged"
        raise InvalidInputError(
            f"Cannot read {where} as a file of tensors: {cause}. Download it again, or save only its state dict."
        ) from error
    try:
        arrays = validated_arrays({name: _array(name, tensor, torch) for name, tensor in _state_dict(loaded).items()})
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
    """Raises InvalidInputError when a file name contains the start of another sha256."""
    prefix = hash_prefix(name)
    if prefix and not sha256.startswith(prefix):
        raise InvalidInputError(
            f"{name!r} needs a sha256 that starts with {prefix}, as its name states; got {sha256}. The file is "
            f"damaged, incomplete or a different one."
        )


def _torch(where: str) -> Any:
    try:
        import torch  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise InvalidInputError(
            f"Reading {where} needs the package torch, which is not installed. Run: {_INSTALL}."
        ) from error
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _MIN_VERSION:
        raise InvalidInputError(
            f"Reading {where} needs torch 2.10 or newer, which loads tensors safely; got {torch.__version__}. "
            f"Run: {_INSTALL}."
        )
    return torch


def _state_dict(loaded: Any) -> Mapping[str, Any]:
    """Returns names to tensors, without the prefix `module.` of data-parallel training."""
    found = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"it holds a {type(found).__name__}, not names and tensors")
    names = [name.removeprefix("module.") for name in found]
    return dict(zip(names, found.values(), strict=True))


def _array(name: str, tensor: Any, torch: Any) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{name!r} is not a plain tensor but {type(tensor).__name__}")
    # With strides of zero, a file of a kilobyte can claim a terabyte of entries.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r} has the shape {list(tensor.shape)} but stores fewer entries")
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.detach().numpy()
    except TypeError as error:  # numpy has no such dtype
        raise ValueError(f"{name!r} has the dtype {tensor.dtype}") from error
