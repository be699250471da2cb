"""The adversarial step against an independent composition of the same networks, written here.

The networks are small but have every kind of part: conditional norm, attention, projection. A recorder keeps the inputs
and outputs of every pass, so that the composition needs no random numbers of its own.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.models import sagan
from sagan_jax.models.layers import SelfAttention
from sagan_jax.training.adversarial import AdversarialState, AdversarialTask, Batch, initial_state, step
from sagan_jax.training.optimizers import Optimizers, two_time_scale
from support.assertions import same_bits
from support.networks import SmallGenerator

# All different, so that no swapped axis can hide.
UPDATES, ROWS, HEIGHT, WIDTH, CHANNELS, LATENTS, CLASSES = 2, 7, 4, 6, 3, 8, 5
NORM_DECAY, AVERAGE_DECAY = 0.9, 0.75
RATES = {"generator": 0.125, "discriminator": 0.0625}


small_generator = partial(
    SmallGenerator, (HEIGHT, WIDTH, CHANNELS), 9, num_classes=CLASSES, norm_decay=NORM_DECAY, attention=True
)


class PassRecorder:
    """Keeps the name and the arrays of every pass."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, *arrays):
        self.calls.append((name, *map(np.array, arrays)))


class ProjectionDiscriminator(nn.Module):
    num_classes: int = CLASSES
    axis_name: str | None = None
    record: Callable[..., None] | None = None

    @nn.compact
    def __call__(self, images, labels, *, train):
        conv = nn.Conv(10, (3, 3), name="conv")
        pooled = nn.relu(SelfAttention(name="attention_4")(nn.relu(conv(images)))).mean(axis=(1, 2))
        logits = nn.Dense(1, name="linear")(pooled)[:, 0]
        if self.num_classes:
            projected = nn.Dense(self.num_classes, use_bias=False, name="projection")(pooled)
            logits += jnp.take_along_axis(projected, labels[:, None], axis=1)[:, 0]
        if self.record:
            kernel = conv.variables["params"]["kernel"]
            jax.debug.callback(partial(self.record, "discriminator"), images, labels, logits, kernel, ordered=True)
        return logits


def gradient_descent(rate):
    """Plain descent whose state is a factor on the rate. A factor of 0 holds the network still in the same program."""

    def update(gradient, factor, params=None):
        return jax.tree.map(lambda slope: -rate * factor * slope, gradient), factor

    return optax.GradientTransformation(lambda params: jnp.float32(1.0), update)


ON_CPU = jax.default_backend() == "cpu"
# On an H200 gradients of D differed by up to 9.4e-4 of the largest entry, and what follows from them by up to 7.6e-5.
GRADIENTS = 1e-5 if ON_CPU else 2e-3
AFTER_GRADIENTS = 1e-5 if ON_CPU else 2e-4


TASK = AdversarialTask(
    small_generator(),
    ProjectionDiscriminator(),
    Optimizers(gradient_descent(RATES["generator"]), gradient_descent(RATES["discriminator"])),
    latent_size=LATENTS,
    num_classes=CLASSES,
)


def compiled(task, state, batch):
    # These programs run for milliseconds: most of a test's time would go into optimising them.
    options = {"xla_backend_optimization_level": 0} if ON_CPU else None
    return jax.jit(partial(step, task), compiler_options=options).lower(state, batch).compile()


def some_state(task):
    """Returns a drawn state. At the start, gamma is 0 and hides attention, and the initialisers compile for longer."""
    numbers = np.random.default_rng(11)
    shapes = jax.eval_shape(lambda: initial_state(task, 0, (HEIGHT, WIDTH, CHANNELS)))

    def filled(path, leaf):
        if path[-1].key == "variance":
            return jnp.asarray(numbers.uniform(1, 2, leaf.shape), leaf.dtype)
        if path[-1].key == "gamma":
            return jnp.asarray(0.6, leaf.dtype)
        return jnp.asarray(0.3 * numbers.normal(size=leaf.shape), leaf.dtype)

    def network(shape, optimizer):
        parts = {name: getattr(shape, name) for name in ("params", "spectral", "batch_stats")}
        parts = jax.tree_util.tree_map_with_path(filled, parts)
        return dataclasses.replace(shape, **parts, optimizer=optimizer.init(parts["params"]))

    return dataclasses.replace(
        shapes,
        step=jnp.int32(4),
        seed=jnp.uint32(3),
        generator=network(shapes.generator, task.optimizers.generator),
        discriminator=network(shapes.discriminator, task.optimizers.discriminator),
    )


