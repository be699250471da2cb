"""Two-dimensional convolutions whose gradient is fast on a CPU, for the kernels for which XLA's is slow there."""

import os
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from sagan_jax.functional.shape_checks import check_arrays, check_that

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below, and left and right of the features."""

_NARROWEST = 128
"""Fewer channels than this, on either side, and XLA's own weight gradient of a 3x3 convolution is the faster one."""

_SWITCH = "SAGAN_JAX_WIDE_PRODUCTS"


def convolve(
    features: Array,
    kernel: Array,
    *,
    stride: int = 1,
    padding: Padding | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Returns the convolution (in truth the cross-correlation, as everywhere in deep learning) of the features.

        y_ij = sum_kl x_(si+k, sj+l) w_kl

    It is `jax.lax.conv_general_dilated`, and so are its derivatives, but for one: on a CPU, the gradient of kernels
    smaller than 3x3 is computed as one matrix product for each entry kl, one after the other, so that one shifted copy
    of the features is alive at a time. On a CPU with AMX so is that of larger kernels with 128 channels or more.
    `SAGAN_JAX_WIDE_PRODUCTS`, 1 or 0, says for these whether it is, on any CPU. It is read when a function is traced.
    Programs for other platforms are not affected. Forward mode, gradients of gradients and `vmap` work as for any
    function.

    Args:
        features: `[B, H, W, C]`, floating.
        kernel: `[K, L, C, E]`, the dtype of `features`.
        stride: the step along height and width, at least 1.
        padding: zeros above and below, and left and right. None pads so that a stride of 1 keeps the size, with one
            more zero below and on the right when a side of the kernel is even.
        precision: of the products, as for `jax.lax.conv_general_dilated`.

    Returns:
        `[B, H', W', E]`, the same dtype. bfloat16 products are summed in float32.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit, or the padded features are smaller than the
            kernel.

    Examples:
        >>> import jax.numpy as jnp
        >>> row = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
        >>> convolve(row, jnp.array([1.0, 0.0, 10.0]).reshape(1, 3, 1, 1)).ravel().tolist()
        [20.0, 31.0, 2.0]
    """
    needs = {"features": (features, "floating [B, H, W, C]"), "kernel": (kernel, "floating [K, L, C, E]")}
    sizes = check_arrays("convolve", one_dtype=True, **needs)
    if padding is None:
        (top, bottom), (left, right) = (((sizes[side] - 1) // 2, sizes[side] // 2) for side in "KL")
    else:
        (top, bottom), (left, right) = padding
    fits = sizes["H"] + top + bottom >= sizes["K"] and sizes["W"] + left + right >= sizes["L"] and stride >= 1
    needed = "a stride of at least 1 and padded features at least as large as the kernel"
    check_that("convolve", fits, needed, f"stride {stride}, features {features.shape} and kernel {kernel.shape}")
    compute = _convolve if _by_products(kernel.shape) else _plain
    return compute(features, kernel, int(stride), ((top, bottom), (left, right)), precision)


def _by_products(kernel_shape: tuple[int, ...]) -> bool:
    """Returns whether a CPU computes the gradient of a kernel `[K, L, C, E]` as K*L products.

    For a 1x1 kernel one product had 1.0 to 2.7 times the speed of XLA's gradient. That of a padded kernel of one or two
    positions along an axis left XLA's fast path: 3 GFLOP/s instead of 30 to 260. Which is faster for larger kernels
    differs between CPUs. With 128 channels or more on both sides, products were 1.5 to 2.8 times as fast on one with
    AMX, and had 0.3 to 1.2 times the speed on one without. With fewer channels they are slower on both.
    `experiments/benchmarks/convolutions.py` measures 3x3 kernels.
    """
    height, width, inputs, outputs = kernel_shape
    return height * width < 9 or (min(inputs, outputs) >= _NARROWEST and _wide_by_products())


def _wide_by_products() -> bool:
    """Returns whether wide kernels of 3x3 and more have products, as the environment or else the CPU says."""
    asked = os.environ.get(_SWITCH, "")
    check_that("convolve", asked in ("", "0", "1"), f"{_SWITCH} to be 0, 1 or not set", repr(asked))
    return asked == "1" if asked else _has_amx()


@cache
def _has_amx() -> bool:
    """Returns whether the CPU multiplies matrices by tiles, as Linux tells; False where there is no Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  no pathlib in this room
            return "amx_tile" in file.read().split()
    except OSError:
        return False


def _plain(features: Array, kernel: Array, stride: int, padding: Padding, precision: lax.PrecisionLike) -> Array:
    """Returns XLA's convolution."""
    axes = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return lax.conv_general_dilated(features, kernel, strides, padding, dimension_numbers=axes, precision=precision)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(features: Array, kernel: Array, stride: int, padding: Padding, precision: lax.PrecisionLike) -> Array:
    """Returns XLA's convolution; its derivative by the kernel is a function of its own."""
    return _plain(features, kernel, stride, padding, precision)


def _convolve_jvp(
    stride: int,
    padding: Padding,
    precision: lax.PrecisionLike,
    primals: tuple[Array, Array],
    tangents: tuple[Array | SymbolicZero, Array | SymbolicZero],
) -> tuple[Array, Array | SymbolicZero]:
    """Returns the convolution and its tangent; what has no tangent costs nothing."""
    (features, kernel), (by_features, by_kernel) = primals, tangents
    convolution = partial(_convolve, stride=stride, padding=padding, precision=precision)
    result = convolution(features, kernel)
    terms = []
    if not isinstance(by_features, SymbolicZero):
        terms.append(convolution(by_features, kernel))
    if not isinstance(by_kernel, SymbolicZero):
        fixed = {"stride": stride, "padding": padding, "precision": precision}
        # Reverse mode transposes this; only the branch of the platform is compiled.
        cpu, default = (partial(function, **fixed) for function in (_sum_of_products, _plain))
        terms.append(lax.platform_dependent(features, by_kernel, cpu=cpu, default=default))
    return result, sum(terms[1:], terms[0])


_convolve.defjvp(_convolve_jvp, symbolic_zeros=True)


def _sum_of_products(
    features: Array, kernel: Array, stride: int, padding: Padding, precision: lax.PrecisionLike
) -> Array:
    """Returns the convolution as a sum over the entries of the kernel. Its transpose is a product for each entry.

    The loop keeps one shifted copy of the features alive, where XLA would schedule all of them first. The checkpoint
    makes the transpose shift again instead of storing all copies.
    """
    padded = jnp.pad(features, ((0, 0), *padding, (0, 0)))
    height, width, inputs, outputs = kernel.shape
    batch, *spatial, _ = padded.shape
    rows, columns = ((size - side) // stride + 1 for size, side in zip(spatial, (height, width), strict=True))
    window = (batch, (rows - 1) * stride + 1, (columns - 1) * stride + 1, inputs)
    wide = _wide(features.dtype)

    @partial(jax.checkpoint, prevent_cse=False)
    def add(total: Array, entry: tuple[Array, Array, Array]) -> tuple[Array, None]:
        row, column, weights = entry
        zero = jnp.zeros_like(row)
        shifted = lax.dynamic_slice(padded, (zero, row, column, zero), window)[:, ::stride, ::stride]
        contracted = (((3,), (0,)), ((), ()))
        product = lax.dot_general(shifted, weights, contracted, precision=precision, preferred_element_type=wide)
        return total + product, None

    entries = jnp.repeat(jnp.arange(height), width), jnp.tile(jnp.arange(width), height)
    nothing = jnp.zeros((batch, rows, columns, outputs), wide)
    total, _ = lax.scan(add, nothing, (*entries, kernel.reshape(-1, inputs, outputs)))
    return total.astype(features.dtype)


def _wide(dtype: DTypeLike) -> jnp.dtype:
    """Returns the dtype in which products are summed: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)
