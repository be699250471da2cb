"""Batch normalisation in three steps: moments, standardising, and a scale and shift that may depend on the class."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays


def batch_moments(features: Array, *, axis_name: str | None = None) -> tuple[Array, Array]:
    """Returns the mean and the variance of each channel over all other axes, and over a mapped axis if given.

    The variance is computed in a second pass, as the mean of squared deviations. E[x^2] - E[x]^2 would lose all
    precision for a large mean. The variance is biased (divided by n, not n - 1), as in TensorFlow.

    With a mapped axis, devices exchange the moments of their parts of the batch: one collective for both moments, and
    one for their gradients.

    Args:
        features: `[..., C]`, floating.
        axis_name: a `pmap`, `shard_map` or `vmap` axis whose equally large parts form one batch. Defaults to no such
            axis.

    Returns:
        Mean and variance, each `[C]`, float32 or wider.

    Raises:
        AssertionError: at trace time, when `features` is not floating or has no axes.

    Examples:
        >>> import jax.numpy as jnp
        >>> [moment.tolist() for moment in batch_moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))]
        [[2.0, 5.0], [1.0, 0.0]]
    """
    check_arrays("batch_moments", features=(features, "floating [..., C]"))
    axes = tuple(range(features.ndim - 1))
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    if axis_name is not None and jax.lax.axis_size(axis_name) > 1:
        return _joint_moments(wide, axis_name)

    def mean_over_batch(values: Array) -> Array:
        mean = jnp.mean(values, axis=axes)
        # An axis of size 1 also gets a `pmean`. Without it XLA would fuse operations differently, and results on one
        # device would change in the last bits.
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)

    mean = mean_over_batch(wide)
    deviations = wide - jnp.expand_dims(mean, axes)
    return mean, mean_over_batch(deviations * deviations)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _joint_moments(features: Array, axis_name: str) -> tuple[Array, Array]:
    """Returns the mean and the variance over the equally large parts of a mapped axis, with one collective.

        mean = mean_d(m_d),    variance = mean_d(v_d + (m_d - mean)^2)

    m_d and v_d are the mean and the variance of part d. For a large m_d, its float32 rounding error would enter the
    differences of the means in first order. So each part also sends the mean of its deviations from the rounded m_d.

    Source: Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances, for
    equal parts. The mean of the deviations: the same authors 1983, Algorithms for computing the sample variance
    ("corrected two-pass").
    """
    axes = tuple(range(features.ndim - 1))
    mean = jnp.mean(features, axis=axes)
    deviations = features - jnp.expand_dims(mean, axes)
    rest = jnp.mean(deviations, axis=axes)
    square = jnp.maximum(jnp.mean(deviations * deviations, axis=axes) - rest * rest, 0)
    own = jnp.stack([mean, rest, square])
    means, rests, squares = jax.lax.all_gather(own, axis_name, axis=1)
    centre = means.mean(0, keepdims=True)
    distances = means - centre + rests
    shift = distances.mean(0, keepdims=True)
    return (centre + shift)[0], (squares + jnp.square(distances - shift)).mean(0)


@_joint_moments.defjvp
def _differentiate_joint_moments(
    axis_name: str, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Returns the moments and their derivatives, whose transpose is one collective too.

        d mean = mean(dx),    d variance = 2 mean((x - mean) dx)

    The derivative of the mean inside the deviations drops out, because the deviations sum to zero.
    """
    (features,), (change,) = primals, tangents
    axes = tuple(range(features.ndim - 1))
    mean, variance = _joint_moments(features, axis_name)
    deviations = features - jnp.expand_dims(mean, axes)
    own = jnp.stack([jnp.mean(change, axis=axes), 2 * jnp.mean(deviations * change, axis=axes)])
    mean_change, variance_change = jax.lax.pmean(own, axis_name)
    return (mean, variance), (mean_change, variance_change)


