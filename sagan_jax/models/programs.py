"""Jitted functions with a network as a static argument."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax


def bind_static(program: Any, *fixed: Any) -> Callable[..., Any]:
    """Returns a jitted function with its first, static arguments bound.

    jax caches compiled functions by the hash of their static arguments. A user-defined network with a list, a
    dictionary or an array among its fields is not hashable. In that case, each call of `bind_static` returns a newly
    jitted function.

    Args:
        program: a function under `jax.jit` with `static_argnums` for its first arguments.
        fixed: the static arguments.

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
