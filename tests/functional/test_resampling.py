import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import average_pool, max_pool, upsample_nearest


def make_features(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def windows(features, window):
    """Yields (y, x, c, the values of that window as a list) of `[H, W, C]`."""
    height, width, channels = features.shape
    for y, x, c in np.ndindex(height // window, width // window, channels):
        yield (
            y,
            x,
            c,
            [float(features[y * window + dy, x * window + dx, c]) for dy in range(window) for dx in range(window)],
        )


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_upsample_nearest_repeats_each_position(factor):
    features = make_features((5, 7, 11))
    upsampled = jax.jit(upsample_nearest, static_argnums=1)(features, factor)
    expected = np.zeros((5 * factor, 7 * factor, 11), np.float32)
    for y, x in np.ndindex(5 * factor, 7 * factor):
        expected[y, x] = np.asarray(features)[y // factor, x // factor]
    np.testing.assert_array_equal(upsampled, expected)


@pytest.mark.parametrize(("window", "shape"), [(1, (5, 7, 11)), (2, (6, 10, 7)), (3, (9, 15, 2))])
def test_average_pool_is_the_mean_of_each_window(window, shape):
    features = make_features(shape)
    pooled = jax.jit(average_pool, static_argnums=1)(features, window)
    expected = np.full((shape[0] // window, shape[1] // window, shape[2]), np.nan)
    for y, x, c, values in windows(np.asarray(features), window):
        expected[y, x, c] = sum(values) / len(values)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("window", "shape"), [(1, (5, 7, 11)), (2, (6, 10, 7)), (3, (9, 15, 2))])
def test_max_pool_is_the_largest_value_of_each_window(window, shape):
    features = make_features(shape) - 5.0  # below zero, so that no padding or initial value can win
    pooled = jax.jit(max_pool, static_argnums=1)(features, window)
    expected = np.full((shape[0] // window, shape[1] // window, shape[2]), np.nan, np.float32)
    for y, x, c, values in windows(np.asarray(features), window):
        expected[y, x, c] = max(values)
    np.testing.assert_array_equal(pooled, expected)


@pytest.mark.parametrize("function", [upsample_nearest, average_pool, max_pool])
def test_resampling_carries_any_leading_axes(function):
    features = make_features((2, 3, 4, 10, 5))
    images = [[function(features[i, j]) for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(function(features), np.array(images))


@pytest.mark.parametrize("function", [upsample_nearest, average_pool, max_pool])
def test_resampling_keeps_the_dtype(function):
    assert jax.eval_shape(function, jnp.ones((2, 6, 3), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("pool", [average_pool, max_pool])
def test_pooling_takes_back_what_upsampling_did(pool):
    features = make_features((5, 7, 3))
    np.testing.assert_array_equal(pool(upsample_nearest(features)), features)


def test_upsample_nearest_is_four_times_the_adjoint_of_average_pool():
    small, large = make_features((3, 5, 7)), make_features((6, 10, 7), seed=1)
    left = np.sum(np.asarray(upsample_nearest(small), np.float64) * np.asarray(large, np.float64))
    right = 4 * np.sum(np.asarray(small, np.float64) * np.asarray(average_pool(large), np.float64))
    assert left == pytest.approx(right, rel=1e-6)


def test_upsample_nearest_has_the_sum_over_each_window_as_its_gradient():
    weights = make_features((6, 10, 7), seed=2)
    gradient = jax.grad(lambda features: jnp.sum(weights * upsample_nearest(features)))(jnp.zeros((3, 5, 7)))
    expected = np.full((3, 5, 7), np.nan)
    for y, x, c, values in windows(np.asarray(weights), 2):
        expected[y, x, c] = sum(values)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-6)


def test_max_pool_sends_its_gradient_to_the_largest_value_alone():
    features = jnp.array([[1.0, 7.0, 5.0, 2.0], [3.0, 4.0, 6.0, 0.0]])[..., None]
    gradient = jax.grad(lambda features: jnp.sum(max_pool(features) * jnp.array([[[2.0], [3.0]]])))(features)
    np.testing.assert_array_equal(gradient[..., 0], [[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])


def test_max_pool_shares_the_gradient_of_a_tie_evenly():
    features = jnp.array([[7.0, 1.0], [7.0, 3.0]])[..., None]
    gradient = jax.grad(lambda features: jnp.sum(max_pool(features)))(features)
    np.testing.assert_array_equal(gradient[..., 0], [[0.5, 0.0], [0.5, 0.0]])


@pytest.mark.parametrize("function", [upsample_nearest, average_pool, max_pool])
def test_resampling_has_a_gradient_without_gather_scatter_or_select(function):
    gradient = jax.jit(jax.grad(lambda features: jnp.sum(function(features) ** 2)))
    text = gradient.lower(jnp.ones((2, 6, 10, 3))).as_text()
    assert "stablehlo." in text
    assert [word for word in ("gather", "scatter", "select") if word in text] == []


@pytest.mark.parametrize("pool", [average_pool, max_pool])
@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (2, 6, 5, 3)])
def test_pooling_refuses_a_size_that_does_not_divide_when_traced(pool, shape):
    with pytest.raises(AssertionError) as error:
        jax.jit(pool)(jnp.ones(shape))
    message = f"{pool.__name__} needs a window of at least 1 that divides H and W; got 2 for features {shape}."
    assert str(error.value) == message


@pytest.mark.parametrize("function", [upsample_nearest, average_pool, max_pool])
def test_resampling_refuses_integers_when_traced(function):
    with pytest.raises(AssertionError, match=f"{function.__name__} needs"):
        jax.jit(function)(jnp.ones((2, 6, 3), jnp.uint8))


@pytest.mark.parametrize("function", [upsample_nearest, average_pool, max_pool])
def test_resampling_refuses_features_without_channels(function):
    with pytest.raises(AssertionError, match=r"\[\.\.\., H, W, C\]; got features \(4, 6\)"):
        function(jnp.ones((4, 6)))


@pytest.mark.parametrize("pool", [average_pool, max_pool])
def test_pooling_refuses_an_empty_window(pool):
    with pytest.raises(AssertionError, match="window of at least 1"):
        pool(jnp.ones((4, 6, 3)), 0)


@pytest.mark.parametrize("factor", [0, -2])
def test_upsample_nearest_refuses_a_factor_below_one(factor):
    with pytest.raises(AssertionError, match=f"upsample_nearest needs a factor of at least 1; got {factor}"):
        upsample_nearest(jnp.ones((4, 6, 3)), factor)
