"""A generator as a function that runs without this package: what `jax.export` serialises, its weights inside."""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import Generator

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def to_jax_export(
    generator: Generator, variables: Mapping[str, Any], latent_size: int, *, platforms: Sequence[str] = PLATFORMS
) -> bytes:
    """Returns the content of a file that `jax.export.deserialize` reads, with jax, numpy and flatbuffers alone.

    The function in it is `generate(latents, labels) -> images`: latents `[b, Z]` float32, labels `[b]` int32, which an
    unconditional generator takes too and does not read, images `[b, H, W, C]` float32 in [-1, 1]; b is any number from
    1 up. It cannot be differentiated. A class that there is not becomes no class at all: nothing is checked inside.

    jax reads it for six months of its releases, and with a jax of three weeks before; see its guarantees.

    Args:
        generator: the module; a folded one is parameters alone.
        variables: what it is applied to, spectrally normalised where it was trained so.
        latent_size: Z.
        platforms: on which it will run; they need not be on this machine.

    Raises:
        InvalidInputError: flatbuffers is not installed.

    Source: https://docs.jax.dev/en/latest/export/export.html
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InvalidInputError("jax serialises functions with flatbuffers, which is absent: pip install flatbuffers")
    # On the host, so that no device is part of the function.
    variables = jax.tree.map(np.asarray, dict(variables))

    def generate(latents: Array, labels: Array) -> Array:
        images: Any = generator.apply(variables, latents, labels, train=False)
        return images

    (batch,) = export.symbolic_shape("b")
    latents = jax.ShapeDtypeStruct((batch, latent_size), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return bytes(export.export(jax.jit(generate), platforms=platforms)(latents, labels).serialize())
