"""One pass of G for both updates of a step, against the same step put together by hand in float64."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax import interop
from sagan_jax.functional import spectral_normalize_tree
from sagan_jax.models.sagan import Discriminator, Generator
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.training import adversarial
from sagan_jax.training.adversarial import AdversarialState, AdversarialTask, Batch, initial_state, step
from sagan_jax.training.flops import step_flops
from sagan_jax.training.network_state import NetworkState
from sagan_jax.training.optimizers import Optimizers
from support.devices import several_devices
from support.networks import SmallDiscriminator, SmallGenerator

# All different, so that no swapped axis can hide.
UPDATES, ROWS, HEIGHT, WIDTH, CHANNELS, LATENTS, CLASSES = 2, 8, 4, 6, 3, 7, 5
RATES = Optimizers(0.125, 0.5)

small_generator = partial(
    SmallGenerator, (HEIGHT, WIDTH, CHANNELS), num_features=9, num_classes=CLASSES, attention=True
)
small_discriminator = partial(SmallDiscriminator, num_features=10)

TASK = AdversarialTask(
    small_generator(),
    small_discriminator(),
    Optimizers(*map(optax.sgd, RATES)),
    latent_size=LATENTS,
    num_classes=CLASSES,
    shared_draws=True,
)


@pytest.fixture(scope="module")
def start():
    """A state away from the start, where gamma is 0 and hides the attention."""
    numbers = np.random.default_rng(3)
    state = initial_state(TASK, 3, (HEIGHT, WIDTH, CHANNELS))

    def moved(network):
        params = jax.tree.map(lambda leaf: leaf + np.float32(0.2) * numbers.normal(size=leaf.shape), network.params)
        return dataclasses.replace(network, params=jax.tree.map(jnp.float32, params))

    generator, discriminator = moved(state.generator), moved(state.discriminator)
    generator.params["attention_4"]["gamma"] = jnp.float32(0.6)
    return dataclasses.replace(state, generator=generator, discriminator=discriminator)


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(12)
    images = numbers.uniform(-1, 1, (UPDATES, ROWS, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
    return Batch(images, numbers.integers(0, CLASSES, (UPDATES, ROWS)).astype(np.int32))


class Taken(NamedTuple):
    state: Any
    metrics: dict[str, Any]
    passes: list[tuple[np.ndarray, ...]]
    """latents, labels and images of each pass of G"""


@pytest.fixture(scope="module")
def taken(start, batch):
    passes = []

    def record(_, *arrays):
        passes.append(tuple(map(np.array, arrays)))

    task = dataclasses.replace(TASK, generator=small_generator(record=record))
    state, metrics = jax.block_until_ready(jax.jit(partial(step, task))(start, batch))
    jax.effects_barrier()
    return Taken(state, metrics, passes)


# The same step by hand.


def normalized(params, spectral):
    """Returns the normalised parameters and the new vectors, u and v held constant."""

    def leaf(kernel, u):
        matrix = kernel.reshape(-1, kernel.shape[-1])
        constant = jax.lax.stop_gradient(matrix)
        v = constant @ u
        v = v / jnp.linalg.norm(v)
        u = v @ constant
        u = u / jnp.linalg.norm(u)
        return kernel / (v @ matrix @ u), {"u": u, "v": v}

    done = {
        layer: {name: leaf(params[layer][name], pair["u"]) for name, pair in part.items()}
        for layer, part in spectral.items()
    }
    kernels = {layer: part | {n: k for n, (k, _) in done.get(layer, {}).items()} for layer, part in params.items()}
    return kernels, {layer: {name: vectors for name, (_, vectors) in part.items()} for layer, part in done.items()}


def applied(network, params, statistics, *inputs):
    variables = {"params": params, "batch_stats": statistics}
    outputs, moved = network.apply(variables, *inputs, train=True, mutable=["batch_stats"])
    return outputs, moved["batch_stats"]


def discriminator_loss(params, network, reals, fakes):
    params, vectors = normalized(params, network["spectral"])
    real, statistics = applied(small_discriminator(), params, network["batch_stats"], reals, None)
    fake, _ = applied(small_discriminator(), params, network["batch_stats"], fakes, None)
    loss = jnp.maximum(0.0, 1.0 - real).mean() + jnp.maximum(0.0, 1.0 + fake).mean()
    return loss, {"spectral": vectors, "batch_stats": statistics}


def generator_loss(params, network, discriminator, latents, labels):
    params, vectors = normalized(params, network["spectral"])
    images, statistics = applied(small_generator(), params, network["batch_stats"], latents, labels)
    judge, _ = normalized(discriminator["params"], discriminator["spectral"])
    logits, _ = applied(small_discriminator(), judge, discriminator["batch_stats"], images, None)
    return -logits.mean(), {"spectral": vectors, "batch_stats": statistics}


@partial(jax.jit, static_argnames=("rate", "loss"))
def followed(network, rate, loss, *arguments):
    gradient, new = jax.grad(loss, has_aux=True)(network["params"], network, *arguments)
    return new | {"params": jax.tree.map(lambda leaf, slope: leaf - rate * slope, network["params"], gradient)}


def by_hand(start, batch, draws):
    """Returns both networks after D's updates and then G's, whose draw is that of D's last update."""

    def parts(network):
        trees = {name: getattr(network, name) for name in ("params", "spectral", "batch_stats")}
        return jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), trees)

    with jax.enable_x64(True):
        generator, discriminator = parts(start.generator), parts(start.discriminator)
        params, _ = normalized(generator["params"], generator["spectral"])
        for images, (latents, labels) in zip(np.float64(batch.images), draws, strict=True):
            fakes, _ = applied(small_generator(), params, generator["batch_stats"], np.float64(latents), labels)
            discriminator = followed(discriminator, RATES.discriminator, discriminator_loss, images, fakes)
        generator = followed(
            generator, RATES.generator, generator_loss, discriminator, np.float64(latents), np.asarray(labels)
        )
        return jax.tree.map(np.asarray, {"generator": generator, "discriminator": discriminator})


