"""Two-dimensional convolutions whose gradient is fast on a CPU, for the kernels for which XLA's is slow there."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from sagan_jax.functional.shape_checks import check_arrays, check_that

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below, and left and right of the features."""


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
    smaller than 3x3 is computed as one matrix product for each image, one after the other, so that the patches of one
    image are alive at a time. So is that of larger kernels where the CPU is faster that way: with AMX from 128 channels
    on, with AVX2 alone on large maps from 32 channels on. Programs for other platforms are not affected. Forward mode,
    gradients of gradients and `vmap` work as for any function.

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
    given = int(stride), ((top, bottom), (left, right))
    positions = math.prod(_result_size(features.shape, kernel.shape, *given))
    compute = _convolve if _has_patches(kernel.shape, stride, positions) else _plain
    return compute(features, kernel, *given, precision)


def _has_patches(kernel_shape: tuple[int, ...], stride: int, positions: int) -> bool:
    """Returns whether a CPU computes the gradient of a kernel `[K, L, C, E]` from patches.

    XLA's gradient of a kernel of one or two entries along an axis had 2 to 7 GFLOP/s, 6 to 88 times fewer than a
    product. Which is faster for larger kernels differs between CPUs. `experiments/benchmarks/convolutions.py` measures
    it for 3x3.

    - AVX2 alone: on large maps patches were 0.9 to 5.8 times as fast from 64 channels on. With 32 channels they had 0.5
      to 1.2 times the speed at batch 8, and 1.3 to 2.0 times at batch 32. Elsewhere it was 0.4 to 1.8 times.
    - AMX: measured with one product of the whole batch for each entry, which patches replaced. These products were 1.5
      to 2.8 times as fast with 128 channels or more.
    - AVX-512 and no AMX: such products had 0.3 to 1.2 times the speed.

    Args:
        kernel_shape: K, L, C, E.
        stride: of the convolution.
        positions: H'W' of its result.
    """
    height, width, inputs, outputs = kernel_shape
    narrower, flags = min(inputs, outputs), _cpu_flags()
    if height * width < 9:
        return True
    if "amx_tile" in flags:
        return narrower >= 128
    return (
        "avx2" in flags and "avx512f" not in flags and stride == 1 and narrower >= 32 and narrower * positions >= 2**14
    )


@cache
def _cpu_flags() -> frozenset[str]:
    """Returns what the CPU can do, as Linux tells it for x86; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  no pathlib in this room
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


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
        cpu, default = (partial(function, **fixed) for function in (_multiply_patches, _plain))
        terms.append(lax.platform_dependent(features, by_kernel, cpu=cpu, default=default))
    return result, sum(terms[1:], terms[0])


_convolve.defjvp(_convolve_jvp, symbolic_zeros=True)


def _multiply_patches(
    features: Array, kernel: Array, stride: int, padding: Padding, precision: lax.PrecisionLike
) -> Array:
    """Returns the convolution as a product of patches and the kernel. Its transpose is one product for each image.

    The loop keeps the patches of one image alive, which stay in the cache unless the map is huge. The checkpoint makes
    them again for the transpose instead of storing them. The transpose adds up in float32, or float64 for float64.
    """
    height, width, _, outputs = kernel.shape
    rows, columns = _result_size(features.shape, kernel.shape, stride, padding)
    down, across = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    wide = jnp.promote_types(features.dtype, jnp.float32)
    weights = kernel.astype(wide).reshape(-1, outputs)

    def multiply(images: Array) -> Array:
        padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
        shifted = [
            padded[:, row : row + down : stride, column : column + across : stride]
            for row in range(height)
            for column in range(width)
        ]
        patches = jnp.concatenate(shifted, axis=-1).astype(wide)
        product = lax.dot_general(patches, weights, (((3,), (0,)), ((), ())), precision=precision)
        return product.astype(features.dtype)

    if height * width == 1:
        return multiply(features)  # nothing is copied, so one product for all images is as good
    return lax.map(jax.checkpoint(multiply, prevent_cse=False), features[:, None])[:, 0]


def _result_size(features: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: Padding) -> tuple[int, ...]:
    """Returns H' and W' of the convolution of such shapes."""
    sides = zip(features[1:3], padding, kernel[:2], strict=True)
    return tuple((size + sum(added) - side) // stride + 1 for size, added, side in sides)
