"""PyTorch's weight files, read without running what is in them; needs the extra `torch`."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.interop.arrays import Weights, sha256_of


def read_pth(path: str | Path) -> Weights:
    """Returns the arrays in a .pth file of either format, the old stream and the zip.

    Read by `torch.load(weights_only=True)`, which refuses everything that is not a tensor or a plain container; there
    is no other way in. A dictionary under `state_dict` is taken for the whole, and a leading `module.` is dropped.

    Args:
        path: a .pth or .pt file.

    Returns:
        Arrays by name; half and bfloat16 as float32.

    Raises:
        InvalidInputError: PyTorch is not installed, or the file is damaged, holds objects, or no tensors.
    """
    path = Path(path)
    try:
        import torch  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise InvalidInputError(
            f"Reading {str(path)!r} needs PyTorch, once: pip install 'sagan-jax[torch]', or convert it elsewhere."
        ) from error
    if not path.is_file():
        raise InvalidInputError(f"There are no weights at {str(path)!r}: is the path right?")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidInputError(
            f"{str(path)!r} is damaged, or holds more than tensors, which is never run here "
            f"({one_line(error)[:160]}): save its state_dict() alone."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InvalidInputError(
            f"{str(path)!r} cannot be read as a PyTorch file ({one_line(error)[:160]}): is the download whole?"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise InvalidInputError(f"{str(path)!r} needs to hold a state_dict, tensors by name; it holds something else.")
    arrays = {str(name).removeprefix("module."): _array(torch, str(name), tensor) for name, tensor in loaded.items()}
    return Weights(arrays, path.name, sha256_of(path), {})


def _array(torch: Any, name: str, tensor: Any) -> np.ndarray:
    # A file of a kilobyte may claim a tensor of terabytes, by a stride of zero.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InvalidInputError(f"{name!r} claims more values than the file holds: it is damaged, or made to harm.")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.detach().contiguous().numpy()
