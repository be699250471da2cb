"""Which parameters a run takes over from another, and which it keeps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.training.adversarial import AdversarialState
from sagan_jax.training.network_state import NetworkState
from sagan_jax.training.warm_start import load_matching_params, warm_start


def network(value, shapes, statistics=("norm",)):
    """Kernels of the given shapes with their vectors, all of one value."""
    params = {name: {"kernel": jnp.full(shape, value)} for name, shape in shapes.items()}
    spectral = {
        name: {"kernel": {"u": jnp.full(shape[1:], value), "v": jnp.full(shape[:1], value)}}
        for name, shape in shapes.items()
    }
    return NetworkState(
        params=params,
        spectral=spectral,
        batch_stats={name: {"mean": jnp.full(3, value)} for name in statistics},
        optimizer=optax.adam(1.0).init(params),
    )


def values(tree):
    return {float(leaf) for leaf in np.ravel(tree)}


@pytest.fixture
def fresh():
    return network(1.0, {"same": (2, 3), "other": (4, 5), "new": (6, 7)}, ("norm", "added"))


@pytest.fixture
def donor():
    return network(2.0, {"same": (2, 3), "other": (4, 9), "gone": (3, 3)})


def test_load_matching_params_takes_what_has_the_same_path_and_shape(fresh, donor):
    loaded, missing = load_matching_params(fresh, donor)
    found = {name: values(part["kernel"]) for name, part in loaded.params.items()}
    assert found == {"same": {2.0}, "other": {1.0}, "new": {1.0}}
    assert missing == ["other/kernel", "new/kernel"]
    assert {name: values(part["mean"]) for name, part in loaded.batch_stats.items()} == {"norm": {2.0}, "added": {1.0}}


def test_load_matching_params_keeps_the_vectors_of_what_stays(fresh, donor):
    """The left vector of `other` has the same shape in both, and belongs to a kernel that was not taken."""
    spectral = load_matching_params(fresh, donor)[0].spectral
    found = {name: values(part["kernel"]["v"]) for name, part in spectral.items()}
    assert found == {"same": {2.0}, "other": {1.0}, "new": {1.0}}
    assert values(spectral["same"]["kernel"]["u"]) == {2.0}


def test_load_matching_params_of_a_network_that_was_not_normalised_keeps_fresh_vectors(fresh, donor):
    loaded, _ = load_matching_params(fresh, donor.replace(spectral={}))
    assert values(loaded.spectral["same"]["kernel"]["u"]) == {1.0}
    assert values(loaded.params["same"]["kernel"]) == {2.0}
    assert load_matching_params(fresh.replace(spectral={}), donor)[0].spectral == {}


def state(generator, discriminator, average):
    return AdversarialState(
        step=jnp.int32(5), seed=jnp.uint32(0), generator=generator, discriminator=discriminator, average=average
    )


@pytest.mark.parametrize("discriminator", [True, False])
def test_warm_start_takes_both_networks_and_restarts_the_average_from_the_generator(fresh, donor, discriminator):
    old = {"params": donor.params, "batch_stats": donor.batch_stats}
    fresh_state = state(fresh, fresh, {"params": fresh.params, "batch_stats": fresh.batch_stats}).replace(
        step=jnp.int32(0)
    )
    started, missing = warm_start(fresh_state, state(donor, donor, old), discriminator=discriminator)
    assert int(started.step) == 0
    assert values(started.generator.params["same"]["kernel"]) == {2.0}
    assert values(started.discriminator.params["same"]["kernel"]) == ({2.0} if discriminator else {1.0})
    assert ("discriminator" in missing) == discriminator
    assert values(started.average["params"]["same"]["kernel"]) == {2.0}
    assert values(started.average["params"]["new"]["kernel"]) == {1.0}
    # Donated with the rest of the state: it may share no buffer.
    assert started.average["params"]["new"]["kernel"] is not started.generator.params["new"]["kernel"]
    assert started.generator.optimizer is fresh.optimizer


def test_warm_start_leaves_the_average_empty_where_it_is_off(fresh, donor):
    assert warm_start(state(fresh, fresh, {}), state(donor, donor, {"params": donor.params}))[0].average == {}
