"""Warm start: initialises a run from trained networks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from sagan_jax.training.adversarial import AdversarialState
from sagan_jax.training.network_state import NetworkState


def load_matching_params(state: NetworkState, donor: NetworkState) -> tuple[NetworkState, list[str]]:
    """Returns the network with the donor's parameters and running moments, and the paths of the remaining parameters.

    A parameter that the donor lacks, or has in another shape, is unchanged, as are its vectors u and v. The optimiser
    state is unchanged.

    Args:
        state: a newly initialised network.
        donor: a trained network. Its vectors may be missing. Its optimiser state is not used.
    """
    params, missing = _take_matching(state.params, donor.params)
    batch_stats, _ = _take_matching(state.batch_stats, donor.batch_stats)
    vectors, given = flatten_dict(state.spectral), flatten_dict(donor.spectral)
    spectral = {
        path: given[path] if path in given and path[:-1] not in missing else vector for path, vector in vectors.items()
    }
    loaded = dataclasses.replace(state, params=params, batch_stats=batch_stats, spectral=unflatten_dict(spectral))
    return loaded, ["/".join(path) for path in missing]


def warm_start(
    state: AdversarialState, donor: AdversarialState, *, discriminator: bool = True
) -> tuple[AdversarialState, dict[str, list[str]]]:
    """Returns a state at step 0 with the networks of another run, and the paths of parameters not taken from it.

    The paths are lists by network: `generator`, and `discriminator` if the donor's D is used.

    Args:
        state: a newly initialised state.
        donor: the state of a run with matching parameters. Its trained parameters are used, not their moving average.
        discriminator: whether to use the donor's D too.
    """
    generator, missing = load_matching_params(state.generator, donor.generator)
    fresh = {"generator": missing}
    state = dataclasses.replace(state, generator=generator)
    if discriminator:
        loaded, fresh["discriminator"] = load_matching_params(state.discriminator, donor.discriminator)
        state = dataclasses.replace(state, discriminator=loaded)
    if state.average:
        state = dataclasses.replace(state, average=jax.tree.map(jnp.copy, generator.variables))
    return state, fresh


def _take_matching(
    tree: Mapping[str, Any], donor: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[tuple[str, ...]]]:
    """Returns the tree with the donor's leaves of the same path and shape, and the paths of the other leaves."""
    leaves: dict[tuple[str, ...], Any] = flatten_dict(tree)
    given: dict[tuple[str, ...], Any] = flatten_dict(donor)
    missing = [path for path, leaf in leaves.items() if path not in given or given[path].shape != leaf.shape]
    taken = {path: leaf if path in missing else given[path] for path, leaf in leaves.items()}
    return unflatten_dict(taken), missing
