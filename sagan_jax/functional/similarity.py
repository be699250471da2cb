"""How far one image is from another: of the whole, or within a part of it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

WINDOW_RADIUS, WINDOW_DEVIATION = 5, 1.5
"""Of the Gaussian window that structural similarity is measured through, in pixels."""


def mean_within(values: Array, masks: Array) -> Array:
    """Returns the mean over a part of each image.

    Args:
        values: `[B, H, W, C]`, floating.
        masks: `[B, H, W]` bool, True where a pixel counts.

    Returns:
        `[B]`; 0 where nothing counts.

    Raises:
        AssertionError: at trace time, when the shapes do not fit or a dtype is another.

    >>> import jax.numpy as jnp
    >>> mean_within(jnp.array([[[[1.0], [3.0], [8.0]]]]), jnp.array([[[True, True, False]]])).tolist()
    [2.0]
    """
    message = (
        f"mean_within needs floating values [B, H, W, C] and bool masks [B, H, W]; got {values.shape} {values.dtype} "
        f"and {masks.shape} {masks.dtype}."
    )
    chex.assert_rank(values, 4, custom_message=message)
    chex.assert_type(values, float, custom_message=message)
    chex.assert_type(masks, bool, custom_message=message)
    chex.assert_shape(masks, values.shape[:3], custom_message=message)
    counted = jnp.where(masks[..., None], values, 0).sum(axis=(1, 2, 3))
    return counted / jnp.maximum(masks.sum(axis=(1, 2)) * values.shape[-1], 1)


def peak_signal_to_noise(squared_error: Array, value_range: float = 2.0) -> Array:
    """Returns the peak signal-to-noise ratio `10 log10(range^2 / squared error)` in decibels; more is nearer.

    Args:
        squared_error: mean squared errors of any shape, floating; below 1e-10 they count as that.
        value_range: the highest value of the images less the lowest.

    Returns:
        The ratios, of the same shape.

    >>> import jax.numpy as jnp
    >>> peak_signal_to_noise(jnp.array([4.0, 0.04])).round(3).tolist()
    [0.0, 20.0]
    """
    return 10 * jnp.log10(value_range**2 / jnp.maximum(squared_error, 1e-10))


def structural_similarity(first: Array, second: Array, value_range: float = 1.0) -> Array:
    """Returns where two images have the same structure: 1 where their surroundings agree, 0 where they share nothing.

        (2 m n + c1) (2 cov + c2) / ((m^2 + n^2 + c1) (var + var' + c2)),    c1 = (0.01 range)^2,  c2 = (0.03 range)^2

    m and n are the means of the two under a Gaussian window of 11x11 pixels and deviation 1.5, cov and var their
    moments there; beyond its edge an image is its own mirror. In the mean over channels. The score of an image leaves
    out the five outermost pixels on each side, where the window does not fit.

    Args:
        first: `[B, H, W, C]`, floating, black is 0: images in [-1, 1] are to be moved first. H and W at least 6.
        second: of the same shape and dtype.
        value_range: what white is.

    Returns:
        `[B, H, W]`, in [-1, 1].

    Raises:
        AssertionError: at trace time, when shapes or dtypes differ, or the images are too small.

    Source: Wang, Bovik, Sheikh and Simoncelli 2004, equation 13 and section III.C.

    >>> import jax.numpy as jnp
    >>> ramp = jnp.linspace(0, 1, 7 * 8).reshape(1, 7, 8, 1)
    >>> structural_similarity(ramp, ramp).mean().round(3).tolist()
    1.0
    """
    message = (
        f"structural_similarity needs two floating [B, H, W, C] of one shape with H and W of at least "
        f"{WINDOW_RADIUS + 1}; got {first.shape} {first.dtype} and {second.shape} {second.dtype}."
    )
    chex.assert_rank(first, 4, custom_message=message)
    chex.assert_type([first, second], float, custom_message=message)
    chex.assert_equal_shape([first, second], custom_message=message)
    chex.assert_scalar_positive(min(first.shape[1:3]) - WINDOW_RADIUS, custom_message=message)
    first_mean, second_mean = _windowed(first), _windowed(second)
    first_variance = _windowed(first**2) - first_mean**2
    second_variance = _windowed(second**2) - second_mean**2
    covariance = _windowed(first * second) - first_mean * second_mean
    small, larger = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    agreement = (2 * first_mean * second_mean + small) * (2 * covariance + larger)
    size = (first_mean**2 + second_mean**2 + small) * (first_variance + second_variance + larger)
    return (agreement / size).mean(axis=-1)


def _windowed(images: Array) -> Array:
    """Returns the means under the window around each pixel, of the same shape."""
    offsets = np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / WINDOW_DEVIATION) ** 2)
    for axis in (1, 2):
        length = images.shape[axis]
        edges = [(WINDOW_RADIUS, WINDOW_RADIUS) if axis == other else (0, 0) for other in range(images.ndim)]
        padded = jnp.pad(images, edges, mode="symmetric")
        shifted = (
            weight * jax.lax.slice_in_dim(padded, start, start + length, axis=axis)
            for start, weight in enumerate(weights / weights.sum())
        )
        images = sum(shifted, start=jnp.zeros_like(images))
    return images
