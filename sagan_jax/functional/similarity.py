"""Similarity of two images: PSNR and SSIM, and means inside a mask."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays, check_that

WINDOW_RADIUS, WINDOW_DEVIATION = 5, 1.5
"""Radius and standard deviation of the Gaussian window of the structural similarity, in pixels."""


def masked_mean(values: Array, masks: Array) -> Array:
    """Returns the mean of each image over the pixels that its mask selects, and over the channels.

    Args:
        values: `[B, H, W, C]`, floating.
        masks: `[B, H, W]` bool, True where a pixel counts. Other pixels may hold NaN.

    Returns:
        `[B]`, float32 or wider; 0 for an image whose mask selects nothing.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> masked_mean(jnp.array([[[[1.0], [3.0], [8.0]]]]), jnp.array([[[True, True, False]]])).tolist()
        [2.0]
    """
    check_arrays("masked_mean", values=(values, "floating [B, H, W, C]"), masks=(masks, "bool [B, H, W]"))
    values = _float32(values)
    counted = jnp.where(masks[..., None], values, 0).sum(axis=(1, 2, 3))
    return counted / jnp.maximum(masks.sum(axis=(1, 2)) * values.shape[-1], 1)


def peak_signal_to_noise(squared_error: Array, value_range: float = 2.0) -> Array:
    """Returns the peak signal-to-noise ratio `10 log10(range^2 / squared error)` in decibels; higher is more similar.

    Args:
        squared_error: mean squared errors of any shape, floating; errors below 1e-10 count as 1e-10.
        value_range: the highest possible value of the images minus the lowest.

    Returns:
        The ratios, of the same shape, float32 or wider: at most `10 log10(range^2 / 1e-10)`.

    Examples:
        >>> import jax.numpy as jnp
        >>> peak_signal_to_noise(jnp.array([4.0, 0.04])).round(3).tolist()
        [0.0, 20.0]
    """
    return 10 * jnp.log10(value_range**2 / jnp.maximum(_float32(squared_error), 1e-10))


def structural_similarity(first: Array, second: Array, value_range: float = 1.0) -> Array:
    """Returns the structural similarity (SSIM) of two images around each pixel: 1 where they are equal.

        (2 m n + c1) (2 cov + c2) / ((m^2 + n^2 + c1) (var + var' + c2)),    c1 = (0.01 range)^2,  c2 = (0.03 range)^2

    m and n are the means of the two images under a Gaussian window of 11x11 pixels with deviation 1.5; cov, var and
    var' are their covariance and variances there. Images are mirrored at their edges. The result is the mean over
    channels. The published score of an image leaves out the five outermost pixels on each side, where the window does
    not fit.

    Args:
        first: `[B, H, W, C]`, floating, H and W at least 6. Black must be 0, so shift images in [-1, 1] first.
        second: the shape of `first`, floating.
        value_range: the value of white.

    Returns:
        `[B, H, W]`, in [-1, 1], float32 or wider.

    Raises:
        AssertionError: at trace time, when shapes differ, a dtype is not floating or the images are too small.

    Source: Wang, Bovik, Sheikh and Simoncelli 2004, equation 13 and section III.C.

    Examples:
        >>> import jax.numpy as jnp
        >>> ramp = jnp.linspace(0, 1, 7 * 8).reshape(1, 7, 8, 1)
        >>> structural_similarity(ramp, ramp).mean().round(3).tolist()
        1.0
    """
    axes, smallest = "floating [B, H, W, C]", WINDOW_RADIUS + 1
    sizes = check_arrays("structural_similarity", first=(first, axes), second=(second, axes))
    fits = min(sizes["H"], sizes["W"]) >= smallest
    check_that("structural_similarity", fits, f"H and W of at least {smallest}", first.shape)
    first, second = _float32(first), _float32(second)
    first_mean, second_mean = _windowed(first), _windowed(second)
    first_variance = _windowed(first**2) - first_mean**2
    second_variance = _windowed(second**2) - second_mean**2
    covariance = _windowed(first * second) - first_mean * second_mean
    small, larger = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    agreement = (2 * first_mean * second_mean + small) * (2 * covariance + larger)
    size = (first_mean**2 + second_mean**2 + small) * (first_variance + second_variance + larger)
    return (agreement / size).mean(axis=-1)


def _float32(array: Array) -> Array:
    """Returns the array in float32 or wider: float16 cannot represent large sums or 1e-10."""
    return jnp.asarray(array, jnp.promote_types(jnp.result_type(array), jnp.float32))


def _windowed(images: Array) -> Array:
    """Returns the mean under the Gaussian window around each pixel, `[B, H, W, C]`."""
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
