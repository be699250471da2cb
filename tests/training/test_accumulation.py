"""A batch worked through in microbatches: its gradient, its moments, its rows on several devices, and its memory."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.functional.spectral import spectral_normalize_tree
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.training import adversarial
from sagan_jax.training.accumulation import mean_gradient
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step
from sagan_jax.training.flops import step_flops
from sagan_jax.training.optimizers import Optimizers
from support.devices import several_devices
from support.networks import SmallDiscriminator, SmallGenerator

ROWS, MICROBATCHES, SIZE, CHANNELS, LATENTS, CLASSES = 12, 3, 4, 2, 6, 5
DECAY = 0.75

TASK = AdversarialTask(
    SmallGenerator((SIZE, SIZE, CHANNELS), num_features=3, num_classes=CLASSES, norm_decay=DECAY),
    SmallDiscriminator(num_features=7, norm_decay=DECAY),
    Optimizers(optax.sgd(1.0), optax.sgd(1.0)),
    latent_size=LATENTS,
    num_classes=CLASSES,
    accumulation_steps=MICROBATCHES,
)


@pytest.fixture(scope="module")
def state():
    return initial_state(TASK, 3, (SIZE, SIZE, CHANNELS))


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(5)
    images = numbers.uniform(-1, 1, (1, ROWS, SIZE, SIZE, CHANNELS)).astype(np.float32)
    return Batch(images, numbers.integers(0, CLASSES, (1, ROWS)).astype(np.int32))


@pytest.fixture(scope="module")
def after(state, batch):
    return jax.jit(partial(step, TASK))(state, batch)


def moved(new, old):
    return jax.tree.map(lambda one, other: np.asarray(one) - np.asarray(other), new.params, old.params)


def close(found, wanted, tolerance=2e-6):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=tolerance), found, wanted)


def drawn(state, number):
    """The latents and labels of one update, as the step draws them."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), state.step), number)
    return adversarial._draw(TASK, key, ROWS, None)[:2]


def test_mean_gradient_is_that_of_the_whole_batch_where_rows_do_not_meet():
    numbers = np.random.default_rng(1)
    batch, params = numbers.normal(size=(8, 3)).astype(np.float32), jnp.arange(3.0)

    def objective(params, carry, batch):
        losses = jnp.sin(batch @ params)
        return losses.mean(), (carry, {"loss": losses.mean()})

    whole, _, whole_metrics = mean_gradient(objective, params, (), batch, 1)
    accumulated, _, metrics = mean_gradient(objective, params, (), batch, 4)
    np.testing.assert_allclose(accumulated, whole, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], whole_metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(whole, (np.cos(batch @ params)[:, None] * batch).mean(axis=0), rtol=1e-5)


def test_mean_gradient_gives_every_third_row_to_a_microbatch_and_hands_the_carry_on():
    def objective(params, seen, batch):
        return params * batch.mean(), (jnp.concatenate([seen[2:], batch]), {})

    _, seen, _ = mean_gradient(objective, jnp.float32(1), jnp.zeros(6), jnp.arange(6.0), 3)
    assert seen.tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.slow
@pytest.mark.one_jax
def test_discriminator_descends_the_mean_of_the_gradients_of_the_microbatches(state, batch, after):
    latents, labels = drawn(state, 0)
    generator_params, _, _ = spectral_normalize_tree(state.generator.params, state.generator.spectral)
    generator_variables = {"params": generator_params, "batch_stats": state.generator.batch_stats}

    def loss(params, rows):
        params, _, _ = spectral_normalize_tree(params, state.discriminator.spectral)
        fakes = TASK.generator.apply(generator_variables, latents[rows], labels[rows], train=True)
        variables = {"params": params, "batch_stats": state.discriminator.batch_stats}

        def logits(images):
            return TASK.discriminator.apply(variables, images, None, train=True, mutable=["batch_stats"])[0]

        return nn.relu(1 - logits(batch.images[0][rows])).mean() + nn.relu(1 + logits(fakes)).mean()

    gradients = [
        jax.grad(loss)(state.discriminator.params, slice(number, None, MICROBATCHES)) for number in range(MICROBATCHES)
    ]
    wanted = jax.tree.map(lambda *leaves: -sum(leaves) / MICROBATCHES, *gradients)
    close(moved(after[0].discriminator, state.discriminator), wanted)