@pytest.fixture(scope="module")
def start():
    return some_state(TASK)


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(12)
    return Batch(
        numbers.uniform(-1, 1, (UPDATES, ROWS, HEIGHT, WIDTH, CHANNELS)).astype(np.float32),
        numbers.integers(0, CLASSES, (UPDATES, ROWS)).astype(np.int32),
    )


class RecordedStep(NamedTuple):
    run: Callable[[AdversarialState, Batch], tuple[AdversarialState, dict[str, Any], list[tuple]]]
    state: AdversarialState
    metrics: dict[str, Any]
    calls: list[tuple]

    @property
    def draws(self):
        """Latents, labels and images of each call of G."""
        return [call[1:] for call in self.calls if call[0] == "generator"]

    @property
    def passes(self):
        """Images, labels, logits and the kernel of each call of D: real and fake of each update, then G's."""
        return [call[1:] for call in self.calls if call[0] == "discriminator"]


@pytest.fixture(scope="module")
def recorded(start, batch):
    recorder = PassRecorder()
    networks = {
        "generator": small_generator(record=recorder),
        "discriminator": ProjectionDiscriminator(record=recorder),
    }
    program = compiled(dataclasses.replace(TASK, **networks), start, batch)

    def run(state, batch):
        recorder.calls = []
        state, metrics = program(state, batch)
        jax.block_until_ready(state)
        jax.effects_barrier()
        return state, metrics, recorder.calls

    return RecordedStep(run, *run(start, batch))


# The independent composition.


def iterated(kernel, u):
    """Returns v and the next u of the kernel as a matrix with one column an output channel."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    v = matrix @ u
    v = v / jnp.linalg.norm(v)
    u = v @ matrix
    return v, u / jnp.linalg.norm(u)


def normalized(params, spectral, hold=jax.lax.stop_gradient):
    def leaf(layer, name, kernel):
        if name not in spectral.get(layer, {}):
            return kernel
        v, u = iterated(hold(kernel), spectral[layer][name]["u"])
        return kernel / (v @ kernel.reshape(-1, kernel.shape[-1]) @ u)

    return {layer: {name: leaf(layer, name, kernel) for name, kernel in part.items()} for layer, part in params.items()}


def stepped_vectors(params, spectral):
    return {
        layer: {
            name: dict(zip("vu", iterated(params[layer][name], pair["u"]), strict=True)) for name, pair in part.items()
        }
        for layer, part in spectral.items()
    }


def logits_of(params, images, labels):
    return ProjectionDiscriminator().apply({"params": params}, images, labels, train=True)


def generated(params, statistics, latents, labels):
    variables = {"params": params, "batch_stats": statistics}
    return small_generator().apply(variables, latents, labels, train=True, mutable=["batch_stats"])[0]


@partial(jax.jit, static_argnames="hold")
def discriminator_gradient(params, spectral, reals, fakes, hold=jax.lax.stop_gradient):
    def loss(params):
        params = normalized(params, spectral, hold)
        real, fake = logits_of(params, *reals), logits_of(params, *fakes)
        return jnp.maximum(0.0, 1.0 - real).mean() + jnp.maximum(0.0, 1.0 + fake).mean()

    return jax.grad(loss)(params)


@jax.jit
def generator_gradient(network, discriminator_params, discriminator_spectral, latents, labels):
    normalized_discriminator = normalized(discriminator_params, discriminator_spectral)

    def loss(params):
        images = generated(normalized(params, network.spectral), network.batch_stats, latents, labels)
        return -logits_of(normalized_discriminator, images, labels).mean()

    return jax.grad(loss)(network.params)


def descended(params, gradient, name):
    return jax.tree.map(lambda leaf, slope: leaf - RATES[name] * slope, params, gradient)


@pytest.fixture(scope="module")
def composed(recorded, start, batch):
    """D after each update, its gradients, and G's gradient, from what the networks were given."""
    params, spectral = start.discriminator.params, start.discriminator.spectral
    history = [(params, spectral, None)]
    for number in range(UPDATES):
        _, labels, images = recorded.draws[number]
        reals = (batch.images[number], batch.labels[number])
        gradient = discriminator_gradient(params, spectral, reals, (images, labels))
        params, spectral = descended(params, gradient, "discriminator"), stepped_vectors(params, spectral)
        history.append((params, spectral, gradient))
    latents, labels, _ = recorded.draws[UPDATES]
    return history, generator_gradient(start.generator, params, spectral, latents, labels)


