"""Conversion between released weights of other code bases and the networks of this package."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop import biggan_pytorch, dinov2, inception, official, studiogan
from sagan_jax.interop.jax_export import to_jax_export
from sagan_jax.interop.networks import ReleasedNetworks
from sagan_jax.interop.pytorch import read_pth
from sagan_jax.interop.source_config import read_source_config
from sagan_jax.interop.tensorflow_checkpoint import read_checkpoint
from sagan_jax.interop.weight_files import WeightFile, read_arrays, to_safetensors

__all__ = [
    "ReleasedNetworks",
    "WeightFile",
    "biggan_pytorch",
    "dinov2",
    "inception",
    "load",
    "official",
    "read_arrays",
    "read_checkpoint",
    "read_pth",
    "read_source_config",
    "studiogan",
    "to_jax_export",
    "to_safetensors",
]

_SOURCES = {"biggan-pytorch": biggan_pytorch.load, "official": official.load, "studiogan": studiogan.load}


def load(source: str, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> ReleasedNetworks:
    """Returns the networks of this package with released weights.

    Args:
        source: the code base of the weights: `official` (the SAGAN authors' TensorFlow release), `studiogan`
            (POSTECH-CVLab/PyTorch-StudioGAN, its SAGAN and DCGAN) or `biggan-pytorch` (ajbrock/BigGAN-PyTorch).
        arrays: the source's variable names to arrays in its layouts. For the two PyTorch sources the names are
            `generator/<key>` and `discriminator/<key>`. A generator alone is enough.
        config: the training configuration of the source, from `read_source_config`: StudioGAN's configuration file, or
            the flags of BigGAN-PyTorch. Without it, `ReleasedNetworks.assumed` lists the assumptions.

    Returns:
        The networks, with their modules and variables and the methods `generate`, `discriminate` and `source_names`.

    Raises:
        InvalidInputError: when the source is unknown, or an array is missing, is unknown or has a wrong shape. Also
            when the networks have an unsupported feature, or the weights contradict `config`.
    """
    if source not in _SOURCES:
        raise InvalidInputError(f"The source of interop.load needs to be one of {sorted(_SOURCES)}; got {source!r}.")
    if source == "official":
        if config is not None:
            raise InvalidInputError("The official release has no configuration file: leave out --source-config.")
        return official.load(arrays)
    return _SOURCES[source](arrays, config)
