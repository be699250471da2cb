"""Zero-centred gradient penalties: the squared norm of a discriminator's gradient at its input images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays


def value_and_gradient_penalty(
    discriminator: Callable[[Array], Any], images: Array, *, has_aux: bool = False
) -> tuple[Any, Array]:
    """Returns the output of a discriminator, and the squared norm of its gradient with respect to each image.

        || grad_x D(x) ||^2

    Half of the penalty weight times the mean over real images is the R1 penalty. The same over generated images is R2.
    The result can be differentiated again with respect to parameters that `discriminator` closes over. Both outputs
    share one forward pass of D.

    Args:
        discriminator: maps images to logits `[B]`; with `has_aux`, to a pair of logits and auxiliary data. The logit of
            an image must depend on that image alone. With batch norm, the penalty would include terms of other images.
        images: `[B, H, W, C]`, floating.
        has_aux: whether `discriminator` returns a pair.

    Returns:
        The output of `discriminator`, and the squared gradient norms `[B]`, float32 or wider.

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
