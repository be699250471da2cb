import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import batch_moments, normalize, scale_and_shift, standardize

SHAPE = (2, 3, 5, 7)


def make_features(shape=SHAPE, *, mean=0.0, deviation=1.0, dtype=jnp.float32):
    """Features whose channels differ in mean and deviation."""
    random = np.random.default_rng(0)
    channels = np.arange(1, shape[-1] + 1)
    return jnp.asarray(mean + deviation * channels * random.normal(size=shape), dtype)


def oracle_moments(features):
    """Mean and biased variance of each channel by scalar sums in float64."""
    columns = np.asarray(features, np.float64).reshape(-1, features.shape[-1]).T
    means = [math.fsum(column) / len(column) for column in columns]
    variances = [
        math.fsum((value - mean) ** 2 for value in column) / len(column)
        for column, mean in zip(columns, means, strict=True)
    ]
    return np.array(means), np.array(variances)


# Moments


@pytest.mark.parametrize("shape", [(11, 3), SHAPE])
def test_batch_moments_are_the_moments_of_each_channel(shape):
    features = make_features(shape, mean=3.0)
    expected_mean, expected_variance = oracle_moments(features)
    mean, variance = jax.jit(batch_moments)(features)
    assert mean.shape == variance.shape == (shape[-1],)
    np.testing.assert_allclose(mean, expected_mean, rtol=2e-6, atol=0)
    np.testing.assert_allclose(variance, expected_variance, rtol=2e-6, atol=0)


def test_batch_moments_are_biased():
    _, variance = batch_moments(jnp.array([[0.0], [3.0], [6.0]]))
    assert variance.tolist() == [6.0]  # 18 / 3, where n - 1 would give 9


def test_batch_moments_keep_the_variance_under_a_large_mean():
    features = make_features((4, 5, 11, 2), mean=100.0, deviation=0.01)
    _, variance = jax.jit(batch_moments)(features)
    _, expected = oracle_moments(features)
    np.testing.assert_allclose(variance, expected, rtol=1e-4, atol=0)
    one_pass = jnp.mean(features**2, axis=(0, 1, 2)) - jnp.mean(features, axis=(0, 1, 2)) ** 2
    assert np.abs(one_pass / expected - 1).max() > 0.1


def test_batch_moments_of_equal_parts_over_a_mapped_axis_are_those_of_the_whole():
    features = make_features((3 * 2, 5, 11, 7), mean=1.0) + jnp.arange(6.0).reshape(6, 1, 1, 1)
    parts = features.reshape(3, 2, 5, 11, 7)
    mean, variance = jax.jit(jax.vmap(lambda part: batch_moments(part, axis_name="parts"), axis_name="parts"))(parts)
    expected_mean, expected_variance = oracle_moments(features)
    np.testing.assert_allclose(mean, np.tile(expected_mean, (3, 1)), rtol=2e-6, atol=0)
    np.testing.assert_allclose(variance, np.tile(expected_variance, (3, 1)), rtol=2e-6, atol=0)


def test_batch_moments_of_bfloat16_are_taken_in_float32():
    features = make_features(mean=10.0, deviation=0.25, dtype=jnp.bfloat16)
    mean, variance = batch_moments(features)
    assert mean.dtype == variance.dtype == jnp.float32
    expected_mean, expected_variance = oracle_moments(features)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=0)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-5, atol=0)


# Standardising


def test_standardize_is_its_formula_in_each_channel():
    features, mean, variance = make_features(), jnp.arange(7.0), jnp.arange(1.0, 8.0) ** 2
    standardized = jax.jit(lambda *arguments: standardize(*arguments, epsilon=0.5))(features, mean, variance)
    expected = np.zeros(SHAPE)
    for index in np.ndindex(SHAPE):
        channel = index[-1]
        expected[index] = (float(features[index[0]][index[1:]]) - channel) / math.sqrt((channel + 1) ** 2 + 0.5)
    np.testing.assert_allclose(standardized, expected, rtol=1e-6, atol=1e-6)


