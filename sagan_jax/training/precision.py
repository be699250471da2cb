"""The precision of a step, by name: what the networks compute in, and how exact products of float32 numbers are."""

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

Precision = Literal["float32", "tensorfloat32", "bfloat16"]

Step = TypeVar("Step", bound=Callable[..., Any])

# The products of float32 numbers that a bfloat16 step has left, such as those of a last layer, are as in tensorfloat32.
_PRODUCTS: dict[Precision, str] = {
    "float32": "float32",
    "tensorfloat32": "tensorfloat32",
    "bfloat16": "tensorfloat32",
}


def default_precision(platform: str) -> Precision:
    """Returns the precision to train in on a platform of jax: `jax.default_backend()`.

    jax's own float32 products are TF32 on a GPU and bfloat16 on a TPU.

    Examples:
        >>> default_precision("gpu"), default_precision("tpu"), default_precision("cpu")
        ('tensorfloat32', 'bfloat16', 'float32')
    """
    if platform == "tpu":
        return "bfloat16"
    return "float32" if platform == "cpu" else "tensorfloat32"


def at_precision(step: Step) -> Step:
    """Returns a step that is traced at the `precision` of its task, the first argument.

    Products of float32 numbers get that precision; with "bfloat16" each network of the task gets that dtype. Spectral
    normalisation, the penalty on kernels and the optimiser ask for float32 themselves.

    Args:
        step: takes a task, a dataclass whose fields hold the networks. In bfloat16 it raises ValueError for a network
            that has no field `dtype`.
    """

    @wraps(step)
    def traced(task: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(_PRODUCTS[task.precision]):
            return step(_with_dtype(task), *args, **kwargs)

    return traced  # pyrefly: ignore[bad-return]


def _with_dtype(task: Any) -> Any:
    """Returns the task with networks that compute in its dtype; as they are in all but bfloat16."""
    if task.precision != "bfloat16":
        return task
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    networks: Any = {name: value for name, value in values.items() if isinstance(value, nn.Module)}
    for module in networks.values():
        if not hasattr(module, "dtype"):
            raise ValueError(f"bfloat16 needs networks with a field dtype; {type(module).__name__} has none.")
    return dataclasses.replace(task, **{name: module.clone(dtype=jnp.bfloat16) for name, module in networks.items()})