def difference(old, new, name):
    """Returns the gradient that plain descent has followed."""
    return jax.tree.map(lambda before, after: (before - after) / RATES[name], old, new)


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def distance(first, second):
    """Returns the largest difference relative to the largest entry, and refuses other shapes and trees."""
    jax.tree.map(lambda one, other: np.testing.assert_equal(np.shape(one), np.shape(other)), first, second)
    return largest(jax.tree.map(lambda one, other: jnp.asarray(one) - jnp.asarray(other), first, second)) / largest(
        second
    )


def u_only(spectral):
    return {layer: {name: pair["u"] for name, pair in part.items()} for layer, part in spectral.items()}


# Which network moves, and when.


def test_step_updates_the_discriminator_by_the_gradient_of_the_composition(recorded, composed, start):
    moved = difference(start.discriminator.params, recorded.state.discriminator.params, "discriminator")
    total = jax.tree.map(jnp.add, *(gradient for _, _, gradient in composed[0][1:]))
    assert distance(moved, total) < GRADIENTS


def test_step_lets_the_generator_follow_the_updated_discriminator(recorded, composed, start):
    moved = difference(start.generator.params, recorded.state.generator.params, "generator")
    assert distance(moved, composed[1]) < AFTER_GRADIENTS


def test_step_does_not_let_the_generator_follow_the_old_discriminator(recorded, start):
    moved = difference(start.generator.params, recorded.state.generator.params, "generator")
    latents, labels, _ = recorded.draws[UPDATES]
    old = generator_gradient(start.generator, start.discriminator.params, start.discriminator.spectral, latents, labels)
    assert distance(moved, old) > 1e-2


def test_step_draws_latents_afresh_for_every_update(recorded):
    latents = [draw[0] for draw in recorded.draws]
    assert len(latents) == UPDATES + 1
    assert np.unique(np.concatenate(latents), axis=0).shape == ((UPDATES + 1) * ROWS, LATENTS)


def test_step_draws_labels_afresh_for_every_update(recorded):
    assert len({draw[1].tobytes() for draw in recorded.draws}) == UPDATES + 1


def test_step_gives_each_discriminator_update_its_own_slice_of_the_batch(recorded, batch):
    for number in range(UPDATES):
        images, labels, _, _ = recorded.passes[2 * number]
        assert same_bits((images, labels), (batch.images[number], batch.labels[number]))


def test_step_shows_the_discriminator_fakes_with_the_labels_they_were_made_for(recorded):
    for number in range(UPDATES):
        images, labels, _, _ = recorded.passes[2 * number + 1]
        _, made_for, made = recorded.draws[number]
        assert same_bits((images, labels), (made, made_for))


def test_step_makes_the_fakes_of_the_discriminator_with_the_generator_as_it_was(recorded, start):
    params = normalized(start.generator.params, start.generator.spectral)
    for latents, labels, images in recorded.draws[:UPDATES]:
        np.testing.assert_allclose(
            images, generated(params, start.generator.batch_stats, latents, labels), rtol=1e-5, atol=2e-6
        )


