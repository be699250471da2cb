"""The step that learns to fill holes, against an independent composition of its loss written here."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.models.sagan import Discriminator
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.training import completion
from sagan_jax.training.completion import CompletionBatch, CompletionTask, initial_state, step
from support.devices import several_devices

ROWS, SIZE, LATENTS = 4, 64, 6
TASK = CompletionTask(
    CompletionNetwork(SIZE, 3, 1, LATENTS, attention_resolutions=(8,)),
    optax.sgd(1.0),
    kl_weight=0.5,
    kl_warmup_steps=4,
    free_bits=0.6,
    visible_weight=0.25,
    average_decay=0.9,
)
OPTIONS = {"xla_backend_optimization_level": 0}  # each runs briefly: optimising would take longer


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(5)
    images = numbers.uniform(-1, 1, (1, ROWS, SIZE, SIZE, 3)).astype(np.float32)
    masks = np.zeros((1, ROWS, SIZE, SIZE), bool)
    for row in range(ROWS):  # holes of different sizes
        masks[0, row, 8 : 16 + 8 * row, 20:40] = True
    return CompletionBatch(images, masks)


def away(tree, seed=1):
    """Moves leaves away from the start, where the branches and gamma are small or 0."""
    numbers = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (leaf + 0.05 * numbers.normal(size=leaf.shape)).astype(leaf.dtype), tree)


@pytest.fixture(scope="module")
def state():
    fresh = initial_state(TASK, 3)
    network = dataclasses.replace(fresh.network, params=away(fresh.network.params))
    return dataclasses.replace(fresh, network=network, average=away(fresh.average, 2), step=jnp.int32(3))


@pytest.fixture(scope="module")
def after(state, batch):
    return jax.jit(partial(step, TASK), compiler_options=OPTIONS)(state, batch)


def composed(task, params, batch, noise, weight):
    """The loss from its equations, one image at a time."""
    images, masks = batch.images[0], batch.masks[0]
    network = task.network
    encoded = network.apply({"params": params}, images, masks, method="encode")
    latents = encoded.mean + jnp.exp(encoded.log_variance / 2) * noise
    decoded = network.apply({"params": params}, latents, encoded.features, method="decode")
    hole, rest = [], []
    for row in range(len(images)):
        square = (decoded[row] - images[row]) ** 2
        hole.append(square[masks[row]].mean())
        rest.append(square[~masks[row]].mean())
    variance = jnp.exp(encoded.log_variance)
    divergence = (0.5 * (variance + encoded.mean**2 - 1 - encoded.log_variance)).mean(axis=0)
    cost = sum(jnp.maximum(latent, task.free_bits) for latent in divergence)
    return sum(hole) / len(hole) + task.visible_weight * sum(rest) / len(rest) + weight * cost


@pytest.mark.slow
@pytest.mark.one_jax
def test_network_descends_the_loss_that_the_equation_says(state, batch, after):
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    noise = jax.random.normal(key, (ROWS, LATENTS))
    weight = 0.5 * 3 / 4
    loss, gradients = jax.value_and_grad(composed, argnums=1)(TASK, state.network.params, batch, noise, weight)
    np.testing.assert_allclose(after[1]["completion/loss"], loss, rtol=1e-5)
    moved = jax.tree.map(lambda new, old: old - new, after[0].network.params, state.network.params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-6), moved, gradients)


def test_some_latents_are_free_and_some_are_not(after):
    assert 0 < after[1]["completion/latents_in_use"] < 1


def test_metrics_hold_the_parts_of_the_loss(after, batch):
    metrics = after[1]
    expected = 10 * np.log10(4 / metrics["completion/squared_error"])
    assert abs(metrics["completion/psnr"] - expected) < 0.5  # it is the mean of each image's PSNR
    assert metrics["completion/divergence_weight"] == pytest.approx(0.375)
    for part in ("encoder", "decoder"):
        assert f"completion/{part}/gamma_8" in metrics


def test_average_follows_faster_at_the_start(state, after):
    decay = min(0.9, (1 + 3) / (10 + 3))
    wanted = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, after[0].network.params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), after[0].average, wanted)


def test_pixels_in_the_hole_do_not_change_the_decoding(state, batch):
    """Other pixels in the hole do not change what the network draws."""
    images = np.where(batch.masks[..., None], -batch.images, batch.images)
    noise = jnp.zeros((ROWS, LATENTS))
    one, other = (
        completion._complete(TASK, state.network.params, pixels[0], batch.masks[0], noise).decoded
        for pixels in (batch.images, images)
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize("driver", ["pmap", "shard_map"])
def test_two_devices_take_the_step_of_one(driver, state, batch, after):
    if jax.device_count() < 2:
        pytest.skip("needs two devices: Adam makes much of how platforms round a gradient near 0")
    parallel = ParallelStep(partial(step, TASK), driver=driver, devices=several_devices(2))
    found, metrics = parallel(parallel.replicate(state), batch)
    np.testing.assert_allclose(metrics["completion/loss"], after[1]["completion/loss"], rtol=1e-4)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5),
        found.network.params,
        after[0].network.params,
    )


@pytest.mark.parametrize("kind", ["logarithmic", "absolute"])
def test_logarithmic_and_absolute_errors_match_their_definition(kind, batch):
    numbers = np.random.default_rng(0)
    error = jnp.asarray(numbers.normal(size=(ROWS, SIZE, SIZE, 3)), jnp.float32)
    found = completion._reconstruction(kind, error, batch.masks[0])
    holes = [np.asarray(error[row])[batch.masks[0, row]] for row in range(ROWS)]
    wanted = {
        "logarithmic": np.mean([0.5 * np.log((hole**2).mean()) for hole in holes]),
        "absolute": np.mean([np.abs(hole).mean() for hole in holes]),
    }
    np.testing.assert_allclose(found, wanted[kind], rtol=1e-5)


def test_step_that_is_not_finite_leaves_the_state(state, batch):
    images = batch.images.copy()
    images[0, 0, 10, 30, 0] = np.nan  # in the hole: the network never sees it, the loss does
    found, metrics = jax.jit(partial(step, TASK), compiler_options=OPTIONS)(state, CompletionBatch(images, batch.masks))
    assert not metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, found.network.params, state.network.params)


@pytest.fixture(scope="module")
def with_discriminator(batch):
    task = dataclasses.replace(
        TASK,
        discriminator=Discriminator(SIZE, 0, 2, attention_resolutions=()),
        discriminator_optimizer=optax.sgd(0.1),
        adversarial_weight=2.0,
    )
    start = initial_state(task, 3)
    return task, start, *jax.jit(partial(step, task), compiler_options=OPTIONS)(start, batch)


@pytest.mark.slow
def test_adversarial_term_is_weighted_and_sees_known_pixels_too(with_discriminator, batch):
    task, start, _, metrics = with_discriminator
    assert task.finite_metrics == (*TASK.finite_metrics, "discriminator/loss", "discriminator/gradient_norm")
    key = jax.random.fold_in(jax.random.key(start.seed), start.step)
    noise = jax.random.normal(key, (ROWS, LATENTS))
    plain = composed(task, start.network.params, batch, noise, 0.0)
    np.testing.assert_allclose(
        metrics["completion/loss"], plain + 2.0 * metrics["completion/adversarial_loss"], rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.one_jax
def test_discriminator_is_spectrally_normalised_and_learns_to_tell(with_discriminator, batch):
    task, start, after, metrics = with_discriminator
    assert any(name.startswith("discriminator/sigma/") for name in metrics)
    assert not np.array_equal(
        start.discriminator.params["linear"]["kernel"], after.discriminator.params["linear"]["kernel"]
    )
    again = jax.jit(partial(step, task), compiler_options=OPTIONS)
    state = after
    for _ in range(3):
        state, later = again(state, batch)
    assert later["discriminator/loss"] < metrics["discriminator/loss"]


class TwoLayers(nn.Module):
    """Stands in for a trained network: the activations of two sizes."""

    @nn.compact
    def __call__(self, images):
        first = nn.relu(nn.Conv(3, (3, 3), strides=4, name="first")(images))
        return [first, nn.relu(nn.Conv(5, (3, 3), strides=2, name="second")(first))]


@pytest.fixture(scope="module")
def perceptual():
    task = dataclasses.replace(TASK, perceptual=TwoLayers(), perceptual_weight=3.0)
    return task, TwoLayers().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))


def with_distance(task, batch, params, variables, noise, weight):
    """The composed loss and the distance of the completed images from the originals."""
    images, holes = batch.images[0], batch.masks[0][..., None]
    encoded = task.network.apply({"params": params}, images, batch.masks[0], method="encode")
    latents = encoded.mean + jnp.exp(encoded.log_variance / 2) * noise
    decoded = task.network.apply({"params": params}, latents, encoded.features, method="decode")
    distance = 0
    completed, original = (task.perceptual.apply(variables, x) for x in (holes * decoded + ~holes * images, images))
    for pair in zip(completed, original, strict=True):
        ends = [layer / jnp.sqrt((layer**2).sum(-1, keepdims=True) + 1e-6) for layer in pair]
        distance += ((ends[0] - ends[1]) ** 2).sum(-1).mean()
    return composed(task, params, batch, noise, weight) + task.perceptual_weight * distance


@pytest.mark.slow
@pytest.mark.one_jax
def test_perceptual_term_compares_completed_images_with_originals(perceptual, state, batch):
    task, variables = perceptual
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    noise = jax.random.normal(key, (ROWS, LATENTS))
    wanted = jax.jit(jax.value_and_grad(partial(with_distance, task, batch)), compiler_options=OPTIONS)
    loss, gradients = wanted(state.network.params, variables, noise, 0.5 * 3 / 4)
    parallel = ParallelStep(partial(step, task), [variables], devices=several_devices(2))
    found, metrics = parallel(parallel.replicate(state), batch)
    np.testing.assert_allclose(metrics["completion/loss"], loss, rtol=1e-5)
    assert 0 < 3 * metrics["completion/perceptual_distance"] < loss
    moved = jax.tree.map(lambda new, old: old - new, found.network.params, state.network.params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), moved, gradients)
