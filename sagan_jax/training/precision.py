"""The precision of a training step: the dtype of the networks and the precision of float32 matrix products."""

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from sagan_jax.models.fields import has_field, with_fields

Precision = Literal["float32", "tensorfloat32", "bfloat16"]

Step = TypeVar("Step", bound=Callable[..., Any])

# In a bfloat16 step, the remaining float32 products, such as those of a last layer, use TF32.
_PRODUCTS: dict[Precision, str] = {
    "float32": "float32",
    "tensorfloat32": "tensorfloat32",
    "bfloat16": "tensorfloat32",
}


def default_precision(platform: str) -> Precision:
    """Returns the default training precision of a jax platform, as named by `jax.default_backend()`.

    By default jax computes float32 products in TF32 on a GPU and in bfloat16 on a TPU.

    Examples:
        >>> default_precision("gpu"), default_precision("tpu"), default_precision("cpu")
        ('tensorfloat32', 'bfloat16', 'float32')
    """
    if platform == "tpu":
        return "bfloat16"
    return "float32" if platform == "cpu" else "tensorfloat32"


def at_precision(step: Step) -> Step:
    """Wraps a step so that it is traced at the `precision` of its first argument, the task.

    Products of float32 arrays get that precision. With "bfloat16", each network of the task gets that dtype. Spectral
    normalisation, the orthogonal penalty and the optimiser request float32 products themselves.

    Args:
        step: a function whose first argument is a task, a dataclass with the networks as fields. In bfloat16 the
            wrapped step raises ValueError for a network without a field `dtype`.
    """

    @wraps(step)
    def traced(task: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(_PRODUCTS[task.precision]):
            return step(_with_dtype(task), *args, **kwargs)

    return traced  # pyrefly: ignore[bad-return]


def _with_dtype(task: Any) -> Any:
    """Returns the task with bfloat16 networks if that is its precision, and unchanged otherwise."""
    if task.precision != "bfloat16":
        return task
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    networks: Any = {name: value for name, value in values.items() if isinstance(value, nn.Module)}
    for module in networks.values():
        if not has_field(module, "dtype"):
            raise ValueError(f"bfloat16 needs networks with a field dtype; {type(module).__name__} has none.")
    narrow: Any = {name: with_fields(module, dtype=jnp.bfloat16) for name, module in networks.items()}
    return dataclasses.replace(task, **narrow)