def test_real_and_fake_pass_share_one_normalization_from_the_stored_u(recorded, composed):
    for number in range(UPDATES):
        real, fake = (recorded.passes[2 * number + side][3] for side in range(2))
        assert same_bits(real, fake)
        params, spectral, _ = composed[0][number]
        kernel = normalized(params, spectral)["conv"]["kernel"]
        np.testing.assert_allclose(real, kernel, rtol=AFTER_GRADIENTS, atol=1e-6 if ON_CPU else 1e-4)


def test_vectors_of_the_discriminator_move_once_an_update_and_not_in_the_generators(recorded, composed):
    moved = u_only(recorded.state.discriminator.spectral)
    assert distance(moved, u_only(composed[0][-1][1])) < AFTER_GRADIENTS
    once_more = stepped_vectors(*composed[0][-1][:2])
    assert distance(moved, u_only(once_more)) > 1e-3


def test_vectors_of_the_generator_move_once_a_step(recorded, start):
    once = stepped_vectors(start.generator.params, start.generator.spectral)
    assert distance(recorded.state.generator.spectral, once) < 1e-5
    twice = stepped_vectors(start.generator.params, once)
    assert distance(recorded.state.generator.spectral, twice) > 1e-3


def test_running_moments_move_once_a_step_towards_those_of_the_generators_own_draw(recorded, start):
    linear = jax.tree.map(partial(np.asarray, dtype=np.float64), start.generator.params["linear"])
    v, u = iterated(linear["kernel"], np.float64(start.generator.spectral["linear"]["kernel"]["u"]))
    sigma = v @ linear["kernel"] @ u
    features = recorded.draws[UPDATES][0] @ np.float64(linear["kernel"] / sigma) + linear["bias"][None]
    features = features.reshape(-1, 9)
    old = start.generator.batch_stats["norm"]
    expected = {
        "mean": NORM_DECAY * old["mean"] + (1 - NORM_DECAY) * features.mean(axis=0),
        "variance": NORM_DECAY * old["variance"] + (1 - NORM_DECAY) * features.var(axis=0),
    }
    assert distance(recorded.state.generator.batch_stats["norm"], expected) < 1e-5


def test_step_counts_generator_updates_and_keeps_the_seed(recorded, start):
    assert int(recorded.state.step) == int(start.step) + 1
    assert int(recorded.state.seed) == int(start.seed)


@pytest.mark.slow
def test_vectors_are_differentiated_when_the_task_says_so(start, batch):
    released = dataclasses.replace(TASK, differentiate_vectors=True)
    recorder = PassRecorder()
    released = dataclasses.replace(released, generator=small_generator(record=recorder))
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    new, _ = compiled(released, start, one)(start, one)
    jax.block_until_ready(new)
    jax.effects_barrier()
    _, _, labels, images = recorder.calls[0]
    old = start.discriminator
    arguments = (old.params, old.spectral, (one.images[0], one.labels[0]), (images, labels))
    moved = difference(old.params, new.discriminator.params, "discriminator")
    assert distance(moved, discriminator_gradient(*arguments, hold=jnp.asarray)) < 1e-5
    assert distance(moved, discriminator_gradient(*arguments)) > 1e-2


# Losses and what is measured.


def test_discriminator_losses_are_the_hinge_of_the_logits_of_the_last_update(recorded):
    real, fake = (recorded.passes[2 * UPDATES - 2 + side][2] for side in range(2))
    expected_real = np.mean([max(0.0, 1.0 - float(logit)) for logit in real])
    expected_fake = np.mean([max(0.0, 1.0 + float(logit)) for logit in fake])
    np.testing.assert_allclose(recorded.metrics["discriminator/loss_real"], expected_real, rtol=1e-6)
    np.testing.assert_allclose(recorded.metrics["discriminator/loss_fake"], expected_fake, rtol=1e-6)
    np.testing.assert_allclose(recorded.metrics["discriminator/loss"], expected_real + expected_fake, rtol=1e-6)


