"""The paper's experiment at its full width: one step on real photographs."""

from functools import partial

import jax
import numpy as np
import pytest

from sagan_jax.cli.experiments import load_experiment
from sagan_jax.cli.wiring import build_game
from sagan_jax.data import open_source, training_batches
from sagan_jax.training.adversarial import Batch, initial_state, step

pytestmark = pytest.mark.slow


def test_imagenet_experiment_takes_one_full_width_step_on_real_images(shared):
    experiment = load_experiment("imagenet_128")
    source = open_source(str(shared / "data" / "imagenet-sample.zip"), resolution=experiment.networks.resolution)
    batches = training_batches(
        source, batch_size=2, discriminator_steps=1, seed=experiment.training.seed, first_step=0, total_steps=1
    )
    game = build_game(experiment)
    state = initial_state(game, experiment.training.seed, (128, 128, 3))
    parameters = [
        sum(leaf.size for leaf in jax.tree.leaves(player.params)) for player in (state.generator, state.discriminator)
    ]
    assert parameters == [42_078_852, 39_463_618]
    before = [np.array(player.params["linear"]["kernel"]) for player in (state.generator, state.discriminator)]
    state, metrics = jax.jit(partial(step, game), donate_argnums=0)(state, Batch(*next(batches)))
    assert bool(metrics["finite"])
    assert int(state.step) == 1
    # Adam's first step has the size of the rate whatever the gradient: both networks moved, each at its own rate.
    after = [np.asarray(player.params["linear"]["kernel"]) for player in (state.generator, state.discriminator)]
    moved = [np.abs(new - old).max() for new, old in zip(after, before, strict=True)]
    training = experiment.training
    assert np.allclose(moved, [training.generator_learning_rate, training.discriminator_learning_rate], rtol=0.01)
