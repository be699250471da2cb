"""Computes matrix products in full float32 on every device, for results that are compared with published numbers."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns the function, traced so that operands of float32 products are not rounded.

    By default a GPU rounds them to 10 bits of mantissa and a TPU to 7. Scores would then depend on the machine. Apply
    it inside `jax.jit`; the arguments stay the same.

    Examples:
        >>> import jax.numpy as jnp
        >>> in_float32(jnp.matmul)(jnp.eye(2), jnp.ones((2, 1))).ravel().tolist()
        [1.0, 1.0]
    """

    @wraps(function)
    def exact(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.default_matmul_precision("float32"):
            return function(*args, **kwargs)

    return exact