def test_generator_loss_is_minus_the_mean_logit(recorded):
    logits = recorded.passes[2 * UPDATES][2]
    np.testing.assert_allclose(recorded.metrics["generator/loss"], -np.float64(logits).mean(), rtol=1e-5)


def test_metrics_hold_the_mean_logits(recorded):
    for name, number in (
        ("discriminator/real_logits", 2 * UPDATES - 2),
        ("discriminator/fake_logits", 2 * UPDATES - 1),
        ("generator/fake_logits", 2 * UPDATES),
    ):
        np.testing.assert_allclose(recorded.metrics[name], np.float64(recorded.passes[number][2]).mean(), rtol=1e-5)


def test_metrics_hold_the_norm_of_each_gradient(recorded, composed):
    for name, gradient in (("discriminator", composed[0][-1][2]), ("generator", composed[1])):
        norm = np.sqrt(sum(np.sum(np.float64(leaf) ** 2) for leaf in jax.tree.leaves(gradient)))
        np.testing.assert_allclose(recorded.metrics[f"{name}/gradient_norm"], norm, rtol=AFTER_GRADIENTS)


def test_metrics_hold_the_gamma_the_pass_was_made_with(recorded, composed, start):
    np.testing.assert_equal(recorded.metrics["generator/gamma_4"], start.generator.params["attention_4"]["gamma"])
    last = composed[0][UPDATES - 1][0]["attention_4"]["gamma"]
    np.testing.assert_allclose(recorded.metrics["discriminator/gamma_4"], last, rtol=1e-5)


def test_sigmas_come_to_the_largest_singular_values(recorded, start, batch):
    def stood_still(network):
        return dataclasses.replace(network, optimizer=jnp.float32(0.0))

    state = dataclasses.replace(
        start, generator=stood_still(start.generator), discriminator=stood_still(start.discriminator)
    )
    for _ in range(60):
        state, metrics, _ = recorded.run(state, batch)
    assert same_bits(state.generator.params, start.generator.params)
    seen = 0
    for name in ("generator", "discriminator"):
        network = getattr(start, name)
        for layer, part in network.spectral.items():
            for leaf in part:
                kernel = np.float64(network.params[layer][leaf])
                largest_value = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
                sigma = metrics[f"{name}/sigma/{layer}/{leaf}".removesuffix("/kernel")]
                assert 0.97 * largest_value < sigma < (1 + 1e-5) * largest_value
                seen += 1
    assert seen == sum("/sigma/" in name for name in metrics) == 6 + 7


@pytest.mark.slow
@pytest.mark.one_jax
def test_metrics_of_the_sagan_networks_have_every_name():
    sizes = {"resolution": 32, "num_classes": 5, "base_channels": 1}
    generator = sagan.Generator(**sizes, attention_resolutions=(8, 16))
    task = AdversarialTask(
        generator, sagan.Discriminator(**sizes, attention_resolutions=(16,)), latent_size=6, num_classes=5
    )
    state = jax.eval_shape(lambda: initial_state(task, 0, (32, 32, 3)))
    images, labels = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1, 4), jnp.int32)
    _, metrics = jax.eval_shape(partial(step, task), state, Batch(images, labels))
    assert all(metric.shape == () for metric in metrics.values())

    expected = {"finite", "generator/gamma_8", "generator/gamma_16", "discriminator/gamma_16"}
    for part in ("loss", "fake_logits", "gradient_norm"):
        expected |= {f"generator/{part}", f"discriminator/{part}"}
    expected |= {f"discriminator/{part}" for part in ("loss_real", "loss_fake", "real_logits")}
    for name in ("generator", "discriminator"):
        paths = jax.tree_util.tree_flatten_with_path(getattr(state, name).params)[0]
        kernels = ["/".join(key.key for key in path) for path, _ in paths if path[-1].key.endswith("kernel")]
        expected |= {f"{name}/sigma/{kernel.removesuffix('/kernel')}" for kernel in kernels}
    assert set(metrics) == expected


