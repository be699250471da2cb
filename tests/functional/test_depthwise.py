"""Depthwise convolution: scalar loops in float64, both forms, TensorFlow's padding, and its derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import depthwise_convolve
from sagan_jax.functional.depthwise import _grouped, _sum_of_shifted


def padding(size, window, stride):
    """TensorFlow's SAME: the rows of the result, and the padded rows above."""
    rows = -(-size // stride)
    return rows, max((rows - 1) * stride + window - size, 0) // 2


def by_scalars(features, kernel, stride):
    """Sums in float64, entry by entry."""
    batch, height, width, channels = features.shape
    (rows, above), (columns, left) = (
        padding(size, window, stride) for size, window in zip((height, width), kernel.shape[:2], strict=True)
    )
    result = np.zeros((batch, rows, columns, channels))
    for place in np.ndindex(result.shape):
        image, i, j, channel = place
        for k, m in np.ndindex(kernel.shape[:2]):
            y, x = stride * i + k - above, stride * j + m - left
            if 0 <= y < height and 0 <= x < width:
                result[place] += float(features[image, y, x, channel]) * float(kernel[k, m, 0, channel])
    return result


def drawn(shape, window, dtype=np.float32):
    random = np.random.default_rng(0)
    return random.standard_normal(shape).astype(dtype), random.standard_normal((*window, 1, shape[-1])).astype(dtype)


FORMS = {"chosen": lambda x, k, stride: depthwise_convolve(x, k, stride=stride)}
FORMS |= {"grouped": _grouped, "shifted": _sum_of_shifted}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("sides", "window", "stride"),
    [((6, 5), (3, 3), 1), ((6, 7), (3, 3), 2), ((8, 5), (5, 5), 2), ((4, 9), (2, 5), 3), ((1, 2), (5, 3), 2)],
)
def test_depthwise_convolution_is_that_of_scalar_loops(sides, window, stride, form):
    features, kernel = drawn((2, *sides, 3), window)
    ours = FORMS[form](jnp.asarray(features), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(ours, by_scalars(features, kernel, stride), atol=1e-5)


def test_products_of_bfloat16_are_summed_in_float32():
    features, kernel = (jnp.asarray(array, jnp.bfloat16) for array in drawn((2, 6, 7, 3), (5, 5)))
    wanted = by_scalars(np.asarray(features, float), np.asarray(kernel, float), 1)
    ours = depthwise_convolve(features, kernel)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(ours, float), wanted, rtol=2**-8, atol=1e-5)  # rounded once, at the end


def test_gradients_are_those_of_xlas_convolution():
    features, kernel = drawn((2, 7, 6, 3), (5, 3))
    weights = np.random.default_rng(1).standard_normal((2, 4, 3, 3)).astype(np.float32)

    def loss(convolution, features, kernel):
        return jnp.sum(weights * convolution(features, kernel, stride=2) ** 2)

    ours, plain = (
        jax.grad(partial(loss, form), argnums=(0, 1))(features, kernel) for form in (depthwise_convolve, _grouped)
    )
    for mine, wanted in zip(ours, plain, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("window", "stride"), [((3, 3, 2, 4), 1), ((3, 3, 1, 4), 0)])
def test_kernel_of_several_inputs_and_stride_of_zero_are_refused(window, stride):
    with pytest.raises(AssertionError, match=r"depthwise_convolve needs a kernel \[K, L, 1, C\] and a stride"):
        depthwise_convolve(jnp.zeros((1, 5, 6, 4)), jnp.zeros(window), stride=stride)
