"""The step of the probe of reach, and its score."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.data.quartets import draw_quartets
from sagan_jax.data.synthetic import Pairs
from sagan_jax.training import reach
from sagan_jax.training.reach import ReachTask
from support.assertions import assert_near

SIZE, RATE = 20, 0.3


class Colours(nn.Module):
    """A logit from sums of the colours and of their products: a sum over the parts, wherever they are."""

    @nn.compact
    def __call__(self, images):
        weights = self.param("weights", nn.initializers.normal(0.01), (6,))
        pixels = (images + 1) / 2
        return jnp.concatenate([pixels, pixels[..., ::-1] * pixels], axis=-1).sum(axis=(1, 2)) @ weights


@pytest.fixture(scope="module")
def images():
    return draw_quartets(Pairs(forms=1, size=6), 7, SIZE, (3, 9), np.random.default_rng(0)).images


def test_step_follows_the_gradient_of_the_cross_entropy():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, SIZE, SIZE, 3), np.uint8)  # no quartets: halves differ
    task = ReachTask(Colours(), optax.sgd(RATE))
    state = reach.initial_state(task, 5, SIZE)
    after, metrics = reach.step(task, state, images)
    weights = np.asarray(state.params["weights"], np.float64)
    loss, gradient = 0.0, np.zeros(6)
    for image, label in zip(images.reshape(-1, SIZE, SIZE, 3), 7 * [1, 1, 0, 0], strict=True):
        pixels = image / 255.0
        inputs = np.concatenate([pixels, pixels[..., ::-1] * pixels], axis=-1).sum(axis=(0, 1))
        chance = 1 / (1 + np.exp(-inputs @ weights))
        loss -= np.log(chance if label else 1 - chance) / 28
        gradient += (chance - label) * inputs / 28
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert_near(after.params["weights"], weights - RATE * gradient, 1e-4)


def test_sum_over_parts_gains_nothing_from_a_constant(images):
    task = ReachTask(Colours(), optax.sgd(RATE))
    still = reach.initial_state(task, 5, SIZE).replace(params={"weights": jnp.zeros(6)})
    after, metrics = reach.step(task, still, images)
    assert np.abs(after.params["weights"]).max() < 1e-5
    assert metrics["loss"] == pytest.approx(np.log(2))
    assert metrics["accuracy"] == 0.5


def test_sum_over_parts_wins_half_of_the_comparisons_whatever_its_threshold_tells():
    random = np.random.default_rng(0)
    values = np.array([0, 0, 0, 1, 1, 1])  # a function that counts three of six hues
    one = random.integers(0, 6, 5000)
    other = (one + random.integers(1, 6, 5000)) % 6
    logits = values[np.stack([[one, one], [other, other], [one, other], [other, one]])].sum(axis=1).T
    right = np.asarray(reach.comparisons(jnp.asarray(logits, jnp.float32)))
    assert (right.sum(axis=1) == 1).all()
    assert ((logits > 1.5) == [True, True, False, False]).mean() > 0.6


def test_initial_state_follows_the_seed():
    task = ReachTask(Colours(), optax.adam(RATE))
    one, again, other = (reach.initial_state(task, seed, SIZE).params["weights"] for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).all()
    assert jax.tree.leaves(reach.initial_state(task, 1, SIZE).optimizer)
