"""cuDNN's fused attention for bfloat16 on CUDA devices, called through jax, with second derivatives added."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Attend = Callable[[Array, Array, Array], Array]
"""Maps queries `[B, N, D]`, keys `[B, M, D]` and values `[B, M, E]` to `[B, N, E]`."""


def takes_fused(queries: Array, keys: Array, values: Array) -> bool:
    """Returns whether cuDNN's fused attention supports the dtype and the sizes.

    It needs equal widths for queries, keys and values: a multiple of 8, at most 128. Narrower queries and keys are
    padded with zeros, which change no score. It also needs a concrete batch size, so functions exported with a symbolic
    batch size do not use it.

    Examples:
        >>> narrow, wide = jnp.ones((1, 4, 8), jnp.bfloat16), jnp.ones((1, 4, 64), jnp.bfloat16)
        >>> takes_fused(narrow, narrow, wide), takes_fused(wide, wide, narrow)
        (True, False)
    """
    del keys
    batch, _, width = values.shape
    fits = isinstance(batch, int) and batch > 0 and width % 8 == 0 and queries.shape[-1] <= width <= 128
    return fits and values.dtype == jnp.bfloat16


def has_fused_attention() -> bool:
    """Returns whether this process has CUDA devices and all of them support fused attention.

    Without such a device, jax raises an error when it traces the call.
    """
    try:
        devices = jax.devices("cuda")
    except RuntimeError:  # the process has no such devices
        return False
    return all(float(device.compute_capability) >= 8 for device in devices)


def fused_attention(plain: Attend) -> Attend:
    """Returns cuDNN's attention with cuDNN's gradients. Second derivatives come from `plain`.

    jax cannot differentiate cuDNN's gradients. Forward mode raises an error, as for any `jax.custom_vjp`.

    Args:
        plain: the same attention in plain jax, twice differentiable.
    """

    @jax.custom_vjp
    def gradients(
        pullback: Callable[[Array], tuple[Array, Array, Array]],
        queries: Array,
        keys: Array,
        values: Array,
        cotangent: Array,
    ) -> tuple[Array, Array, Array]:
        del queries, keys, values
        return pullback(cotangent)

    def gradients_forward(pullback, *operands):
        return pullback(operands[-1]), operands

    def gradients_backward(operands, cotangents):
        _, transposed = jax.vjp(lambda *operands: jax.vjp(plain, *operands[:3])[1](operands[3]), *operands)
        return None, *transposed(cotangents)  # None: the saved residuals are a function of the operands

    gradients.defvjp(gradients_forward, gradients_backward)

    @jax.custom_vjp
    def attend(queries: Array, keys: Array, values: Array) -> Array:
        return _cudnn_attention(queries, keys, values)

    def attend_forward(*operands):
        gathered, pullback = jax.vjp(_cudnn_attention, *operands)
        return gathered, (pullback, *operands)

    attend.defvjp(attend_forward, lambda saved, cotangent: gradients(*saved, cotangent))
    return attend


def _cudnn_attention(queries: Array, keys: Array, values: Array) -> Array:
    """Calls cuDNN with one head. Its operands have the shape `[B, N, heads, E]`."""
    missing = ((0, 0), (0, 0), (0, values.shape[-1] - queries.shape[-1]))
    operands = (jnp.pad(queries, missing), jnp.pad(keys, missing), values)
    heads = [operand[:, :, None] for operand in operands]
    return jax.nn.dot_product_attention(*heads, scale=1.0, implementation="cudnn")[:, :, 0]
