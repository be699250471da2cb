"""Conversion of the published FID network from PyTorch's names and layouts, with batch norms folded into kernels.

Source: the state dict of toshas/torch-fidelity:torch_fidelity/feature_extractor_inceptionv3.py.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from sagan_jax.interop import batch_norm
from sagan_jax.interop import published_arrays as published
from sagan_jax.models.inception import INPUT_IMAGE_SIZE, Inception

EPSILON = 1e-3
"""The epsilon of the batch norms."""

_CLASSES = ("fc",)


def to_variables(arrays: Mapping[str, np.ndarray], file: str = "") -> dict[str, Any]:
    """Returns the parameters of `Inception`, with each batch norm folded into its convolution.

    Args:
        arrays: the names of the state dict to arrays in PyTorch's layouts. `*.num_batches_tracked` is ignored.
        file: the file of the arrays, for messages.

    Returns:
        `{"params": ...}`, float32.

    Raises:
        InvalidInputError: when a name is missing or unknown, an array has a wrong shape, or a variance is negative.
    """
    state = published_arrays(arrays, file)
    params = {}
    for layer in _kernel_shapes():
        name = ".".join(layer)
        if layer == _CLASSES:
            kernel, bias = state[f"{name}.weight"].T, state[f"{name}.bias"]
        else:
            kernel = state[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
            kernel, bias = batch_norm.fold(kernel, state, f"{name}.bn", epsilon=EPSILON)
        params[*layer, "kernel"] = np.asarray(kernel, np.float32, order="C")
        params[*layer, "bias"] = np.asarray(bias, np.float32)
    return {"params": flax.traverse_util.unflatten_dict(params)}


def published_arrays(arrays: Mapping[str, np.ndarray], file: str = "") -> dict[str, np.ndarray]:
    """Checks names and shapes, and returns the arrays of the network by their published names.

    Raises:
        InvalidInputError: when a name is missing or unknown, an array has a wrong shape, or a variance is negative.
    """
    subject = f"{file!r}: the FID network" if file else "The FID network"
    hint = "Are these the weights of another network, such as torchvision's Inception v3?"
    return published.published_arrays(arrays, published_shapes(), subject=subject, hint=hint)


@cache
def published_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the state dict names that the network needs, and their shapes in PyTorch's layouts."""
    shapes = {}
    for layer, kernel in _kernel_shapes().items():
        name, outputs = ".".join(layer), kernel[-1:]
        if layer == _CLASSES:
            shapes |= {f"{name}.weight": kernel[::-1], f"{name}.bias": outputs}
        else:
            shapes[f"{name}.conv.weight"] = (*kernel[:1:-1], *kernel[:2])
            shapes |= {f"{name}.bn.{part}": outputs for part in batch_norm.PARTS}
    return shapes


@cache
def _kernel_shapes() -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns the path of each layer and the shape of its kernel."""
    images = jax.ShapeDtypeStruct((1, INPUT_IMAGE_SIZE, INPUT_IMAGE_SIZE, 3), jnp.float32)
    variables = jax.eval_shape(Inception().init, jax.random.key(0), images)
    leaves: Any = flax.traverse_util.flatten_dict(variables["params"])
    return {path[:-1]: leaf.shape for path, leaf in leaves.items() if path[-1] == "kernel"}
