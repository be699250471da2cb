"""Depthwise convolution: each channel has its own kernel."""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from sagan_jax.functional.shape_checks import check_arrays, check_that


def depthwise_convolve(features: Array, kernel: Array, *, stride: int = 1) -> Array:
    """Returns the convolution (the cross-correlation) of each channel with its own kernel.

        y_ijc = sum_kl x_(si+k, sj+l, c) w_klc

    The features are zero-padded as by TensorFlow's SAME. The result has ceil(H / s) rows. If the number of padded rows
    is odd, the extra row is below. Columns are treated alike. On a CPU the result is computed as a sum of shifted
    products. On other platforms it is `jax.lax.conv_general_dilated` with one group per channel. That is slow on a CPU:
    EfficientNet-Lite0 took 4.5 to 6 times as long with it (2 cores, batch 16, jax 0.10.2 and 0.12.0.1).

    Args:
        features: `[B, H, W, C]`, floating.
        kernel: `[K, L, 1, C]`, the dtype of `features`.
        stride: the step along height and width, at least 1.

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), C]`, the same dtype. bfloat16 products are summed in float32.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit, or `stride` is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> row = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
        >>> depthwise_convolve(row, jnp.array([1.0, 0.0, 10.0]).reshape(1, 3, 1, 1)).ravel().tolist()
        [20.0, 31.0, 2.0]
    """
    needs = {"features": (features, "floating [B, H, W, C]"), "kernel": (kernel, "floating [K, L, G, C]")}
    sizes = check_arrays("depthwise_convolve", one_dtype=True, **needs)
    check_that(
        "depthwise_convolve",
        sizes["G"] == 1 and stride >= 1,
        "a kernel [K, L, 1, C] and a stride of at least 1",
        f"{kernel.shape} and {stride}",
    )
    forms = {"cpu": _sum_of_shifted, "default": _grouped}
    return lax.platform_dependent(
        features, kernel, **{name: partial(form, stride=int(stride)) for name, form in forms.items()}
    )


def _grouped(features: Array, kernel: Array, stride: int) -> Array:
    """Returns XLA's convolution with one group per channel."""
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        features,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=axes,
        feature_group_count=features.shape[-1],
    )


def _sum_of_shifted(features: Array, kernel: Array, stride: int) -> Array:
    """Returns the result of `_grouped`, from one product per kernel entry. XLA fuses the products into one loop."""
    height, width, _, _ = kernel.shape
    strides = (stride, stride)
    padding = lax.padtype_to_pads(features.shape[1:3], (height, width), strides, "SAME")
    padded = jnp.pad(features, ((0, 0), *padding, (0, 0)))
    rows, columns = (-(-size // stride) for size in features.shape[1:3])
    wide = jnp.promote_types(features.dtype, jnp.float32)
    weights, total = kernel.astype(wide), jnp.zeros((), wide)
    for row in range(height):
        for column in range(width):
            last = row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1
            shifted = padded[:, row : last[0] : stride, column : last[1] : stride].astype(wide)
            total += shifted * weights[row : row + 1, column : column + 1]
    return total.astype(features.dtype)