def test_standardize_by_its_own_moments_gives_mean_zero_and_variance_one():
    features = make_features(mean=20.0)
    standardized = standardize(features, *batch_moments(features), epsilon=0.0)
    mean, variance = oracle_moments(standardized)
    np.testing.assert_allclose(mean, np.zeros(7), rtol=0, atol=1e-5)
    np.testing.assert_allclose(variance, np.ones(7), rtol=1e-5, atol=0)


def test_standardize_of_bfloat16_computes_in_float32():
    # bfloat16 cannot hold 257. A mean rounded to 256 or 258 would be off by a whole unit.
    standardized = standardize(jnp.array([[256.0]], jnp.bfloat16), jnp.array([257.0]), jnp.array([1.0]), epsilon=0.0)
    assert standardized.dtype == jnp.bfloat16
    assert standardized.tolist() == [[-1.0]]


# Scale and shift


def test_scale_and_shift_is_its_formula_in_each_channel():
    features, scale, shift = make_features(), jnp.arange(2.0, 9.0), jnp.arange(-3.0, 4.0)
    expected = np.asarray(features, np.float64) * np.arange(2, 9) + np.arange(-3, 4)
    np.testing.assert_allclose(jax.jit(scale_and_shift)(features, scale, shift), expected, rtol=1e-6, atol=1e-6)


def test_scale_and_shift_can_differ_by_example():
    features = make_features()
    scale, shift = (jnp.asarray(np.random.default_rng(seed).normal(size=(2, 7)), jnp.float32) for seed in (1, 2))
    result = np.asarray(jax.jit(scale_and_shift)(features, scale, shift))
    for example, channel in np.ndindex(2, 7):
        plane = np.asarray(features[example, ..., channel], np.float64)
        expected = float(scale[example, channel]) * plane + float(shift[example, channel])
        np.testing.assert_allclose(result[example, ..., channel], expected, rtol=1e-6, atol=1e-6)


def test_scale_and_shift_from_a_table_of_one_class_is_the_plain_one():
    features, labels = make_features(), jnp.zeros(2, jnp.int32)
    scales, shifts = jnp.arange(2.0, 9.0)[None], jnp.arange(-3.0, 4.0)[None]
    np.testing.assert_array_equal(
        scale_and_shift(features, scales[labels], shifts[labels]), scale_and_shift(features, scales[0], shifts[0])
    )


def test_scale_and_shift_adds_no_one_to_its_scale():
    np.testing.assert_array_equal(scale_and_shift(make_features(), jnp.zeros(7), jnp.zeros(7)), np.zeros(SHAPE))


def test_scale_and_shift_keeps_the_dtype_of_its_features():
    features = make_features(dtype=jnp.bfloat16)
    assert scale_and_shift(features, jnp.ones(7), jnp.zeros(7)).dtype == jnp.bfloat16


# Refusals


def test_batch_moments_refuse_integers_when_traced():
    with pytest.raises(AssertionError, match=r"needs floating features \[\.\.\., C\]; got features .* uint8"):
        jax.jit(batch_moments)(jnp.ones(SHAPE, jnp.uint8))


@pytest.mark.parametrize(("mean", "variance"), [((5,), (7,)), ((7,), (1,)), ((1, 7), (7,))])
def test_standardize_refuses_moments_that_do_not_fit_when_traced(mean, variance):
    with pytest.raises(AssertionError) as error:
        jax.jit(lambda *arguments: standardize(*arguments, epsilon=1e-5))(
            jnp.ones(SHAPE), jnp.ones(mean), jnp.ones(variance)
        )
    assert f"got features {SHAPE} float32, mean {mean} float32, variance {variance} float32" in str(error.value)


