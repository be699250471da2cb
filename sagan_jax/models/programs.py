"""Compiled programs in which a network is fixed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax


def bind_static(program: Any, *fixed: Any) -> Callable[..., Any]:
    """Returns a program of `jax.jit` with its first arguments, which are static, bound.

    jax finds a compiled program by the hash of its static arguments. A network of somebody else may have a list, a
    dictionary or an array among its fields, and no hash. It then gets a program of its own at each call of this.

    Args:
        program: a function under `jax.jit` with `static_argnums` for its first arguments.
        fixed: these arguments.

    Examples:
        >>> import jax
        >>> total = jax.jit(lambda numbers, factor: factor * sum(numbers), static_argnums=0)
        >>> bind_static(total, (1, 2))(10).item(), bind_static(total, [1, 2])(10).item()
        (30, 30)
    """
    try:
        hash(fixed)
    except TypeError:
        return jax.jit(partial(program.__wrapped__, *fixed))
    return partial(program, *fixed)
