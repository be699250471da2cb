"""Two-dimensional convolutions with a fast kernel gradient on CPUs, for kernel sizes for which XLA's is slow."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from sagan_jax.functional.shape_checks import check_arrays, check_that

Padding = tuple[tuple[int, int], tuple[int, int]]
"""The number of zeros (above, below) and (left, right) of the features."""


def convolve(
    features: Array,
    kernel: Array,
    *,
    stride: int = 1,
    padding: Padding | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Returns the convolution (cross-correlation, as is usual in deep learning) of the features with a kernel.

        y_ij = sum_kl x_(si+k, sj+l) w_kl

    The result and its derivatives are those of `jax.lax.conv_general_dilated`. Only the gradient with respect to the
    kernel is computed differently, and only on CPUs. For kernels smaller than 3x3 it is one matrix product per image,
    image after image. So only the patches of one image are in memory at a time. Larger kernels use this method where it
    is faster. That is from 128 channels with AMX, and from 32 channels on large feature maps with AVX2 but no AVX-512.
    Other platforms are not affected. Forward mode, higher derivatives and `vmap` work as usual.

    Args:
        features: `[B, H, W, C]`, floating.
        kernel: `[K, L, C, E]`, the dtype of `features`.
        stride: the step along height and width, at least 1.
        padding: the number of zeros (above, below) and (left, right). None pads so that a stride of 1 keeps the size;
            even kernel sizes get one more zero below or on the right.
        precision: of the products, as for `jax.lax.conv_general_dilated`.

    Returns:
        `[B, H', W', E]`, the same dtype. bfloat16 products are summed in float32.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit, the padded features are smaller than the
            kernel, or `stride` is below 1.

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
    """Returns whether a CPU computes the gradient with respect to a kernel `[K, L, C, E]` from patches.

    XLA's gradient for kernels with one or two entries along an axis ran at 2 to 7 GFLOP/s. A matrix product was 6 to 88
    times as fast. For larger kernels the faster method depends on the CPU. `experiments/benchmarks/convolutions.py`
    measures it for 3x3.

    - AVX2 without AVX-512: on large feature maps, patches had 0.9 to 5.8 times XLA's speed from 64 channels. With 32
      channels they had 0.5 to 1.2 times the speed at batch 8, and 1.3 to 2.0 times at batch 32. In all other cases they
      had 0.4 to 1.8 times the speed.
    - AMX: measured with an older method, one product of the whole batch per kernel entry. It had 1.5 to 2.8 times XLA's
      speed with 128 channels or more.
    - AVX-512 without AMX: the older method had 0.3 to 1.2 times XLA's speed.

    Args:
        kernel_shape: K, L, C, E.
        stride: the stride of the convolution.
        positions: H'W', the number of output positions.
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
    """Returns the words in Linux's `/proc/cpuinfo`, which include the flags of x86 CPUs; empty without that file."""
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
    """Returns XLA's convolution. Its derivative with respect to the kernel is customised."""
    return _plain(features, kernel, stride, padding, precision)


def _convolve_jvp(
    stride: int,
    padding: Padding,
    precision: lax.PrecisionLike,
    primals: tuple[Array, Array],
    tangents: tuple[Array | SymbolicZero, Array | SymbolicZero],
) -> tuple[Array, Array | SymbolicZero]:
    """Returns the convolution and its tangent. Operands with a symbolic zero tangent cost nothing."""
    (features, kernel), (by_features, by_kernel) = primals, tangents
    convolution = partial(_convolve, stride=stride, padding=padding, precision=precision)
    result = convolution(features, kernel)
    terms = []
    if not isinstance(by_features, SymbolicZero):
        terms.append(convolution(by_features, kernel))
    if not isinstance(by_kernel, SymbolicZero):
        fixed = {"stride": stride, "padding": padding, "precision": precision}
        # Reverse mode transposes this. Only the branch for the platform is compiled.
        cpu, default = (partial(function, **fixed) for function in (_multiply_patches, _plain))
        terms.append(lax.platform_dependent(features, by_kernel, cpu=cpu, default=default))
    return result, sum(terms[1:], terms[0])


_convolve.defjvp(_convolve_jvp, symbolic_zeros=True)


def _multiply_patches(
    features: Array, kernel: Array, stride: int, padding: Padding, precision: lax.PrecisionLike
) -> Array:
    """Returns the convolution as a product of patches and the kernel. Its transpose is one product per image.

    The loop holds the patches of one image at a time. They fit in the CPU cache unless the feature map is huge.
    `jax.checkpoint` recomputes the patches for the transpose instead of storing them. The transpose accumulates in
    float32, or in float64 for float64.
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
        return multiply(features)  # no patches are copied, so one product for all images is as fast
    return lax.map(jax.checkpoint(multiply, prevent_cse=False), features[:, None])[:, 0]


def _result_size(features: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: Padding) -> tuple[int, ...]:
    """Returns H' and W', the height and width of the convolution of these shapes."""
    sides = zip(features[1:3], padding, kernel[:2], strict=True)
    return tuple((size + sum(added) - side) // stride + 1 for size, added, side in sides)
