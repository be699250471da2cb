"""Changes of the size of feature maps by whole factors, with no gather, scatter or select in the gradient."""

import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays, check_that


def upsample_nearest(features: Array, factor: int = 2) -> Array:
    """Returns the features with each position repeated `factor` times along height and width.

    Args:
        features: `[..., H, W, C]`, floating.
        factor: a positive integer.

    Returns:
        `[..., factor*H, factor*W, C]`, the same dtype.

    Raises:
        AssertionError: at trace time, when `features` is not floating or has fewer than three axes, or `factor` is
            below 1.

    Source: `tf.image.resize_nearest_neighbor` in brain-research/self-attention-gan:generator.py.

    Examples:
        >>> import jax.numpy as jnp
        >>> upsample_nearest(jnp.array([[[1.0], [2.0]]]))[..., 0].tolist()
        [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    check_arrays("upsample_nearest", features=(features, "floating [..., H, W, C]"))
    check_that("upsample_nearest", int(factor) >= 1, "a factor of at least 1", factor)
    *leading, height, width, channels = features.shape
    # The gradient of a broadcast is a plain sum; that of `jax.image.resize` is a scatter.
    repeated = jnp.broadcast_to(features[..., :, None, :, None, :], (*leading, height, factor, width, factor, channels))
    return repeated.reshape(*leading, height * factor, width * factor, channels)


def average_pool(features: Array, window: int = 2) -> Array:
    """Returns the mean of each `window` x `window` square.

    Args:
        features: `[..., H, W, C]`, floating; H and W divisible by `window`.
        window: a positive integer.

    Returns:
        `[..., H/window, W/window, C]`, the same dtype.

    Raises:
        AssertionError: at trace time, when `features` is not floating or has fewer than three axes, or `window` is
            below 1 or does not divide H and W.

    Source: the downsampling in brain-research/self-attention-gan:discriminator.py.

    Examples:
        >>> import jax.numpy as jnp
        >>> average_pool(jnp.array([[[1.0], [2.0]], [[3.0], [6.0]]])).tolist()
        [[[3.0]]]
    """
    return _windows("average_pool", features, window).mean(axis=(-4, -2))


def max_pool(features: Array, window: int = 2) -> Array:
    """Returns the largest value of each `window` x `window` square; ties share the gradient evenly.

    The gradient of `flax.linen.max_pool` is a select-and-scatter, which XLA refuses on GPUs under
    `--xla_gpu_deterministic_ops` (google/flax#4233). This one needs neither.

    Args:
        features: `[..., H, W, C]`, floating; H and W divisible by `window`.
        window: a positive integer; 1 is the identity.

    Returns:
        `[..., H/window, W/window, C]`, the same dtype.

    Raises:
        AssertionError: at trace time, when `features` is not floating or has fewer than three axes, or `window` is
            below 1 or does not divide H and W.

    Examples:
        >>> import jax.numpy as jnp
        >>> max_pool(jnp.array([[[1.0], [2.0]], [[3.0], [6.0]]])).tolist()
        [[[6.0]]]
    """
    windows = _windows("max_pool", features, window)
    return features if window == 1 else windows.max(axis=(-4, -2))


def _windows(function: str, features: Array, window: int) -> Array:
    """Splits `[..., H, W, C]` into windows: `[..., H/w, w, W/w, w, C]`."""
    check_arrays(function, features=(features, "floating [..., H, W, C]"))
    *leading, height, width, channels = features.shape
    fits = int(window) >= 1 and height % window == width % window == 0
    check_that(function, fits, "a window of at least 1 that divides H and W", f"{window} for features {features.shape}")
    return features.reshape(*leading, height // window, window, width // window, window, channels)