@pytest.mark.slow
@pytest.mark.one_jax
def test_unconditional_networks_step():
    networks = {
        "generator": small_generator(num_classes=0),
        "discriminator": ProjectionDiscriminator(0),
        "num_classes": 0,
    }
    task = dataclasses.replace(TASK, **networks)
    state = some_state(task)
    batch = Batch(np.full((1, 2, HEIGHT, WIDTH, CHANNELS), 0.5, np.float32), np.zeros((1, 2), np.int32))
    new, metrics = compiled(task, state, batch)(state, batch)
    assert bool(metrics["finite"])
    assert not same_bits(new.generator.params, state.generator.params)
    assert not same_bits(new.discriminator.params, state.discriminator.params)


def test_networks_of_a_run_without_classes_see_only_the_label_0():
    recorder = PassRecorder()
    networks = {"generator": small_generator(), "discriminator": ProjectionDiscriminator(CLASSES, record=recorder)}
    task = dataclasses.replace(TASK, **networks, num_classes=0)
    state = some_state(task)
    images = np.full((1, 2, HEIGHT, WIDTH, CHANNELS), 0.5, np.float32)
    batch = Batch(images, np.array([[3, 4]], np.int32))
    jax.block_until_ready(compiled(task, state, batch)(state, batch))
    jax.effects_barrier()
    assert len(recorder.calls) >= 2  # of real and of generated images
    assert all((labels == 0).all() for _, _, labels, *_ in recorder.calls)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_vectors_are_made_for_the_networks_that_spectral_norm_names(name):
    made = {
        which: getattr(
            jax.eval_shape(
                lambda which=which: initial_state(dataclasses.replace(TASK, spectral_norm=which), 0, (4, 6, 3))
            ),
            name,
        ).spectral
        for which in ("both", "generator", "discriminator", "none")
    }
    assert set(made["both"]) >= {"linear", "conv", "attention_4"}
    for which in ("generator", "discriminator", "none"):
        assert made[which] == (made["both"] if which == name else {})


