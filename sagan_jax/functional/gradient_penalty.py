"""Zero-centred gradient penalties: how steep a discriminator is at its images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays


def value_and_gradient_penalty(
    discriminator: Callable[[Array], Any], images: Array, *, has_aux: bool = False
) -> tuple[Any, Array]:
    """Returns what a discriminator says of images, and the squared length of its gradient at each of them.

        || grad_x D(x) ||^2

    The mean over real images, times half of a strength, is the penalty R1. The mean over generated images is R2. The
    result can be differentiated again, by the parameters that `discriminator` closes over. One pass of D serves both.

    Args:
        discriminator: maps images to logits `[B]`; with `has_aux`, to a pair of logits and anything else. The logits of
            an image depend on that image alone: with batch norm, the penalty has terms of other images too.
        images: `[B, H, W, C]`, floating.
        has_aux: whether `discriminator` returns a pair.

    Returns:
        What `discriminator` returns, and the squared lengths `[B]`, float32 or wider.

    Raises:
        AssertionError: at trace time, when the shapes or dtypes do not fit.

    Source: Mescheder et al. 2018 (arXiv:1801.04406), equations 9 and 10; Roth et al. 2017 (arXiv:1705.09367).

    Examples:
        >>> import jax.numpy as jnp
        >>> images = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
        >>> logits, penalty = value_and_gradient_penalty(lambda x: jnp.square(x).sum((1, 2, 3)), images)
        >>> logits.tolist(), penalty.tolist()
        ([1.0, 9.0], [4.0, 36.0])
    """
    check_arrays("value_and_gradient_penalty", images=(images, "floating [B, H, W, C]"))
    logits, pullback, *aux = jax.vjp(discriminator, images, has_aux=has_aux)
    check_arrays("value_and_gradient_penalty", images=(images, "[B, H, W, C]"), logits=(logits, "floating [B]"))
    (gradient,) = pullback(jnp.ones_like(logits))
    wide = gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32))
    return (logits, *aux) if has_aux else logits, jnp.sum(jnp.square(wide), axis=(1, 2, 3))
