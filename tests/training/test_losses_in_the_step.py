"""Paired losses, gradient penalties and flips in the step, against formulas written out in float64.

D is the hyperbolic tangent of a weighted sum of pixels, with weights for each class. G draws one image, whatever the
latent. So the gradients of a step, including those of second order, are formulas of one line.
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.functional import HINGE, LEAST_SQUARES, RELATIVISTIC
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step
from sagan_jax.training.optimizers import Optimizers
from support.devices import several_devices

UPDATES, ROWS, SHAPE, CLASSES = 2, 8, (3, 4, 2), 5
RATES = Optimizers(0.25, 0.125)
R1, R2 = 0.5, 0.75


class OneImage(nn.Module):
    """Draws the image of its parameters. The class decides its sign."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, latents, labels, *, train):
        image = self.param("image", nn.initializers.normal(0.5), SHAPE)
        return jnp.broadcast_to(image, (len(latents), *SHAPE)) * jnp.where(labels % 2, 1.0, -1.0)[:, None, None, None]


class WeightedPixels(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, labels, *, train):
        weights = self.param("weights", nn.initializers.normal(0.3), (CLASSES, *SHAPE))
        return jnp.tanh((images * weights[labels]).sum((1, 2, 3)))


TASK = AdversarialTask(
    OneImage(),
    WeightedPixels(),
    Optimizers(*map(optax.sgd, RATES)),
    latent_size=6,
    num_classes=CLASSES,
    loss=RELATIVISTIC,
    spectral_norm="none",
    r1=R1,
    r2=R2,
)


@pytest.fixture(scope="module")
def state():
    return initial_state(TASK, 3, SHAPE)


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(12)
    images = numbers.uniform(-1, 1, (UPDATES, ROWS, *SHAPE)).astype(np.float32)
    return Batch(images, numbers.integers(0, CLASSES, (UPDATES, ROWS)).astype(np.int32))


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def drawn(image, labels):
    return image * np.where(labels % 2, 1.0, -1.0)[:, None, None, None]


def scores(weights, images, labels):
    return np.tanh((images * weights[labels]).sum((1, 2, 3)))


def weighted_sum(rows, labels):
    """Returns the sum of the rows of each class, divided by the number of all rows, `[classes, H, W, C]`."""
    total = np.zeros((CLASSES, *SHAPE))
    np.add.at(total, labels, rows)
    return total / len(rows)


def column(values):
    return values[:, None, None, None]


def penalty_gradient(weights, images, labels):
    """The gradient of the mean of `((1 - t^2) |w|)^2` with respect to the weights w. The score is t."""
    t, own = scores(weights, images, labels), weights[labels]
    slope = 1 - t**2
    squared = (own**2).sum((1, 2, 3))
    return weighted_sum(column(2 * slope**2) * own - column(4 * t * slope**2 * squared) * images, labels)


def penalty(weights, images, labels):
    return np.mean((1 - scores(weights, images, labels) ** 2) ** 2 * (weights[labels] ** 2).sum((1, 2, 3)))


def by_hand(state, batch, r1=R1, r2=R2):
    """Returns D's weights and G's image after a step with paired losses, and D's last metrics."""
    weights = np.asarray(state.discriminator.params["weights"], np.float64)
    image = np.asarray(state.generator.params["image"], np.float64)
    for images, labels in zip(np.float64(batch.images), batch.labels, strict=True):
        fakes = drawn(image, labels)
        real, fake = (scores(weights, each, labels) for each in (images, fakes))
        pull = column(sigmoid(fake - real))
        gradient = weighted_sum(pull * (column(1 - fake**2) * fakes - column(1 - real**2) * images), labels)
        metrics = {
            "loss": np.log1p(np.exp(fake - real)).mean(),
            "r1": penalty(weights, images, labels),
            "r2": penalty(weights, fakes, labels),
        }
        gradient += r1 / 2 * penalty_gradient(weights, images, labels)
        gradient += r2 / 2 * penalty_gradient(weights, fakes, labels)
        weights = weights - RATES.discriminator * gradient
    real, fake = scores(weights, images, labels), scores(weights, drawn(image, labels), labels)
    slope = column(-sigmoid(real - fake) * (1 - fake**2)) * weights[labels]
    slope = (drawn(1.0, labels) * slope).mean(0)
    metrics["generator"] = np.log1p(np.exp(real - fake)).mean()
    return weights, image - RATES.generator * slope, metrics


