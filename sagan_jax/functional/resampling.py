"""Changing the size of feature maps by whole factors, without a gather, a scatter or a select in the gradient."""

import chex
import jax.numpy as jnp
from jax import Array


def _windows(features: Array, window: int, name: str) -> Array:
    """Splits `[..., H, W, C]` into windows: `[..., H/w, w, W/w, w, C]`."""
    message = (
        f"{name} needs floating features [..., H, W, C] with H and W divisible by a window of at least 1; "
        f"got {features.shape} {features.dtype} and {window}."
    )
    chex.assert_scalar_positive(int(window), custom_message=message)
    chex.assert_scalar_non_negative(features.ndim - 3, custom_message=message)
    chex.assert_type(features, float, custom_message=message)
    *leading, height, width, channels = features.shape
    chex.assert_is_divisible(height, window, custom_message=message)
    chex.assert_is_divisible(width, window, custom_message=message)
    return features.reshape(*leading, height // window, window, width // window, window, channels)


def upsample_nearest(features: Array, factor: int = 2) -> Array:
    """Returns the features with every position repeated `factor` times along height and width.

    Args:
        features: `[..., H, W, C]`, floating.
        factor: a positive integer.

    Returns:
        `[..., factor*H, factor*W, C]`, the same dtype.

    Raises:
        AssertionError: at trace time, when `features` is not floating or has fewer than three axes, or `factor` is
            below 1.

    Source: `tf.image.resize_nearest_neighbor` in brain-research/self-attention-gan:generator.py.

    >>> import jax.numpy as jnp
    >>> upsample_nearest(jnp.array([[[1.0], [2.0]]]))[..., 0].tolist()
    [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    message = (
        f"upsample_nearest needs floating features [..., H, W, C] and a factor of at least 1; "
        f"got {features.shape} {features.dtype} and {factor}."
    )
    chex.assert_scalar_positive(int(factor), custom_message=message)
    chex.assert_scalar_non_negative(features.ndim - 3, custom_message=message)
    chex.assert_type(features, float, custom_message=message)
    *leading, height, width, channels = features.shape
    # A broadcast: its gradient is a plain sum, where `jax.image.resize` would scatter.
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
        AssertionError: at trace time, when the shape does not divide.

    Source: the downsampling in brain-research/self-attention-gan:discriminator.py.

    >>> import jax.numpy as jnp
    >>> average_pool(jnp.array([[[1.0], [2.0]], [[3.0], [6.0]]])).tolist()
    [[[3.0]]]
    """
    return _windows(features, window, "average_pool").mean(axis=(-4, -2))


def max_pool(features: Array, window: int = 2) -> Array:
    """Returns the largest value of each `window` x `window` square; ties share the gradient evenly.

    Args:
        features: `[..., H, W, C]`, floating; H and W divisible by `window`.
        window: a positive integer; 1 is the identity.

    Returns:
        `[..., H/window, W/window, C]`, the same dtype.

    Raises:
        AssertionError: at trace time, when the shape does not divide.

    Why not `flax.linen.max_pool`: its gradient is a select-and-scatter, which XLA refuses on GPUs under
    `--xla_gpu_deterministic_ops` (google/flax#4233).

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.array([[[1.0], [2.0]], [[3.0], [6.0]]])).tolist()
    [[[6.0]]]
    """
    windows = _windows(features, window, "max_pool")
    return features if window == 1 else windows.max(axis=(-4, -2))