@pytest.mark.slow
@pytest.mark.one_jax
def test_generator_that_is_not_normalised_draws_with_its_kernels_as_they_are(start, batch):
    recorder = PassRecorder()
    networks = {"generator": small_generator(record=recorder), "discriminator": ProjectionDiscriminator()}
    task = dataclasses.replace(TASK, spectral_norm="discriminator", **networks)
    state = dataclasses.replace(start, generator=dataclasses.replace(start.generator, spectral={}))
    after, metrics = jax.block_until_ready(compiled(task, state, batch)(state, batch))
    jax.effects_barrier()
    assert bool(metrics["finite"])
    assert after.generator.spectral == {}
    assert {metric.split("/")[0] for metric in metrics if "/sigma/" in metric} == {"discriminator"}
    variables = {"params": state.generator.params, "batch_stats": state.generator.batch_stats}
    assert len(recorder.calls) == UPDATES + 1
    for _, latents, labels, images in recorder.calls:
        expected, _ = small_generator().apply(variables, latents, labels, train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.slow
def test_all_that_the_discriminator_sees_is_augmented_real_and_generated_by_draws_of_their_own(start, batch):
    recorder = PassRecorder()
    networks = {"generator": small_generator(), "discriminator": ProjectionDiscriminator(record=recorder)}
    task = dataclasses.replace(TASK, augmentation=("cutout",), **networks)
    jax.block_until_ready(compiled(task, start, batch)(start, batch))
    jax.effects_barrier()
    holes = [(images == 0).all(axis=-1) for _, images, *_ in recorder.calls]
    assert len(holes) == 2 * UPDATES + 1
    assert all(hole.any(axis=(1, 2)).all() for hole in holes)
    assert len({hole.tobytes() for hole in holes}) == len(holes)


# Randomness.


def test_labels_of_fakes_are_uniform_over_the_classes(recorded, start, batch):
    counts, steps = np.zeros(CLASSES), 60
    for number in range(steps):
        _, _, calls = recorded.run(dataclasses.replace(start, step=jnp.int32(number)), batch)
        for call in calls:
            if call[0] == "generator":
                counts += np.bincount(call[2], minlength=CLASSES)
    expected = steps * (UPDATES + 1) * ROWS / CLASSES
    assert ((counts - expected) ** 2 / expected).sum() < 23.5  # chi-square, 4 degrees of freedom, p = 1e-4


def test_step_of_the_same_state_gives_the_same_bits(recorded, start, batch):
    state, metrics, _ = recorded.run(start, batch)
    assert same_bits((state, metrics), (recorded.state, recorded.metrics))


def test_draws_depend_on_the_seed_and_the_step_alone(recorded, batch):
    moved = dataclasses.replace(recorded.state, step=jnp.int32(4))
    _, _, calls = recorded.run(moved, jax.tree.map(lambda leaf: leaf[::-1], batch))
    draws = [call[1:3] for call in calls if call[0] == "generator"]
    assert same_bits(draws, [draw[:2] for draw in recorded.draws])


@pytest.mark.parametrize("changed", [{"step": jnp.int32(5)}, {"seed": jnp.uint32(4)}], ids=["step", "seed"])
def test_draws_differ_at_another(changed, recorded, start, batch):
    _, _, calls = recorded.run(dataclasses.replace(start, **changed), batch)
    draws = [call[1] for call in calls if call[0] == "generator"]
    rows = np.concatenate([*draws, *(draw[0] for draw in recorded.draws)])
    assert len(np.unique(rows, axis=0)) == 2 * (UPDATES + 1) * ROWS


# The moving average, and what is not finite.


@pytest.fixture(scope="module")
def averaged(start, batch):
    """The program with a moving average that starts at the second step from `start`, and its first two states."""
    task = dataclasses.replace(TASK, average_decay=AVERAGE_DECAY, average_start_step=int(start.step) + 2)
    average = {"params": start.generator.params, "batch_stats": start.generator.batch_stats}
    first = dataclasses.replace(start, average=jax.tree.map(lambda leaf: leaf + 5.0, average))
    program = compiled(task, first, batch)
    second, _ = program(first, batch)
    third, _ = program(second, batch)
    return program, second, third


def test_average_is_empty_when_it_is_off(recorded):
    assert recorded.state.average == {}


def test_average_begins_as_the_generator():
    task = dataclasses.replace(TASK, average_decay=AVERAGE_DECAY)
    state = jax.eval_shape(lambda: initial_state(task, 0, (HEIGHT, WIDTH, CHANNELS)))
    assert state.average == {"params": state.generator.params, "batch_stats": state.generator.batch_stats}


def test_average_is_a_copy_of_the_generator_before_its_start(averaged):
    _, second, _ = averaged
    assert same_bits(second.average["params"], second.generator.params)
    assert same_bits(second.average["batch_stats"], second.generator.batch_stats)


def test_average_moves_by_its_decay_from_its_start(averaged):
    _, second, third = averaged
    new = {"params": third.generator.params, "batch_stats": third.generator.batch_stats}
    expected = jax.tree.map(
        lambda old, new: AVERAGE_DECAY * np.float64(old) + (1 - AVERAGE_DECAY) * np.float64(new), second.average, new
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), third.average, expected)


def test_average_is_in_float32(averaged):
    assert {leaf.dtype for leaf in jax.tree.leaves(averaged[2].average)} == {np.dtype(np.float32)}


@pytest.mark.slow
def test_average_does_not_change_the_training(averaged, start, batch):
    _, second, third = averaged
    program = compiled(TASK, start, batch)
    without, _ = program(start, batch)
    assert same_bits(dataclasses.replace(second, average={}), without)
    without, _ = program(without, batch)
    assert same_bits(dataclasses.replace(third, average={}), without)


@pytest.mark.parametrize("update", range(UPDATES))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_step_leaves_every_leaf_as_it_was_when_an_image_is_not_finite(value, update, averaged, batch):
    program, state, _ = averaged
    images = batch.images.copy()
    images[update, 3, 1, 2, 0] = value
    kept, metrics = program(state, batch._replace(images=images))
    assert not bool(metrics["finite"])
    assert same_bits(kept, state)


