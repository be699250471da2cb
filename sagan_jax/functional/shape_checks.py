"""Argument checks in the notation of the docstrings: `floating [..., M, D]`. Under jit they run at trace time."""

from collections.abc import Mapping

import chex
import jax.numpy as jnp
from jax import Array

Need = tuple[Array | float | None, str]
"""An argument and its specification, such as `floating [..., H, W, C]`. An argument of None is not checked."""


def check_arrays(function: str, /, *, one_dtype: bool = False, **arguments: Need) -> dict[str, int]:
    """Checks that arrays have the dtypes and axes that a function needs.

    Each letter names an axis. It has the same size in all arrays and occurs at most once in each array. Sizes are at
    least 1, except for B, the batch. `...` stands for any number of axes, which are the same in all arrays.

    Args:
        function: name of the function that needs the arrays, for the message.
        one_dtype: whether all floating arrays must share their dtype.
        **arguments: by name, an array and its specification: a dtype (`floating` or `bool`), axes in brackets, or both.

    Returns:
        The size of each letter.

    Raises:
        AssertionError: when an array does not fit; the message lists what was needed and what was given.

    Examples:
        >>> import jax.numpy as jnp
        >>> weights, values = jnp.ones((5, 3)), jnp.ones((3, 2))
        >>> check_arrays("attend", attention_map=(weights, "floating [N, M]"), values=(values, "[M, E]"))
        {'N': 5, 'M': 3, 'E': 2}
    """
    given = {name: (array, need) for name, (array, need) in arguments.items() if array is not None}
    message = (
        f"{function} needs {_list_needs(given)}{' of one dtype' if one_dtype else ''}; "
        f"got {', '.join(f'{name} {_shape(array)} {_dtype(array)}' for name, (array, _) in given.items())}."
    )
    floating = [array for array, need in given.values() if need.startswith("floating")]
    chex.assert_type(floating, jnp.floating, custom_message=message)
    chex.assert_type([array for array, need in given.values() if need.startswith("bool")], bool, custom_message=message)
    if one_dtype:
        chex.assert_type(floating, _dtype(floating[0]), custom_message=message)
    sizes: dict[str, tuple[int, ...]] = {}
    for array, need in given.values():
        if "[" in need:
            axes = need[need.index("[") + 1 : -1].replace(",", "").split()
            expected = [size for axis in axes for size in sizes.get(axis, [... if axis == "..." else None])]
            chex.assert_shape(array, expected, custom_message=message)
            sizes |= _sizes(axes, _shape(array))
    found = {axis: size[0] for axis, size in sizes.items() if axis != "..."}
    empty = [axis for axis, size in found.items() if size == 0 and axis != "B"]
    if empty:
        raise AssertionError(f"{message[:-1]}: no {' or '.join(empty)} may be 0.")
    return found


def check_that(function: str, holds: bool, needed: str, given: object) -> None:
    """Checks that a condition on the arguments holds.

    Args:
        function: name of the function that needs the condition, for the message.
        holds: the condition.
        needed: the condition in words.
        given: what was given instead.

    Raises:
        AssertionError: when the condition does not hold.

    Examples:
        >>> check_that("top_keys", 9 <= 4, "a count from 1 to 4", 9)
        Traceback (most recent call last):
        AssertionError: top_keys needs a count from 1 to 4; got 9.
    """
    if not holds:
        raise AssertionError(f"{function} needs {needed}; got {given}.")


def _list_needs(arguments: Mapping[str, Need]) -> str:
    """Returns the specifications as a phrase: `floating queries [N, D], bool masks [B, H, W]`."""
    phrases = []
    for name, (_, need) in arguments.items():
        dtype, bracket, axes = need.partition("[")
        phrases.append(" ".join(f"{dtype} {name} {bracket}{axes}".split()))
    return ", ".join(phrases)


def _shape(array: object) -> tuple[int, ...]:
    """Returns the shape; that of a Python number is `()`."""
    return getattr(array, "shape", ())


def _dtype(array: object) -> object:
    """Returns the dtype, or the name of the type of a Python number."""
    return getattr(array, "dtype", type(array).__name__)


def _sizes(axes: list[str], shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns the sizes that each letter, and `...`, stands for in a shape with these axes."""
    if "..." not in axes:
        return {axis: (size,) for axis, size in zip(axes, shape, strict=True)}
    start = axes.index("...")
    stop = len(shape) - len(axes[start + 1 :])
    return _sizes(axes[:start], shape[:start]) | {"...": shape[start:stop]} | _sizes(axes[start + 1 :], shape[stop:])
