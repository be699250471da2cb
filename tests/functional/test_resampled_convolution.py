"""A 3x3 convolution joined with upsampling or pooling is the two steps, one after the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sagan_jax.functional import average_pool, convolve_pool, upsample_convolve, upsample_nearest

SIZES = {"narrow": (3, 5), "wide": (129, 128), "narrow to wide": (3, 128)}
JOINED = [upsample_convolve, convolve_pool]


def make(channels, dtype=np.float32, batch=2):
    rng = np.random.default_rng(1)
    features, kernel = rng.normal(size=(batch, 4, 6, channels[0])), rng.normal(size=(3, 3, *channels))
    return jnp.asarray(features, dtype), jnp.asarray(kernel / np.sqrt(9 * channels[0]), dtype)


def plain(features, kernel):
    return lax.conv_general_dilated(features, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def in_two_steps(joined, features, kernel):
    """The joined function in two steps, with jax's own convolution."""
    if joined is upsample_convolve:
        return plain(upsample_nearest(features), kernel)
    return average_pool(plain(features, kernel))


def gradients(function, features, kernel):
    return jax.grad(lambda *given: jnp.sum(jnp.sin(function(*given))), argnums=(0, 1))(features, kernel)


def error(found, expected):
    """The largest difference over the largest magnitude, of the worst leaf."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()) for a, b in pairs)


def in_doubles(operation, joined, channels):
    with jax.enable_x64(True):
        given = [np.asarray(array, np.float64) for array in make(channels)]
        return jax.tree.map(np.asarray, operation(partial(in_two_steps, joined), *given))


@pytest.mark.parametrize("channels", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_is_the_two_steps(joined, channels):
    found = jax.jit(joined)(*make(channels))
    assert error(found, in_doubles(lambda function, *given: function(*given), joined, channels)) < 1e-5


@pytest.mark.parametrize("channels", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_has_the_gradients_of_the_two_steps(joined, channels):
    found = jax.jit(partial(gradients, joined))(*make(channels))
    assert error(found, in_doubles(gradients, joined, channels)) < 1e-5


@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_is_exact_in_doubles(joined):
    with jax.enable_x64(True):
        given = make(SIZES["narrow"], np.float64)
        found, expected = (gradients(function, *given) for function in (joined, partial(in_two_steps, joined)))
        assert error(found, expected) < 1e-13


def jacobian_product(function, *given):
    moved = [jnp.cos(7 * array) for array in given]
    return jax.jvp(function, given, tuple(moved))[1]


def gradient_of_gradient(function, *given):
    """The gradient of the squared length of a gradient, as a gradient penalty needs it."""

    def penalty(*arrays):
        return sum(jnp.sum(leaf**2) for leaf in gradients(function, *arrays))

    return jax.grad(penalty, argnums=(0, 1))(*given)


@pytest.mark.parametrize("derivative", [jacobian_product, gradient_of_gradient])
@pytest.mark.parametrize("channels", [SIZES["narrow"], SIZES["wide"]], ids=["narrow", "wide"])
@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_has_the_further_derivatives_of_the_two_steps(joined, channels, derivative):
    found = jax.jit(partial(derivative, joined))(*make(channels))
    assert error(found, in_doubles(derivative, joined, channels)) < 2e-5


@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_may_be_mapped_over_images_and_kernels(joined):
    features, kernel = make(SIZES["narrow"])
    kernels = jnp.stack([kernel, 2 * kernel[::-1]])
    found = jax.vmap(lambda image, one: joined(image[None], one)[0])(features, kernels)
    expected = [in_two_steps(joined, features[number : number + 1], kernels[number])[0] for number in (0, 1)]
    assert error(found, jnp.stack(expected)) < 1e-5


def test_upsample_convolve_is_a_loop_over_the_upsampled_map():
    features, kernel = (np.asarray(array, np.float64) for array in make((2, 3), batch=1))
    large = np.pad(features[0].repeat(2, axis=0).repeat(2, axis=1), ((1, 1), (1, 1), (0, 0)))
    expected = np.full((8, 12, 3), np.nan)
    for y, x, e in np.ndindex(expected.shape):
        expected[y, x, e] = (large[y : y + 3, x : x + 3] * kernel[..., e]).sum()
    np.testing.assert_allclose(upsample_convolve(*make((2, 3), batch=1))[0], expected, rtol=0, atol=1e-5)


def test_convolve_pool_is_a_loop_over_the_squares():
    features, kernel = (np.asarray(array, np.float64) for array in make((2, 3), batch=1))
    padded = np.pad(features[0], ((1, 1), (1, 1), (0, 0)))
    expected = np.full((2, 3, 3), np.nan)
    for y, x, e in np.ndindex(expected.shape):
        square = [(2 * y + dy, 2 * x + dx) for dy in (0, 1) for dx in (0, 1)]
        expected[y, x, e] = np.mean([(padded[i : i + 3, j : j + 3] * kernel[..., e]).sum() for i, j in square])
    np.testing.assert_allclose(convolve_pool(*make((2, 3), batch=1))[0], expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("joined", JOINED)
@pytest.mark.parametrize("channels", [SIZES["narrow"], SIZES["wide"]], ids=["narrow", "wide"])
def test_joined_convolution_stays_near_in_bfloat16(joined, channels):
    given = make(channels, jnp.bfloat16)
    exact = [np.asarray(array, np.float32) for array in given]
    found = joined(*given), *gradients(lambda *given: joined(*given).astype(jnp.float32), *given)
    assert {leaf.dtype for leaf in found} == {jnp.dtype(jnp.bfloat16)}
    step = partial(in_two_steps, joined)
    assert error(found[0].astype(jnp.float32), step(*exact)) < 2**-7
    assert error([leaf.astype(jnp.float32) for leaf in found[1:]], gradients(step, *exact)) < 2**-5


@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_takes_no_images(joined):
    features, kernel = make(SIZES["wide"], batch=0)
    assert len(joined(features, kernel)) == 0
    np.testing.assert_array_equal(gradients(joined, features, kernel)[1], np.zeros(kernel.shape))


@pytest.mark.parametrize("joined", JOINED)
@pytest.mark.parametrize("size", [2, 4])
def test_joined_convolution_needs_a_kernel_of_three_by_three(joined, size):
    with pytest.raises(AssertionError, match=rf"{joined.__name__} needs a kernel \[3, 3, C, E\]; got \({size}, "):
        joined(jnp.ones((2, 4, 6, 3)), jnp.ones((size, 3, 3, 5)))


@pytest.mark.parametrize("joined", JOINED)
def test_joined_convolution_refuses_other_channels(joined):
    with pytest.raises(AssertionError, match=f"{joined.__name__} needs floating features"):
        joined(jnp.ones((2, 4, 6, 3)), jnp.ones((3, 3, 4, 5)))


@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (2, 6, 5, 3)])
def test_convolve_pool_refuses_odd_sizes(shape):
    with pytest.raises(AssertionError, match=r"convolve_pool needs an even height and width; got features \(2, "):
        convolve_pool(jnp.ones(shape), jnp.ones((3, 3, 3, 5)))


def test_upsample_convolve_takes_odd_sizes():
    given = jnp.ones((2, 5, 7, 3)), jnp.ones((3, 3, 3, 5))
    assert error(upsample_convolve(*given), np.asarray(in_two_steps(upsample_convolve, *given))) < 1e-6


@pytest.mark.parametrize(("joined", "share"), [(upsample_convolve, 0.27), (convolve_pool, 0.28)])
def test_joined_convolution_of_wide_features_takes_a_quarter_of_the_operations(joined, share):
    features, kernel = jnp.ones((2, 16, 16, 128)), jnp.ones((3, 3, 128, 128))

    def count(function):
        with jax.default_device(jax.devices("cpu")[0]):  # a GPU's backend does not count
            traced = jax.jit(partial(gradients, function)).trace(features, kernel)
            return traced.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]

    assert count(joined) < share * count(partial(in_two_steps, joined))
