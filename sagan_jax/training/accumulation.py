"""Gradient accumulation: a batch is processed in microbatches, so memory holds the activations of only one."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.training.network_state import Metrics, Params

Batch = TypeVar("Batch")
Carry = TypeVar("Carry")

# (params, carry, batch) -> (loss, (carry, metrics)); the loss is a mean over the batch.
Objective: TypeAlias = Callable[[Params, Carry, Batch], tuple[Array, tuple[Carry, Metrics]]]


def mean_gradient(
    objective: Objective[Carry, Batch], params: Params, carry: Carry, batch: Batch, microbatches: int
) -> tuple[Params, Carry, Metrics]:
    """Returns the mean gradient over the microbatches, the carry after the last of them, and the mean metrics.

    With n microbatches, microbatch m has the rows m, m + n, m + 2n, ... These are the same rows of the global batch for
    any number of devices. `lax.scan` over the microbatches keeps the activations of one at a time.

    Args:
        objective: `(params, carry, batch) -> (loss, (carry, metrics))`; its loss and metrics are means over the batch.
        params: the parameters to differentiate with respect to.
        carry: state passed from each microbatch to the next, such as running moments.
        batch: leaves `[B, ...]`; B is a multiple of `microbatches`.
        microbatches: the number of microbatches. With 1 there is no scan.

    Returns:
        A pytree like `params`, one like `carry`, and scalars.
    """
    gradient = jax.grad(objective, has_aux=True)
    if microbatches == 1:
        gradients, (carry, metrics) = gradient(params, carry, batch)
        return gradients, carry, metrics

    def add_microbatch(total_and_carry: tuple[Params, Carry], batch: Batch) -> tuple[tuple[Params, Carry], Metrics]:
        total, carry = total_and_carry
        gradients, (carry, metrics) = gradient(params, carry, batch)
        return (jax.tree.map(jnp.add, total, gradients), carry), metrics

    stacked = jax.tree.map(lambda leaf: leaf.reshape(-1, microbatches, *leaf.shape[1:]).swapaxes(0, 1), batch)
    start = jax.tree.map(jnp.zeros_like, params), carry
    (total, carry), metrics = jax.lax.scan(add_microbatch, start, stacked)
    gradients = jax.tree.map(lambda leaf: leaf / microbatches, total)
    return gradients, carry, jax.tree.map(lambda leaf: leaf.mean(0), metrics)