def test_generators_moments_move_once_per_microbatch_and_its_vectors_once(state, after):
    latents, labels = drawn(state, 1)
    params, vectors, _ = spectral_normalize_tree(state.generator.params, state.generator.spectral)
    statistics = state.generator.batch_stats
    for number in range(MICROBATCHES):
        variables = {"params": params, "batch_stats": statistics}
        rows = slice(number, None, MICROBATCHES)
        _, found = TASK.generator.apply(variables, latents[rows], labels[rows], train=True, mutable=["batch_stats"])
        statistics = found["batch_stats"]
    close(after[0].generator.batch_stats, statistics)
    close(after[0].generator.spectral, vectors)


def test_losses_are_means_over_the_microbatches(state, batch, after):
    whole = jax.jit(partial(step, dataclasses.replace(TASK, accumulation_steps=1)))(state, batch)[1]
    assert sorted(after[1]) == sorted(whole)
    # The losses differ a little, because the moments of four rows are not those of twelve.
    assert 0 < abs(after[1]["discriminator/loss"] - whole["discriminator/loss"]) < 0.2
    np.testing.assert_allclose(
        after[1]["discriminator/loss"], after[1]["discriminator/loss_real"] + after[1]["discriminator/loss_fake"], 1e-6
    )


@pytest.mark.parametrize("driver", ["pmap", "shard_map"])
def test_microbatches_on_two_devices_are_those_on_one(driver, state, batch, after):
    parallel = ParallelStep(partial(step, TASK), driver=driver, devices=several_devices(2))
    found, _ = parallel(parallel.replicate(state), batch)
    for name in ("generator", "discriminator"):
        one, two = getattr(after[0], name), getattr(found, name)
        close(moved(two, getattr(state, name)), moved(one, getattr(state, name)), 1e-5)
        close(two.batch_stats, one.batch_stats, 1e-6)


def test_a_loss_that_is_not_finite_in_one_microbatch_leaves_the_state(state, batch):
    images = batch.images.copy()
    images[0, ROWS - 1] = np.nan
    found, metrics = jax.jit(partial(step, TASK))(state, Batch(images, batch.labels))
    assert not metrics["finite"]
    close(found.discriminator.params, state.discriminator.params, 0)


@pytest.mark.slow
@pytest.mark.one_jax
def test_eight_microbatches_need_less_than_half_of_the_memory():
    def temporary_bytes(microbatches):
        task = dataclasses.replace(TASK, accumulation_steps=microbatches)
        state = jax.eval_shape(lambda: initial_state(task, 0, (SIZE, SIZE, CHANNELS)))
        rows = 2048
        shapes = Batch(
            jax.ShapeDtypeStruct((1, rows, SIZE, SIZE, CHANNELS), jnp.float32),
            jax.ShapeDtypeStruct((1, rows), jnp.int32),
        )
        return jax.jit(partial(step, task)).lower(state, shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < 0.5 * temporary_bytes(1)


def test_step_flops_do_not_depend_on_the_microbatches():
    whole = dataclasses.replace(TASK, accumulation_steps=1)
    shape = SIZE, SIZE, CHANNELS
    assert step_flops(TASK, ROWS, shape) == step_flops(whole, ROWS, shape)


@pytest.mark.slow
def test_augmentation_sees_the_same_draws_in_microbatches_and_on_devices(state, batch):
    """Rows do not interact in these networks, so neither microbatches nor devices may change anything."""
    task = dataclasses.replace(TASK, augmentation=("color", "translation", "cutout"), accumulation_steps=1)

    def moves(task, devices):
        parallel = ParallelStep(partial(step, task), devices=several_devices(devices))
        found, _ = parallel(parallel.replicate(state), batch)
        return moved(found.discriminator, state.discriminator), moved(found.generator, state.generator)

    whole = moves(task, 1)
    close(moves(task, 2), whole, 1e-5)
    accumulated = dataclasses.replace(task, accumulation_steps=MICROBATCHES)
    close(moves(accumulated, 2), moves(accumulated, 1), 1e-5)
    plain = moves(dataclasses.replace(task, augmentation=()), 1)
    assert (
        max(np.abs(one - other).max() for one, other in zip(*map(jax.tree.leaves, (plain, whole)), strict=True)) > 1e-3
    )
