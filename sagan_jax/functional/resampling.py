"""Upsampling and pooling of feature maps by integer factors, alone or fused with a 3x3 convolution.

The gradients of the functions without a convolution use no gather, scatter or select.
"""

import jax.numpy as jnp
from jax import Array, lax

from sagan_jax.functional.convolution import convolve
from sagan_jax.functional.shape_checks import Need, check_arrays, check_that


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
    # The gradient of a broadcast is a plain sum. The gradient of `jax.image.resize` is a scatter.
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

    The gradient of `flax.linen.max_pool` is a select-and-scatter, which XLA does not support on GPUs under
    `--xla_gpu_deterministic_ops` (google/flax#4233). The gradient of this function has no such operation.

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


def upsample_convolve(features: Array, kernel: Array, *, precision: lax.PrecisionLike = None) -> Array:
    """Returns the 3x3 convolution of the features upsampled by 2, with a quarter of the operations.

    It equals `convolve(upsample_nearest(features), kernel)`, but never creates the upsampled features. Upsampling by 2
    inserts zeros between the positions and then sums over 2x2 windows. Here the convolution comes before that sum. Most
    of its nine products then have a factor of zero: each position needs only one, two or four of them. So four small
    convolutions of the small map compute all nine products. Each output is the sum of four of their results.

    Args:
        features: `[B, H, W, C]`, floating.
        kernel: `[3, 3, C, E]`, the dtype of `features`.
        precision: of the products, as for `jax.lax.conv_general_dilated`.

    Returns:
        `[B, 2H, 2W, E]`, the same dtype. Sums are in another order than in the two steps.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> ones = jnp.ones((1, 1, 1, 1))  # upsampled, it is a square of four
        >>> upsample_convolve(ones, jnp.arange(9.0).reshape(3, 3, 1, 1))[0, ..., 0].tolist()
        [[24.0, 20.0], [12.0, 8.0]]
    """
    check_arrays("upsample_convolve", one_dtype=True, **_needs(features, kernel))
    check_that("upsample_convolve", kernel.shape[:2] == (3, 3), "a kernel [3, 3, C, E]", kernel.shape)
    batch, height, width, _ = features.shape
    wide = jnp.promote_types(features.dtype, jnp.float32)

    def part(rows: slice, columns: slice) -> Array:
        """Returns the convolution with these kernel entries. Axes with two entries are zero-padded at both ends."""
        entries = kernel[rows, columns]
        vertical, horizontal = (int(side > 1) for side in entries.shape[:2])
        padding = ((vertical, vertical), (horizontal, horizontal))
        # The parts are added in float32 or wider, and rounded once.
        return convolve(features, entries, padding=padding, precision=precision).astype(wide)

    middle, outer = slice(1, 2), slice(0, 3, 2)
    centre, beside, above, corner = part(middle, middle), part(middle, outer), part(outer, middle), part(outer, outer)

    def phase(row: int, column: int) -> Array:
        """Returns the positions (2i + row, 2j + column) of the result."""
        rows, columns = slice(row, row + height), slice(column, column + width)
        return centre + beside[:, :, columns] + above[:, rows] + corner[:, rows, columns]

    squares = jnp.stack([jnp.stack([phase(row, 0), phase(row, 1)], axis=3) for row in (0, 1)], axis=2)
    return squares.reshape(batch, 2 * height, 2 * width, kernel.shape[3]).astype(features.dtype)


def convolve_pool(features: Array, kernel: Array, *, precision: lax.PrecisionLike = None) -> Array:
    """Returns the 2x2 average pooling of a 3x3 convolution, with less than half of the operations.

    It equals `average_pool(convolve(features, kernel))`, but never creates the large feature map between the two. There
    are two exact forms, both with a convolution of stride 2. The first averages the features over all 2x2 windows
    beforehand. The second averages the kernel, which becomes 4x4. The first has 9 products per output and an
    intermediate array; the second has 16 products and no such array. The second is used for fewer than 128 channels,
    where it was faster on a CPU.

    Args:
        features: `[B, H, W, C]`, floating; H and W even.
        kernel: `[3, 3, C, E]`, the dtype of `features`.
        precision: of the products, as for `jax.lax.conv_general_dilated`.

    Returns:
        `[B, H/2, W/2, E]`, the same dtype. Sums are in another order than in the two steps.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit, or H or W is odd.

    Examples:
        >>> import jax.numpy as jnp
        >>> kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)  # the identity, so this is the mean
        >>> convolve_pool(jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 2, 2, 1), kernel).item()
        3.0
    """
    sizes = check_arrays("convolve_pool", one_dtype=True, **_needs(features, kernel))
    check_that("convolve_pool", kernel.shape[:2] == (3, 3), "a kernel [3, 3, C, E]", kernel.shape)
    even = sizes["H"] % 2 == sizes["W"] % 2 == 0
    check_that("convolve_pool", even, "an even height and width", f"features {features.shape}")
    if min(sizes["C"], sizes["E"]) < _NARROWEST_MEANS:
        widened = _mean_of_windows(kernel, axes=(0, 1))
        return convolve(features, widened, stride=2, padding=((1, 1), (1, 1)), precision=precision)
    means = _mean_of_windows(features, axes=(1, 2))
    return convolve(means, kernel, stride=2, padding=((0, 0), (0, 0)), precision=precision)


_NARROWEST_MEANS = 128
"""`convolve_pool` averages the features, not the kernel, if C and E are both at least this large."""


def _needs(features: Array, kernel: Array) -> dict[str, Need]:
    """Returns the specifications of a convolution's arguments for `check_arrays`."""
    return {"features": (features, "floating [B, H, W, C]"), "kernel": (kernel, "floating [K, L, C, E]")}


def _mean_of_windows(array: Array, *, axes: tuple[int, int]) -> Array:
    """Returns the means of all 2x2 windows along two axes, zero-padded by one at both ends: size n becomes n + 1."""
    padded = jnp.pad(array, [(1, 1) if axis in axes else (0, 0) for axis in range(array.ndim)])
    means = padded.astype(jnp.promote_types(array.dtype, jnp.float32))
    for axis in axes:
        size = means.shape[axis]
        means = lax.slice_in_dim(means, 0, size - 1, axis=axis) + lax.slice_in_dim(means, 1, size, axis=axis)
    return (means / 4).astype(array.dtype)


def _windows(function: str, features: Array, window: int) -> Array:
    """Splits `[..., H, W, C]` into windows: `[..., H/w, w, W/w, w, C]`."""
    check_arrays(function, features=(features, "floating [..., H, W, C]"))
    *leading, height, width, channels = features.shape
    fits = int(window) >= 1 and height % window == width % window == 0
    check_that(function, fits, "a window of at least 1 that divides H and W", f"{window} for features {features.shape}")
    return features.reshape(*leading, height // window, window, width // window, window, channels)
