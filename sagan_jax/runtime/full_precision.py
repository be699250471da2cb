"""Products of float32 numbers that are float32 products on every device: for what is compared with others' numbers."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns the function, traced so that products of float32 numbers round nothing.

    By default a GPU rounds their operands to 10 bits and a TPU to 7. Scores would then depend on the machine. Put it
    below `jax.jit`, which then takes the same arguments.

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