@pytest.fixture(scope="module")
def expected(start, batch, taken):
    shared, *others = taken.passes  # the shared pass is made first
    return by_hand(start, batch, [draw[:2] for draw in (*others, shared)])


def parts_of(state):
    return {
        name: {part: getattr(getattr(state, name), part) for part in ("params", "spectral", "batch_stats")}
        for name in ("generator", "discriminator")
    }


def distance(found, wanted):
    """The largest difference relative to the largest entry."""
    jax.tree.map(lambda one, other: np.testing.assert_equal(np.shape(one), np.shape(other)), found, wanted)
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))
    largest = max(np.abs(np.asarray(other)).max() for _, other in pairs)
    return max(np.abs(np.float64(one) - np.asarray(other)).max() for one, other in pairs) / largest


@pytest.mark.slow
@pytest.mark.one_jax
def test_generator_passes_once_for_each_update_of_the_discriminator(taken):
    assert len(taken.passes) == UPDATES
    assert len({draw[0].tobytes() for draw in taken.passes}) == UPDATES


@pytest.mark.parametrize("part", ["params", "spectral", "batch_stats"])
@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_step_is_the_one_put_together_by_hand(name, part, taken, expected, start):
    found, wanted = parts_of(taken.state)[name][part], expected[name][part]
    assert distance(found, wanted) < 1e-5
    assert distance(parts_of(start)[name][part], wanted) > 1e-3


def test_generator_follows_the_gradient_by_hand(taken, expected, start):
    """Compares gradients, because the parameters are much larger than their change in an update."""

    def moved(params):
        return jax.tree.map(lambda new, old: (np.float64(new) - old) / RATES.generator, params, start.generator.params)

    assert distance(moved(taken.state.generator.params), moved(expected["generator"]["params"])) < 1e-4


@pytest.mark.slow
@pytest.mark.one_jax
def test_two_devices_take_the_step_of_one(taken, start, batch):
    parallel = ParallelStep(partial(step, TASK), devices=several_devices(2))
    state, _ = parallel(parallel.replicate(start), batch)
    assert distance(parts_of(state), parts_of(taken.state)) < 1e-5


@pytest.mark.slow
@pytest.mark.one_jax
def test_discriminator_of_a_step_without_shared_draws_is_the_same(taken, start, batch):
    state, _ = jax.jit(partial(step, dataclasses.replace(TASK, shared_draws=False)))(start, batch)
    assert distance(parts_of(state)["discriminator"], parts_of(taken.state)["discriminator"]) < 1e-5
    assert distance(state.generator.params, taken.state.generator.params) > 1e-3


