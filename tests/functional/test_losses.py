import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import (
    HINGE,
    LEAST_SQUARES,
    LOGISTIC,
    NON_SATURATING,
    RELATIVISTIC,
    WASSERSTEIN,
    hinge_discriminator,
    hinge_generator,
    least_squares_discriminator,
    least_squares_generator,
    logistic_generator,
    non_saturating_discriminator,
    non_saturating_generator,
    orthogonal_penalty,
    perceptual_distance,
    relativistic_discriminator,
    relativistic_generator,
    wasserstein_discriminator,
    wasserstein_generator,
)

REAL = (-2.0, -0.5, 0.0, 0.75, 1.0, 1.5)
FAKE = (3.0, 0.25, 0.0, -0.5, -1.0, -4.0)


def test_hinge_discriminator_is_what_pencil_gives():
    real, fake = hinge_discriminator(jnp.array(REAL), jnp.array(FAKE))
    np.testing.assert_array_equal(real, [3.0, 1.5, 1.0, 0.25, 0.0, 0.0])
    np.testing.assert_array_equal(fake, [4.0, 1.25, 1.0, 0.5, 0.0, 0.0])


def test_hinge_discriminator_stops_learning_beyond_the_margins():
    gradient = jax.grad(lambda real, fake: sum(jnp.sum(loss) for loss in hinge_discriminator(real, fake)), (0, 1))
    real, fake = gradient(jnp.array([-2.0, 0.75, 1.25, 9.0]), jnp.array([2.0, -0.75, -1.25, -9.0]))
    np.testing.assert_array_equal(real, [-1.0, -1.0, 0.0, 0.0])
    np.testing.assert_array_equal(fake, [1.0, 1.0, 0.0, 0.0])


def test_hinge_generator_is_what_pencil_gives():
    np.testing.assert_array_equal(hinge_generator(jnp.array(FAKE)), [-3.0, -0.25, 0.0, 0.5, 1.0, 4.0])


def test_hinge_generator_has_gradient_minus_one_everywhere():
    gradient = jax.grad(lambda logits: jnp.sum(hinge_generator(logits)))(jnp.array([-200.0, -1.0, 0.0, 1.0, 200.0]))
    np.testing.assert_array_equal(gradient, np.full(5, -1.0))


def test_non_saturating_discriminator_is_the_cross_entropy():
    real, fake = non_saturating_discriminator(jnp.array(REAL), jnp.array(FAKE))
    np.testing.assert_allclose(real, [-math.log(1 / (1 + math.exp(-d))) for d in REAL], rtol=1e-6, atol=0)
    np.testing.assert_allclose(fake, [-math.log(1 - 1 / (1 + math.exp(-d))) for d in FAKE], rtol=1e-6, atol=0)


def test_non_saturating_generator_is_the_cross_entropy_with_the_label_real():
    loss = non_saturating_generator(jnp.array(FAKE))
    np.testing.assert_allclose(loss, [-math.log(1 / (1 + math.exp(-d))) for d in FAKE], rtol=1e-6, atol=0)


def test_non_saturating_losses_do_not_overflow():
    logits = jnp.array([-200.0, 200.0])
    real, fake = non_saturating_discriminator(logits, logits)
    np.testing.assert_array_equal(real, [200.0, 0.0])
    np.testing.assert_array_equal(fake, [0.0, 200.0])
    np.testing.assert_array_equal(non_saturating_generator(logits), [200.0, 0.0])


def test_non_saturating_generator_learns_most_where_it_is_worst():
    gradient = jax.grad(lambda logits: jnp.sum(non_saturating_generator(logits)))(jnp.array([-200.0, 0.0, 200.0]))
    np.testing.assert_allclose(gradient, [-1.0, -0.5, 0.0], rtol=0, atol=1e-6)