def assert_is(after, wanted):
    state, found = after
    weights, image, metrics = wanted
    np.testing.assert_allclose(state.discriminator.params["weights"], weights, rtol=0, atol=2e-6)
    np.testing.assert_allclose(state.generator.params["image"], image, rtol=0, atol=2e-6)
    for name, value in metrics.items():
        key = "generator/loss" if name == "generator" else f"discriminator/{name}"
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "fields", [{}, {"accumulation_steps": 4}, {"shared_draws": True}], ids=["plain", "accumulated", "shared draws"]
)
def test_step_with_pairs_and_penalties_is_the_formula(state, batch, fields):
    task = dataclasses.replace(TASK, **fields)
    assert_is(jax.jit(partial(step, task))(state, batch), by_hand(state, batch))


@pytest.mark.parametrize("driver", ["pmap", "shard_map"])
def test_step_with_pairs_and_penalties_on_two_devices_is_the_formula(state, batch, driver):
    parallel = ParallelStep(partial(step, TASK), driver=driver, devices=several_devices(2))
    assert_is(parallel(parallel.replicate(state), batch), by_hand(state, batch))


def test_each_penalty_has_its_own_strength(state, batch):
    task = dataclasses.replace(TASK, r1=0.0)
    weights, image, metrics = by_hand(state, batch, r1=0.0)
    after, found = jax.jit(partial(step, task))(state, batch)
    assert_is((after, found), (weights, image, {name: metrics[name] for name in ("loss", "r2", "generator")}))
    assert "discriminator/r1" not in found


def test_penalty_goes_with_a_loss_that_draws_its_own_classes(state, batch):
    """On real images the penalty does not depend on the drawn classes, so it is the difference to a step without it."""
    one = Batch(batch.images[:1], batch.labels[:1])
    plain = dataclasses.replace(TASK, loss=HINGE, r1=0.0, r2=0.0)
    without, _ = jax.jit(partial(step, plain))(state, one)
    penalized, _ = jax.jit(partial(step, dataclasses.replace(plain, r1=R1)))(state, one)
    weights = np.asarray(state.discriminator.params["weights"], np.float64)
    wanted = -RATES.discriminator * R1 / 2 * penalty_gradient(weights, np.float64(one.images[0]), one.labels[0])
    found = penalized.discriminator.params["weights"] - without.discriminator.params["weights"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_flips_mirror_some_real_images_and_no_others(state, batch):
    """The least-squares loss of the real images tells which of them D has seen mirrored."""
    one = Batch(batch.images[:1], batch.labels[:1])
    task = dataclasses.replace(TASK, loss=LEAST_SQUARES, r1=0.0, r2=0.0, flips=True)
    _, metrics = jax.jit(partial(step, task))(state, one)
    weights, images = np.asarray(state.discriminator.params["weights"]), one.images[0]
    plain, mirrored = ((scores(weights, each, one.labels[0]) - 1) ** 2 / 2 for each in (images, images[:, :, ::-1]))
    choices = np.array([[bits >> row & 1 for row in range(ROWS)] for bits in range(2**ROWS)], bool)
    sums = np.where(choices, mirrored, plain).mean(1)
    nearest = np.abs(sums - float(metrics["discriminator/loss_real"]))
    assert nearest.min() < 1e-6
    assert 0 < choices[nearest.argmin()].sum() < ROWS
    assert np.sort(nearest)[1] > 1e-5