def standardize(features: Array, mean: Array, variance: Array, *, epsilon: float) -> Array:
    """Returns `(x - mean) / sqrt(variance + epsilon)`, channel by channel.

    Args:
        features: `[..., C]`, floating.
        mean: `[C]`.
        variance: `[C]`, not negative.
        epsilon: added under the root; 1e-5 in the release.

    Returns:
        `[..., C]` in the dtype of `features`, computed in float32 or wider.

    Raises:
        AssertionError: at trace time, when the moments do not have one entry per channel.

    Examples:
        >>> import jax.numpy as jnp
        >>> standardize(jnp.array([[3.0]]), jnp.array([1.0]), jnp.array([4.0]), epsilon=0.0).tolist()
        [[1.0]]
    """
    check_arrays(
        "standardize", features=(features, "floating [..., C]"), mean=(mean, "[C]"), variance=(variance, "[C]")
    )
    axes = tuple(range(features.ndim - 1))
    wide = jnp.promote_types(features.dtype, jnp.float32)
    inverse = jax.lax.rsqrt(variance.astype(wide) + epsilon)
    mean, inverse = jnp.expand_dims(mean.astype(wide), axes), jnp.expand_dims(inverse, axes)
    return ((features - mean) * inverse).astype(features.dtype)


def scale_and_shift(features: Array, scale: Array, shift: Array) -> Array:
    """Returns `scale * x + shift` with one scale and shift per channel, or per example and channel.

    No 1 is added to the scale. If the gain is learned as a deviation from 1, the caller adds the 1. Otherwise the
    features are almost zero at the start of training (google/compare_gan#54).

    Args:
        features: `[B, ..., C]`, floating.
        scale: `[C]`, or `[B, C]` for conditional normalisation.
        shift: the shape of `scale`.

    Returns:
        `[B, ..., C]` in the dtype of `features`.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((2, 3, 1))
        >>> scale_and_shift(x, jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))[..., 0].tolist()
        [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    need = "[C]" if scale.ndim == 1 else "[B, C]"
    check_arrays(
        "scale_and_shift", features=(features, "floating [B, ..., C]"), scale=(scale, need), shift=(shift, need)
    )
    if scale.ndim == 1:
        scale, shift = scale[None], shift[None]
    axes = tuple(range(1, features.ndim - 1))
    return (features * jnp.expand_dims(scale, axes) + jnp.expand_dims(shift, axes)).astype(features.dtype)


def normalize(features: Array, mean: Array, variance: Array, scale: Array, shift: Array, *, epsilon: float) -> Array:
    """Returns `scale * (x - mean) / sqrt(variance + epsilon) + shift`.

    It equals `scale_and_shift` of `standardize`, with the two scales merged into one factor per entry. So the backward
    pass stores no standardised features. The mean is subtracted first, since `x * factor - mean * factor` would lose
    all precision for a large mean.

    Args:
        features: `[B, ..., C]`, floating.
        mean: `[C]`.
        variance: `[C]`, not negative.
        scale: `[C]`, or `[B, C]` for conditional normalisation. No 1 is added to it.
        shift: the shape of `scale`.
        epsilon: added under the root; 1e-5 in the release.

    Returns:
        `[B, ..., C]` in the dtype of `features`, computed in float32 or wider.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> mean, variance, scale, shift = (jnp.array([value]) for value in (1.0, 4.0, 10.0, 3.0))
        >>> normalize(jnp.array([[5.0]]), mean, variance, scale, shift, epsilon=0.0).tolist()
        [[23.0]]
    """
    need = "[C]" if scale.ndim == 1 else "[B, C]"
    check_arrays(
        "normalize",
        features=(features, "floating [B, ..., C]"),
        mean=(mean, "[C]"),
        variance=(variance, "[C]"),
        scale=(scale, need),
        shift=(shift, need),
    )
    wide = jnp.promote_types(features.dtype, jnp.float32)
    inverse = jax.lax.rsqrt(variance.astype(wide) + epsilon)
    factor = scale.astype(wide) * (inverse if scale.ndim == 1 else inverse[None])
    if scale.ndim == 1:
        factor, shift = factor[None], shift[None]
    axes = tuple(range(1, features.ndim - 1))
    deviations = features.astype(wide) - jnp.expand_dims(mean.astype(wide), tuple(range(features.ndim - 1)))
    return (deviations * jnp.expand_dims(factor, axes) + jnp.expand_dims(shift, axes)).astype(features.dtype)
