"""Weights that other people released, as networks of ours."""

from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop import official
from sagan_jax.interop.networks import ReleasedNetworks

__all__ = ["ReleasedNetworks", "load"]

_SOURCES = {"official": official.load}


def load(source: str, arrays: Mapping[str, np.ndarray]) -> ReleasedNetworks:
    """Returns released networks as ours.

    Args:
        source: whose names and layouts they are: `official` (the SAGAN authors' TensorFlow release).
        arrays: the source's variable names to arrays in its layouts.

    Returns:
        The networks, with `generate`, `discriminate`, the modules and variables, and `source_names`.

    Raises:
        InvalidInputError: when the source is unknown, or an array is missing or does not fit.
    """
    if source not in _SOURCES:
        raise InvalidInputError(f"interop.load needs a source out of {sorted(_SOURCES)}; got {source!r}.")
    return _SOURCES[source](arrays)