def test_wasserstein_discriminator_is_what_pencil_gives():
    real, fake = wasserstein_discriminator(jnp.array(REAL), jnp.array(FAKE))
    np.testing.assert_array_equal(real, [2.0, 0.5, 0.0, -0.75, -1.0, -1.5])
    np.testing.assert_array_equal(fake, list(FAKE))


def test_wasserstein_generator_is_what_pencil_gives():
    np.testing.assert_array_equal(wasserstein_generator(jnp.array(FAKE)), [-3.0, -0.25, 0.0, 0.5, 1.0, 4.0])


def test_wasserstein_generator_undoes_the_discriminators_loss_on_generated_images():
    _, fake = wasserstein_discriminator(jnp.array(REAL), jnp.array(FAKE))
    np.testing.assert_array_equal(wasserstein_generator(jnp.array(FAKE)), -fake)


def test_logistic_generator_undoes_the_cross_entropy_of_generated_images():
    loss = logistic_generator(jnp.array(FAKE))
    np.testing.assert_allclose(loss, [math.log(1 - 1 / (1 + math.exp(-d))) for d in FAKE], rtol=1e-6, atol=0)
    np.testing.assert_array_equal(loss, -non_saturating_discriminator(jnp.array(REAL), jnp.array(FAKE))[1])


def test_least_squares_are_what_pencil_gives():
    real, fake = least_squares_discriminator(jnp.array(REAL), jnp.array(FAKE))
    np.testing.assert_array_equal(real, [4.5, 1.125, 0.5, 0.03125, 0.0, 0.125])
    np.testing.assert_array_equal(fake, [4.5, 0.03125, 0.0, 0.125, 0.5, 8.0])
    np.testing.assert_array_equal(least_squares_generator(jnp.array(FAKE)), [2.0, 0.28125, 0.5, 1.125, 2.0, 12.5])


