"""Export of a generator with its weights by `jax.export`, as a function that runs without this package."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import Generator
from sagan_jax.runtime.full_precision import in_float32
from sagan_jax.runtime.packages import is_installed

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def to_jax_export(
    generator: Generator,
    variables: Mapping[str, Any],
    latent_size: int,
    *,
    num_classes: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """Returns the bytes of a file that `jax.export.deserialize` reads, with only jax, numpy and flatbuffers installed.

    The exported function is `generate(latents, labels) -> images`. Latents are `[b, Z]` float32, labels `[b]` int32,
    and images `[b, H, W, C]` float32 in [-1, 1], for any b of at least 1. An unconditional generator takes labels and
    ignores them. The function cannot be differentiated. A label outside [0, num_classes) gives a grey image of zeros.

    jax guarantees backward compatibility of the file for six months, and forward compatibility for three weeks.

    Args:
        generator: the module. A folded module has only parameters.
        variables: the variables, after spectral normalisation if the network was trained with it.
        latent_size: Z.
        num_classes: the number of classes. Defaults to that of the module.
        platforms: the platforms on which the function can run. They need not be available on this machine.

    Raises:
        InvalidInputError: when flatbuffers is not installed.

    Source: https://docs.jax.dev/en/latest/export/export.html
    """
    if not is_installed("flatbuffers"):
        raise InvalidInputError("The export needs the package flatbuffers. Run: pip install flatbuffers")
    # On the host, so that the function does not depend on a device.
    variables = jax.tree.map(np.asarray, dict(variables))

    classes = generator.num_classes if num_classes is None else num_classes

    @in_float32
    def generate(latents: Array, labels: Array) -> Array:
        images: Any = generator.apply(variables, latents, labels, train=False)
        if not classes:
            return images
        is_class = (labels >= 0) & (labels < classes)
        return jnp.where(is_class[:, None, None, None], images, 0)

    (batch,) = export.symbolic_shape("b")
    latents = jax.ShapeDtypeStruct((batch, latent_size), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return bytes(export.export(jax.jit(generate), platforms=platforms)(latents, labels).serialize())