@pytest.mark.parametrize("update", range(UPDATES))
def test_step_leaves_every_leaf_as_it_was_when_one_update_alone_overflows(update, averaged, batch):
    """Images so large that squares overflow in that update only. The losses after it are finite again."""
    program, state, _ = averaged
    images = batch.images.copy()
    images[update] *= -1e25
    kept, metrics = program(state, batch._replace(images=images))
    assert not bool(metrics["finite"])
    assert not np.isfinite([metrics["discriminator/loss"], metrics["discriminator/gradient_norm"]]).all()
    assert same_bits(kept, state)


def test_step_moves_on_when_all_is_finite(averaged, batch):
    program, state, _ = averaged
    moved, metrics = program(state, batch)
    assert bool(metrics["finite"])
    assert int(moved.step) == int(state.step) + 1
    assert not same_bits(moved.generator.params, state.generator.params)


# The two-time-scale rule.


@pytest.mark.parametrize(("name", "rate"), [("generator", 1e-4), ("discriminator", 4e-4)])
def test_first_update_of_each_network_is_its_learning_rate_against_the_sign(name, rate):
    optimizer = getattr(two_time_scale(), name)
    params, gradient = np.zeros(3, np.float32), np.array([2e-3, -7.0, 0.4], np.float32)
    update, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(update, -rate * np.sign(gradient), rtol=1e-4)


def test_second_update_is_that_of_adam_without_first_moment():
    optimizer = two_time_scale(generator_learning_rate=0.5).generator
    params = np.zeros((), np.float32)
    state = optimizer.init(params)
    _, state = optimizer.update(np.float32(1.0), state, params)
    update, _ = optimizer.update(np.float32(3.0), state, params)
    # v = (0.9 * 0.1 * 1 + 0.1 * 9) / (1 - 0.9^2) = 0.99 / 0.19
    np.testing.assert_allclose(update, -0.5 * 3.0 / np.sqrt(0.99 / 0.19), rtol=1e-5)


@pytest.mark.slow
def test_orthogonal_penalty_pulls_at_the_kernels_of_the_generator_alone():
    key = jax.random.key(3)
    batch = Batch(
        jax.random.normal(key, (UPDATES, ROWS, HEIGHT, WIDTH, CHANNELS)),
        jax.random.randint(key, (UPDATES, ROWS), 0, CLASSES),
    )
    state = initial_state(TASK, 0, (HEIGHT, WIDTH, CHANNELS))
    penalised = dataclasses.replace(TASK, orthogonal_strength=0.25)
    (without, _), (after, metrics) = (jax.jit(partial(step, task))(state, batch) for task in (TASK, penalised))
    assert jax.tree.all(jax.tree.map(np.array_equal, without.discriminator.params, after.discriminator.params))
    total = 0.0
    before = jax.tree_util.tree_leaves_with_path(state.generator.params)
    pairs = zip(*(jax.tree.leaves(one.generator.params) for one in (without, after)), strict=True)
    for (path, start), (plain, pulled) in zip(before, pairs, strict=True):
        wanted = np.zeros(start.shape)
        if path[-1].key.endswith("kernel"):
            matrix = np.asarray(start, np.float64).reshape(-1, start.shape[-1])
            gram = matrix.T @ matrix
            others = gram * (1 - np.eye(len(gram)))
            total += (others**2).sum()
            wanted = (4 * matrix @ others).reshape(start.shape)
        assert np.allclose((plain - pulled) / (RATES["generator"] * 0.25), wanted, atol=2e-5, rtol=1e-3), path
    assert float(metrics["generator/orthogonal_penalty"]) == pytest.approx(total, rel=1e-4)
    assert "generator/orthogonal_penalty" not in jax.eval_shape(partial(step, TASK), state, batch)[1]


def test_neither_network_is_normalised_when_the_task_says_so():
    task = dataclasses.replace(TASK, spectral_norm="none")
    state = initial_state(task, 0, (HEIGHT, WIDTH, CHANNELS))
    assert (state.generator.spectral, state.discriminator.spectral) == ({}, {})
