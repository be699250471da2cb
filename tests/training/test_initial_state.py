"""The state before the first step: it has the bits of networks, vectors and optimisers that are made separately."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional import init_spectral
from sagan_jax.models import biggan, sagan
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.training import adversarial, completion
from sagan_jax.training.adversarial import AdversarialTask
from sagan_jax.training.completion import CompletionTask
from support.assertions import same_bits
from support.networks import SmallDiscriminator, SmallGenerator

SIZE, LATENTS, CLASSES = 32, 6, 3
NETWORKS = {
    "sagan": (
        sagan.Generator(SIZE, CLASSES, 1, attention_resolutions=(16,)),
        sagan.Discriminator(SIZE, CLASSES, 2, attention_resolutions=(16,)),
    ),
    # Its kernels are orthogonal. Drawn in the program of their spectral vectors, they would have other last bits.
    "biggan": (
        biggan.Generator(SIZE, CLASSES, 1, attention_resolutions=(16,), shared_size=5, hierarchical=False),
        biggan.Discriminator(SIZE, CLASSES, 2, attention_resolutions=(16,)),
    ),
}


def alone(network, optimizer, key, inputs, third, normalized, **options):
    """Returns a network's state as separate programs make it, which is how it was made in earlier versions."""
    variables = jax.jit(partial(network.init, **options))(key, inputs, third)
    params = variables["params"]
    spectral = jax.jit(init_spectral)(jax.random.fold_in(key, 1), params) if normalized else {}
    return params, spectral, variables.get("batch_stats", {}), jax.jit(optimizer.init)(params)


def parts(state):
    return state.params, state.spectral, state.batch_stats, state.optimizer


def separate(state):
    """Tells whether no two arrays of a state share memory: the step donates all of them."""
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) if leaf.size]
    return len(set(places)) == len(places)


@pytest.mark.slow
@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize(("seed", "normalized"), [(0, "both"), (2**32 - 5, "discriminator")])
def test_state_of_both_networks_is_bit_for_bit_that_of_each_alone(family, seed, normalized):
    generator, discriminator = NETWORKS[family]
    task = AdversarialTask(
        generator, discriminator, latent_size=LATENTS, num_classes=CLASSES, average_decay=0.9, spectral_norm=normalized
    )
    state = adversarial.initial_state(task, seed, (SIZE, SIZE, 3))
    keys = jax.random.split(jax.random.key(seed))
    labels = jnp.zeros(2, jnp.int32)
    latents, images = jnp.zeros((2, LATENTS)), jnp.zeros((2, SIZE, SIZE, 3))
    optimizers, options = task.optimizers, {"train": False}
    wanted = alone(generator, optimizers.generator, keys[0], latents, labels, normalized == "both", **options)
    assert same_bits(parts(state.generator), wanted)
    wanted = alone(discriminator, optimizers.discriminator, keys[1], images, labels, True, **options)
    assert same_bits(parts(state.discriminator), wanted)
    assert same_bits(state.average, state.generator.variables)
    assert (int(state.step), int(state.seed), state.seed.dtype) == (0, seed, np.uint32)
    assert separate(state)


@pytest.mark.slow
def test_state_of_a_completion_is_bit_for_bit_that_of_each_network_alone():
    size = 64
    network = CompletionNetwork(size, 3, 1, LATENTS, attention_resolutions=(8,))
    discriminator = sagan.Discriminator(size, 0, 1, attention_resolutions=())
    adam, sgd = optax.adam(0.5), optax.sgd(0.25)
    task = CompletionTask(network, adam, discriminator=discriminator, discriminator_optimizer=sgd, average_decay=0.9)
    state = completion.initial_state(task, 11)
    keys = jax.random.split(jax.random.key(11))
    images, masks = jnp.zeros((2, size, size, 3)), jnp.zeros((2, size, size), bool)
    assert same_bits(parts(state.network), alone(network, adam, keys[0], images, masks, False))
    wanted = alone(discriminator, sgd, keys[1], images, None, True, train=False)
    assert same_bits(parts(state.discriminator), wanted)
    assert same_bits(state.average, state.network.params)
    assert separate(state)


class ListedGenerator(SmallGenerator):
    sizes: Sequence[int] = (4, 4)


def test_network_with_a_list_among_its_fields_is_initialised_trained_and_sampled():
    task = AdversarialTask(
        ListedGenerator((4, 4, 3), sizes=[4, 4]), SmallDiscriminator(), latent_size=LATENTS, num_classes=CLASSES
    )
    state = adversarial.initial_state(task, 5, (4, 4, 3))
    plain = dataclasses.replace(task, generator=SmallGenerator((4, 4, 3)))
    assert same_bits(state, adversarial.initial_state(plain, 5, (4, 4, 3)))
    batch = adversarial.Batch(np.zeros((1, 4, 4, 4, 3), np.float32), np.zeros((1, 4), np.int32))
    jax.eval_shape(partial(adversarial.step, task), state, batch)
    trained = TrainedGenerator(task.generator, dict(state.generator.variables), LATENTS, CLASSES, step=0)
    assert trained.generate(3, batch_size=3).images.shape == (3, 4, 4, 3)
