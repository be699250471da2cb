"""Batch normalisation in three steps: moments, standardising, and a scale and shift that may depend on the class."""

import chex
import jax
import jax.numpy as jnp
from jax import Array


def batch_moments(features: Array, *, axis_name: str | None = None) -> tuple[Array, Array]:
    """Returns the mean and the variance of each channel over every other axis, and over a mapped axis if named.

    Two passes: the variance is the mean of squared distances from the mean, not E[x^2] - E[x]^2, which loses every
    digit when the mean is large. It is biased (divided by n, not n - 1), as TensorFlow's is.

    Args:
        features: `[..., C]`, floating.
        axis_name: a `pmap`, `shard_map` or `vmap` axis whose equal parts make one batch together.

    Returns:
        Mean and variance, each `[C]`, float32 or wider.

    Raises:
        AssertionError: at trace time, when `features` is not floating.

    >>> import jax.numpy as jnp
    >>> [moment.tolist() for moment in batch_moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))]
    [[2.0, 5.0], [1.0, 0.0]]
    """
    chex.assert_type(features, float, custom_message=f"batch_moments needs floating features; got {features.dtype}.")
    axes = tuple(range(features.ndim - 1))
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))

    def mean_over_batch(values: Array) -> Array:
        mean = jnp.mean(values, axis=axes)
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)

    mean = mean_over_batch(wide)
    deviations = wide - jnp.expand_dims(mean, axes)
    return mean, mean_over_batch(deviations * deviations)


def standardize(features: Array, mean: Array, variance: Array, *, epsilon: float) -> Array:
    """Returns `(x - mean) / sqrt(variance + epsilon)`, channel by channel.

    Args:
        features: `[..., C]`, floating.
        mean: `[C]`.
        variance: `[C]`, not negative.
        epsilon: added under the root; the release has 1e-5.

    Returns:
        `[..., C]` in the dtype of `features`, computed in float32 or wider.

    Raises:
        AssertionError: at trace time, when the moments do not have one entry a channel.

    >>> import jax.numpy as jnp
    >>> standardize(jnp.array([[3.0]]), jnp.array([1.0]), jnp.array([4.0]), epsilon=0.0).tolist()
    [[1.0]]
    """
    message = (
        f"standardize needs features [..., C] and moments [C]; "
        f"got {features.shape}, mean {mean.shape} and variance {variance.shape}."
    )
    chex.assert_type(features, float, custom_message=message)
    chex.assert_shape([mean, variance], (features.shape[-1],), custom_message=message)
    axes = tuple(range(features.ndim - 1))
    wide = jnp.promote_types(features.dtype, jnp.float32)
    inverse = jax.lax.rsqrt(variance.astype(wide) + epsilon)
    mean, inverse = jnp.expand_dims(mean.astype(wide), axes), jnp.expand_dims(inverse, axes)
    return ((features - mean) * inverse).astype(features.dtype)


def scale_and_shift(features: Array, scale: Array, shift: Array) -> Array:
    """Returns `scale * x + shift` with one scale and shift a channel, or one a channel and example.

    The scale is used as it is: a gain that is learned as a deviation needs its `1 +` from the caller. Leaving that
    out multiplies the features by almost zero at the start (google/compare_gan#54).

    Args:
        features: `[B, ..., C]`, floating.
        scale: `[C]`, or `[B, C]` for conditional normalisation.
        shift: the shape of `scale`.

    Returns:
        `[B, ..., C]` in the dtype of `features`.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((2, 3, 1))
    >>> scale_and_shift(x, jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))[..., 0].tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    chex.assert_scalar_non_negative(
        features.ndim - 2, custom_message=f"scale_and_shift needs features [B, ..., C]; got {features.shape}."
    )
    batch, channels = features.shape[0], features.shape[-1]
    expected = (channels,) if scale.ndim == 1 else (batch, channels)
    message = (
        f"scale_and_shift needs features [B, ..., C] with scale and shift [C] or [B, C]; "
        f"got {features.shape}, scale {scale.shape} and shift {shift.shape}."
    )
    chex.assert_type(features, float, custom_message=message)
    chex.assert_shape([scale, shift], expected, custom_message=message)
    if scale.ndim == 1:
        scale, shift = scale[None], shift[None]
    axes = tuple(range(1, features.ndim - 1))
    return (features * jnp.expand_dims(scale, axes) + jnp.expand_dims(shift, axes)).astype(features.dtype)