def test_relativistic_discriminator_ranks_the_images_of_each_pair():
    halves = relativistic_discriminator(jnp.array(REAL), jnp.array(FAKE))
    wanted = [math.log1p(math.exp(fake - real)) for real, fake in zip(REAL, FAKE, strict=True)]
    np.testing.assert_allclose(sum(halves), wanted, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(*halves)


def test_relativistic_generator_wants_the_other_order_and_neither_overflows():
    wanted = [math.log1p(math.exp(real - fake)) for real, fake in zip(REAL, FAKE, strict=True)]
    np.testing.assert_allclose(relativistic_generator(jnp.array(REAL), jnp.array(FAKE)), wanted, rtol=1e-6, atol=0)
    far = jnp.array([-200.0, 200.0])
    np.testing.assert_array_equal(relativistic_generator(far, -far), [0.0, 400.0])
    np.testing.assert_array_equal(sum(relativistic_discriminator(far, -far)), [400.0, 0.0])


def test_relativistic_losses_need_pairs():
    for loss in (RELATIVISTIC.discriminator, RELATIVISTIC.generator):
        with pytest.raises(AssertionError, match=r"relativistic_\w+ needs .*; got real_logits \(3,\) .* \(5,\)"):
            loss(jnp.ones(3), jnp.ones(5))


def test_relativistic_losses_alone_are_paired():
    losses = (HINGE, NON_SATURATING, WASSERSTEIN, LOGISTIC, LEAST_SQUARES, RELATIVISTIC)
    assert [loss.paired for loss in losses] == [False] * 5 + [True]


@pytest.mark.parametrize(("loss", "at_zero"), [(HINGE, 1.0), (NON_SATURATING, math.log(2)), (WASSERSTEIN, 0.0)])
def test_losses_on_real_and_fake_are_equal_at_zero_logits(loss, at_zero):
    real, fake = loss.discriminator(jnp.zeros(3), jnp.zeros(3))
    np.testing.assert_allclose(real, np.full(3, at_zero), rtol=1e-6, atol=0)
    np.testing.assert_allclose(fake, np.full(3, at_zero), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [HINGE, NON_SATURATING, WASSERSTEIN])
def test_discriminator_loss_is_symmetric_in_real_and_generated(loss):
    real, fake = loss.discriminator(jnp.array(REAL), -jnp.array(REAL))
    assert len(set(real.tolist())) > 3
    np.testing.assert_array_equal(real, fake)


@pytest.mark.parametrize("loss", [HINGE, NON_SATURATING, WASSERSTEIN])
def test_loss_gives_one_value_an_example_of_either_batch(loss):
    real, fake = loss.discriminator(jnp.ones(3), jnp.ones(5))
    assert (real.shape, fake.shape, loss.generator(jnp.ones(7)).shape) == ((3,), (5,), (7,))


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator"),
    [
        (HINGE, [[0.5], [1.25]], [-0.25]),
        (NON_SATURATING, [[math.log1p(math.exp(-0.5))], [math.log1p(math.exp(0.25))]], [math.log1p(math.exp(-0.25))]),
        (WASSERSTEIN, [[-0.5], [0.25]], [-0.25]),
        (LOGISTIC, [[math.log1p(math.exp(-0.5))], [math.log1p(math.exp(0.25))]], [-math.log1p(math.exp(0.25))]),
        (LEAST_SQUARES, [[0.125], [0.03125]], [0.28125]),
    ],
)
def test_loss_of_a_name_pairs_the_discriminator_and_generator_of_that_name(loss, discriminator, generator):
    real, fake = jnp.array([0.5]), jnp.array([0.25])
    np.testing.assert_allclose(loss.discriminator(real, fake), discriminator, rtol=1e-6, atol=0)
    np.testing.assert_allclose(loss.generator(fake), generator, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("loss", "name"), [(HINGE, "hinge"), (NON_SATURATING, "non_saturating"), (WASSERSTEIN, "wasserstein")]
)
def test_loss_refuses_integers_by_name_when_traced(loss, name):
    integers, floats = jnp.ones(3, jnp.int32), jnp.ones(5)
    with pytest.raises(AssertionError, match=rf"{name}_discriminator needs .*; got real_logits \(3,\) int32, fake"):
        jax.jit(loss.discriminator)(integers, floats)
    with pytest.raises(AssertionError, match=rf"{name}_discriminator needs .* float32, fake_logits \(3,\) int32"):
        jax.jit(loss.discriminator)(floats, integers)
    with pytest.raises(AssertionError, match=rf"{name}_generator needs floating fake_logits; got .* int32"):
        jax.jit(loss.generator)(integers)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_orthogonal_penalty_refuses_a_kernel_without_columns(shape):
    with pytest.raises(AssertionError, match=r"orthogonal_penalty needs floating kernel \[\.\.\., R, C\]; got kernel"):
        orthogonal_penalty(jnp.ones(shape))


def test_orthogonal_penalty_refuses_integers():
    with pytest.raises(AssertionError, match=r"orthogonal_penalty needs .* got kernel \(2, 3\) int32"):
        orthogonal_penalty(jnp.ones((2, 3), jnp.int32))


def test_orthogonal_penalty_is_the_sum_of_squared_products_of_different_columns():
    kernel = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    columns = kernel.reshape(-1, 5).T
    wanted = sum((one @ other) ** 2 for i, one in enumerate(columns) for j, other in enumerate(columns) if i != j)
    assert float(orthogonal_penalty(jnp.asarray(kernel, jnp.float32))) == pytest.approx(wanted, rel=1e-5)


def test_orthogonal_penalty_of_orthogonal_columns_of_any_length_is_zero():
    columns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 4)))
    assert float(orthogonal_penalty(jnp.asarray(columns * [1, 2, 3, 9], jnp.float32))) < 1e-9


def test_orthogonal_penalty_has_the_exact_gradient():
    matrix = np.random.default_rng(0).normal(size=(6, 4))
    gram = matrix.T @ matrix
    wanted = 4 * matrix @ (gram * (1 - np.eye(4)))
    assert np.allclose(jax.grad(orthogonal_penalty)(jnp.asarray(matrix, jnp.float32)), wanted, rtol=1e-4, atol=1e-4)


