"""The gradient of a batch that is worked through in parts, so that only a part's activations need memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Metrics = dict[str, Array]
# (params, state, rows) -> (loss, (state, metrics)); the loss is a mean over the rows.
Objective = Callable[[Any, Any, Any], tuple[Array, tuple[Any, Metrics]]]


def mean_gradient(objective: Objective, params: Any, state: Any, rows: Any, parts: int) -> tuple[Any, Any, Metrics]:
    """Returns the mean gradient over the parts of a batch, the state after the last of them, and the mean metrics.

    Part p has the rows p, p + parts, p + 2 parts, ...: the same rows of the global batch, however many devices share
    it. One after another they go through `lax.scan`, which keeps one part's activations at a time.

    Args:
        objective: `(params, state, rows) -> (loss, (state, metrics))`, its loss and metrics means over the rows.
        params: what the gradient is taken of.
        state: handed from part to part.
        rows: leaves `[B, ...]`, B a multiple of `parts`.
        parts: 1 takes the batch as it is, without a scan.

    Returns:
        A tree like `params`, one like `state`, and scalars.
    """
    gradient = jax.grad(objective, has_aux=True)
    if parts == 1:
        slopes, (state, metrics) = gradient(params, state, rows)
        return slopes, state, metrics

    def add_part(carried: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], Metrics]:
        total, state = carried
        slopes, (state, metrics) = gradient(params, state, part)
        return (jax.tree.map(jnp.add, total, slopes), state), metrics

    dealt = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), rows)
    start = jax.tree.map(jnp.zeros_like, params), state
    (total, state), metrics = jax.lax.scan(add_part, start, dealt)
    return jax.tree.map(lambda leaf: leaf / parts, total), state, jax.tree.map(lambda leaf: leaf.mean(0), metrics)