@pytest.mark.slow
@pytest.mark.one_jax
def test_a_pass_of_the_generator_is_saved():
    """Counts G's convolutions by hand, at 32 pixels without attention and classes."""
    base, rows = 24, 8

    def forward():
        total, last = 0, 4 * base
        for size in (8, 16, 32):
            inputs, outputs = last, 4 * base
            total += 2 * 9 * (size // 2) ** 2 * inputs * outputs  # of the small map, before it is upsampled
            total += 2 * (3 * size - 2) ** 2 * outputs * outputs
            total += 2 * (size // 2) ** 2 * inputs * outputs
            last = outputs
        return rows * (total + 2 * (3 * 32 - 2) ** 2 * last * 3)

    plain = AdversarialTask(
        Generator(32, 0, base, attention_resolutions=()),
        Discriminator(32, 0, 4, attention_resolutions=()),
        num_classes=0,
    )
    counts = [step_flops(task, rows, (32, 32, 3)) for task in (plain, dataclasses.replace(plain, shared_draws=True))]
    assert 1.0 < (counts[0] - counts[1]) / forward() < 1.03


def test_microbatches_are_refused():
    with pytest.raises(ValueError, match=r"shared_draws .* needs accumulation_steps=1; got 3"):
        dataclasses.replace(TASK, accumulation_steps=3)


# The authors' graph: one pass of G, whose images both of its losses see.


def gradient_recorder():
    """An optimiser that holds the network still, and whose state is the gradient."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, state, params=None: (jax.tree.map(jnp.zeros_like, gradient), gradient),
    )


def network_state(variables, params, spectral):
    return NetworkState(params, spectral, variables.get("batch_stats", {}), gradient_recorder().init(params))


@pytest.mark.slow
def test_both_gradients_are_those_of_the_authors_graph_on_its_draw(golden, monkeypatch):
    with np.load(golden / "official-feat32.npz") as vectors:
        arrays = {name: vectors[name] for name in vectors.files}
    networks = interop.load(
        "official", {name.removeprefix("var/"): array for name, array in arrays.items() if name.startswith("var/")}
    )
    generator, discriminator = networks.generator_variables, networks.discriminator_variables

    def normalize(params):
        return spectral_normalize_tree(params, discriminator["spectral"], **networks.spectral_rule)[0]

    # D is normalised here, from the stored u as in the graph: in a step its vectors move before G's update.
    params, vjp_fn = jax.vjp(normalize, discriminator["params"])
    state = AdversarialState(
        jnp.int32(0),
        jnp.uint32(0),
        network_state(generator, generator["params"], generator["spectral"]),
        network_state(discriminator, params, {}),
        {},
    )
    task = AdversarialTask(
        networks.generator,
        networks.discriminator,
        Optimizers(gradient_recorder(), gradient_recorder()),
        networks.latent_size,
        networks.generator.num_classes,
        spectral_epsilon=networks.spectral_rule["epsilon"],
        differentiate_vectors=networks.spectral_rule["differentiate_vectors"],
        shared_draws=True,
    )
    keys = jax.random.split(jax.random.key(0), 4)
    draws = adversarial._Draws(arrays["in/z"], arrays["in/fake_labels"], keys, keys, np.zeros(4, bool))
    monkeypatch.setattr(adversarial, "_draw", lambda *_: draws)
    batch = Batch(arrays["in/real_images"][None], arrays["in/real_labels"][None])
    new, metrics = jax.jit(partial(step, task))(state, batch)
    for name, metric in (("d_loss", "discriminator/loss"), ("g_loss", "generator/loss")):
        np.testing.assert_allclose(metrics[metric], arrays[f"out/{name}"], rtol=1e-4)
    for side, gradient in (("g", new.generator.optimizer), ("d", vjp_fn(new.discriminator.optimizer)[0])):
        ours = networks.source_names(gradient)
        prefix = f"grad_{side}_loss/"
        theirs = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        assert ours.keys() == theirs.keys()
        scale = max(np.abs(value).max() for value in theirs.values())
        # A batch norm cancels some biases, so their gradients are only rounding.
        off = {
            name: np.abs(ours[name] - value).max() / max(np.abs(value).max(), 1e-2 * scale)
            for name, value in theirs.items()
        }
        assert {name: error for name, error in off.items() if error >= 1e-3} == {}