LAYERS = [(2, 3, 5, 7), (2, 4, 2, 3)]  # [B, H, W, C] of two layers


def layers(seed):
    numbers = np.random.default_rng(seed)
    return [np.maximum(numbers.normal(size=shape), 0).astype(np.float32) for shape in LAYERS]


def distance_by_loops(first, second):
    """One position at a time, in float64."""
    total = np.zeros(len(first[0]))
    for one, other in zip(first, second, strict=True):
        _, height, width, _ = one.shape
        for image, row, column in np.ndindex(one.shape[:3]):
            ends = [array[image, row, column].astype(np.float64) for array in (one, other)]
            ends = [end / math.sqrt(end @ end + 1e-6) for end in ends]
            total[image] += sum((ends[0] - ends[1]) ** 2) / (height * width)
    return total


def test_perceptual_distance_is_that_of_loops_in_float64():
    found = perceptual_distance(layers(0), layers(1))
    np.testing.assert_allclose(found, distance_by_loops(layers(0), layers(1)), rtol=1e-5)


def test_perceptual_distance_does_not_see_the_length_of_activations():
    first, second = [layer + 1 for layer in layers(0)], layers(1)
    longer = [7 * layer for layer in first]
    np.testing.assert_allclose(perceptual_distance(longer, second), perceptual_distance(first, second), rtol=1e-4)
    assert perceptual_distance(first, longer).max() < 1e-6


def test_perceptual_distance_has_the_gradient_of_differences_in_float64():
    first, second = layers(0), layers(1)
    gradient = jax.grad(lambda *found: perceptual_distance(found, second).sum(), (0, 1))(*first)
    for layer, place in [(0, (0, 2, 4, 1)), (0, (1, 0, 3, 6)), (1, (1, 3, 0, 2))]:
        ends = []
        for step in (1e-5, -1e-5):
            moved = [array.astype(np.float64) for array in first]
            moved[layer][place] += step
            ends.append(distance_by_loops(moved, second).sum())
        assert float(gradient[layer][place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-6)


def test_perceptual_distance_has_a_finite_gradient_where_all_channels_are_zero():
    nothing = [np.zeros(shape, np.float32) for shape in LAYERS]
    for second in (nothing, layers(1)):
        gradient = jax.grad(lambda found, second=second: perceptual_distance(found, second).sum())(nothing)
        assert all(np.isfinite(part).all() for part in gradient)
    np.testing.assert_array_equal(perceptual_distance(nothing, nothing), [0.0, 0.0])


def test_perceptual_distance_of_bfloat16_activations_adds_in_float32():
    first, second = ([jnp.asarray(layer, jnp.bfloat16) for layer in layers(seed)] for seed in (0, 1))
    found = perceptual_distance(first, second)
    assert found.dtype == jnp.float32
    wanted = distance_by_loops(*([np.asarray(layer, np.float64) for layer in batch] for batch in (first, second)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], [], r"as many layers of each batch, at least 1; got \(0, 0\)"),
        (layers(0), layers(1)[:1], r"got \(2, 1\)"),
        (layers(0), [layer[:, :2] for layer in layers(1)], r"second \[B, H, W, C\]; got first \(2, 3, 5, 7\)"),
        ([np.ones((2, 3), np.float32)] * 2, [np.ones((2, 3), np.float32)] * 2, r"got first \(2, 3\)"),
        ([np.ones((2, 3, 5, 7), int)], [np.ones((2, 3, 5, 7), int)], "int"),
    ],
)
def test_perceptual_distance_refuses_layers_that_do_not_fit(first, second, words):
    with pytest.raises(AssertionError, match=f"perceptual_distance needs .*{words}"):
        perceptual_distance(first, second)
