"""Weights that other people released, as networks of ours."""

from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop import biggan_pytorch, official, studiogan
from sagan_jax.interop.networks import ReleasedNetworks

__all__ = ["ReleasedNetworks", "load"]

_SOURCES = {"biggan-pytorch": biggan_pytorch.load, "official": official.load, "studiogan": studiogan.load}


def load(source: str, arrays: Mapping[str, np.ndarray]) -> ReleasedNetworks:
    """Returns released networks as ours.

    Args:
        source: whose names and layouts they are: `official` (the SAGAN authors' TensorFlow release), `studiogan`
            (POSTECH-CVLab/PyTorch-StudioGAN, its SAGAN and DCGAN) or `biggan-pytorch` (ajbrock/BigGAN-PyTorch).
        arrays: the source's variable names to arrays in its layouts; for the two in PyTorch `generator/<key>` and
            `discriminator/<key>`, or those of a generator alone.

    Returns:
        The networks, with `generate`, `discriminate`, the modules and variables, and `source_names`.

    Raises:
        InvalidInputError: when the source is unknown, or an array is missing, unknown or does not fit.
    """
    if source not in _SOURCES:
        raise InvalidInputError(f"interop.load needs a source out of {sorted(_SOURCES)}; got {source!r}.")
    return _SOURCES[source](arrays)
