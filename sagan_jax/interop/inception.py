"""The published weights of the FID network: PyTorch names and layouts to ours, batch norms folded into kernels.

Source: toshas/torch-fidelity:torch_fidelity/feature_extractor_inceptionv3.py, whose state dict it is.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.models.inception import SIZE, Inception

EPSILON = 1e-3
"""What the batch norms add to the variance."""

_SHOWN = 3
_FC = "fc"


def to_variables(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of `Inception`, each batch norm folded into the convolution before it.

    A norm scales each output channel by s = weight / sqrt(running_var + epsilon), so the kernel becomes s * kernel and
    the bias becomes bias - s * running_mean. Computed in float64.

    Args:
        arrays: the names of the state dict to arrays in PyTorch's layouts; `*.num_batches_tracked` is not read.

    Returns:
        `{"params": ...}`, float32.

    Raises:
        InvalidInputError: when a name is missing or unknown, or an array has another shape.
    """
    state = published_arrays(arrays)
    leaves = {}
    for path in _template():
        layer, leaf = path[:-1], path[-1]
        name = ".".join(layer)
        if layer == (_FC,):
            array = state[f"{name}.weight"].T if leaf == "kernel" else state[f"{name}.bias"]
        else:
            norm = {part: state[f"{name}.bn.{part}"].astype(np.float64) for part in _NORM}
            scale = norm["weight"] / np.sqrt(norm["running_var"] + EPSILON)
            if leaf == "kernel":
                array = state[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
            else:
                array = norm["bias"] - norm["running_mean"] * scale
        leaves[path] = np.asarray(array, np.float32, order="C")
    return {"params": flax.traverse_util.unflatten_dict(leaves)}


_NORM = ("weight", "bias", "running_mean", "running_var")


def published_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays that the network needs, under their published names, when they are all there and fit.

    Raises:
        InvalidInputError: when a name is missing or unknown, or an array has another shape.
    """
    wanted = published_shapes()
    given = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    faults = [f"{name!r} is missing" for name in wanted if name not in given]
    faults += [f"{name!r} is unknown" for name in given if name not in wanted]
    faults += [
        f"{name!r} has {list(given[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name].shape != shape
    ]
    faults += [
        f"{name!r} has a negative value"
        for name in wanted
        if name.endswith("running_var") and name in given and given[name].size and given[name].min() < 0
    ]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InvalidInputError(
            f"The FID network needs the {len(wanted)} arrays of its published state dict; {', '.join(faults[:_SHOWN])}"
            f"{more}: these are the weights of another network, such as torchvision's Inception v3."
        )
    return {name: given[name] for name in wanted}


@cache
def published_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the names of the state dict to the shapes that the network needs, in PyTorch's layouts."""
    shapes = {}
    for path, leaf in _template().items():
        name = ".".join(path[:-1])
        if path == (_FC, "kernel"):
            shapes[f"{name}.weight"] = leaf.shape[::-1]
        elif path == (_FC, "bias"):
            shapes[f"{name}.bias"] = leaf.shape
        elif path[-1] == "kernel":
            shapes[f"{name}.conv.weight"] = (leaf.shape[3], leaf.shape[2], *leaf.shape[:2])
        else:
            shapes |= {f"{name}.bn.{part}": leaf.shape for part in _NORM}
    return shapes


@cache
def _template() -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Returns the paths of the network's parameters to their shapes."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return flax.traverse_util.flatten_dict(jax.eval_shape(Inception().init, jax.random.key(0), images)["params"])