@pytest.mark.parametrize(
    ("scale", "shift"), [((5,), (5,)), ((7,), (2, 7)), ((2, 7), (7,)), ((3, 7), (3, 7)), ((7, 2), (7, 2)), ((1,), (7,))]
)
def test_scale_and_shift_refuses_shapes_that_do_not_fit_when_traced(scale, shift):
    with pytest.raises(AssertionError) as error:
        jax.jit(scale_and_shift)(jnp.ones(SHAPE), jnp.ones(scale), jnp.ones(shift))
    assert f"got features {SHAPE} float32, scale {scale} float32, shift {shift} float32" in str(error.value)


def test_standardize_computes_in_float32_when_everything_is_bfloat16():
    features = jnp.array([[256.0, 3.0]], jnp.bfloat16)
    mean, variance = jnp.array([255.0, 1.0], jnp.bfloat16), jnp.array([0.3, 0.7], jnp.bfloat16)
    wide = [np.asarray(array, np.float64) for array in (features, mean, variance)]
    expected = (wide[0] - wide[1]) / np.sqrt(wide[2] + 1e-3)
    result = np.asarray(standardize(features, mean, variance, epsilon=1e-3), np.float64)
    assert np.abs(result / expected - 1).max() < 2**-8


def test_scale_and_shift_refuses_a_vector():
    with pytest.raises(AssertionError, match=r"features \[B, \.\.\., C\], .*; got features \(3,\)"):
        scale_and_shift(jnp.ones(3), jnp.ones(3), jnp.zeros(3))


# The three in one


@pytest.mark.parametrize("conditional", [False, True])
def test_normalize_is_its_formula_in_each_channel_under_a_large_mean(conditional):
    features = make_features(mean=1000.0)
    numbers = np.random.default_rng(4)
    mean, variance = 1000 + jnp.arange(7.0), jnp.arange(1.0, 8.0) ** 2
    scale, shift = (
        jnp.asarray(numbers.normal(size=(2, 7)), jnp.float32)[slice(None) if conditional else 0] for _ in "ab"
    )
    found = jax.jit(lambda *arguments: normalize(*arguments, epsilon=0.5))(features, mean, variance, scale, shift)
    wide = [np.asarray(array, np.float64) for array in (features, mean, variance, scale, shift)]
    rows = [part.reshape(-1, 1, 1, 7) for part in wide[3:]]
    expected = rows[0] * (wide[0] - wide[1]) / np.sqrt(wide[2] + 0.5) + rows[1]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("argument", range(5))
def test_gradients_of_normalize_are_those_of_its_two_parts_in_float64(argument):
    numbers = np.random.default_rng(5)
    mean, variance = numbers.normal(size=7), numbers.uniform(1, 2, 7)
    arrays = [np.asarray(make_features()), mean, variance, numbers.normal(size=(2, 7)), numbers.normal(size=(2, 7))]
    weights = numbers.normal(size=SHAPE)

    def parts(features, mean, variance, scale, shift):
        return scale_and_shift(standardize(features, mean, variance, epsilon=0.1), scale, shift)

    found = jax.grad(lambda *a: (weights * normalize(*a, epsilon=0.1)).sum(), argument)(*map(jnp.float32, arrays))
    with jax.enable_x64(True):
        expected = jax.grad(lambda *a: (weights * parts(*a)).sum(), argument)(*map(jnp.float64, arrays))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_normalize_of_bfloat16_computes_in_float32_and_rounds_once():
    arguments = [jnp.array([value]) for value in (257.0, 1.0, 3.0, 0.5)]
    found = normalize(jnp.array([[256.0]], jnp.bfloat16), *arguments, epsilon=0.0)
    assert (found.dtype, found.tolist()) == (jnp.bfloat16, [[-2.5]])


def test_normalize_refuses_shapes_that_do_not_fit_when_traced():
    with pytest.raises(AssertionError, match="normalize needs"):
        normalize(jnp.ones(SHAPE), jnp.ones(7), jnp.ones(7), jnp.ones((3, 7)), jnp.ones((3, 7)), epsilon=1e-5)
