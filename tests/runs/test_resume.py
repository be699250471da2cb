"""A run that stops and goes on is the run that never stopped: every leaf of the state, not the losses."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from sagan_jax.data import training_batches
from sagan_jax.runtime.checkpoints import Checkpoints, state_digest
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step
from support.networks import SmallDiscriminator, SmallGenerator
from support.sources import NoiseImages

HALF, WHOLE = 2, 4
SIZE = 4


GAME = AdversarialTask(
    SmallGenerator((SIZE, SIZE, 3), num_features=8, attention=True),
    SmallDiscriminator(num_features=8),
    latent_size=6,
    num_classes=5,
    average_decay=0.5,
)


@pytest.fixture(scope="module")
def program():
    # The program runs for milliseconds, so optimising it would take most of the time.
    return jax.jit(partial(step, GAME), compiler_options={"xla_backend_optimization_level": 0})


def fresh():
    return initial_state(GAME, 3, (SIZE, SIZE, 3))


def run(program, state, first_step, last_step, *, data_from=None):
    start = first_step if data_from is None else data_from
    batches = training_batches(
        NoiseImages(23, SIZE),
        batch_size=4,
        discriminator_steps=2,
        seed=3,
        first_step=start,
        total_steps=start + last_step - first_step,
    )
    for images, labels in batches:
        state, _ = program(state, Batch(images, labels))
    return state


@pytest.fixture(scope="module")
def stopped(program, tmp_path_factory):
    """The state in the checkpoint of a run that stopped halfway, and the digest of a run that never stopped."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(HALF, run(program, fresh(), 0, HALF), {})
    _, state, _ = Checkpoints(folder).restore(jax.eval_shape(fresh))
    return state, state_digest(run(program, fresh(), 0, WHOLE))


def test_resumed_run_ends_bit_for_bit_where_the_unbroken_one_does(program, stopped):
    state, unbroken = stopped
    assert state_digest(run(program, state, HALF, WHOLE)) == unbroken


@pytest.mark.slow
@pytest.mark.one_jax
def test_resumed_run_with_shared_draws_ends_bit_for_bit_where_the_unbroken_one_does(tmp_path):
    task = dataclasses.replace(GAME, shared_draws=True)
    program = jax.jit(partial(step, task), compiler_options={"xla_backend_optimization_level": 0})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(HALF, run(program, fresh(), 0, HALF), {})
    _, state, _ = Checkpoints(tmp_path).restore(jax.eval_shape(fresh))
    assert state_digest(run(program, state, HALF, WHOLE)) == state_digest(run(program, fresh(), 0, WHOLE))


def replaced(state, name, part, value):
    return dataclasses.replace(state, **{name: dataclasses.replace(getattr(state, name), **{part: value})})


def without(state, name, part):
    return replaced(state, name, part, getattr(getattr(fresh(), name), part))


def forget_vector(state, name, side):
    start = getattr(fresh(), name).spectral
    mixed = jax.tree_util.tree_map_with_path(
        lambda path, kept, new: new if path[-1].key == side else kept, getattr(state, name).spectral, start
    )
    return replaced(state, name, "spectral", mixed)


LEFT_OUT = {
    "average": lambda state: dataclasses.replace(state, average=fresh().average),
    "step": lambda state: dataclasses.replace(state, step=jnp.int32(0)),
    "seed": lambda state: dataclasses.replace(state, seed=jnp.uint32(0)),
    **{
        f"{name} {part}": partial(without, name=name, part=part)
        for name in ("generator", "discriminator")
        for part in ("params", "optimizer", "batch_stats")
    },
    **{f"{name} u": partial(forget_vector, name=name, side="u") for name in ("generator", "discriminator")},
}


@pytest.mark.parametrize("part", LEFT_OUT)
def test_resume_without_a_part_of_the_state_ends_elsewhere(part, program, stopped):
    state, unbroken = stopped
    assert state_digest(run(program, LEFT_OUT[part](state), HALF, WHOLE)) != unbroken


def test_resume_with_the_data_from_the_start_ends_elsewhere(program, stopped):
    state, unbroken = stopped
    assert state_digest(run(program, state, HALF, WHOLE, data_from=0)) != unbroken


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_v_is_stored_for_evaluation_and_follows_from_u_in_training(name, program, stopped):
    """Without v the stored state differs, but the training does not: the next step computes v from u."""
    state, unbroken = stopped
    forgotten = forget_vector(state, name, "v")
    assert state_digest(forgotten) != state_digest(state)
    assert state_digest(run(program, forgotten, HALF, WHOLE)) == unbroken
