"""Warm start: initialises a run from trained networks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from sagan_jax.training.adversarial import AdversarialState
from sagan_jax.training.network_state import NetworkState


def load_matching_params(state: NetworkState, pretrained: NetworkState) -> tuple[NetworkState, list[str]]:
    """Returns the network with pretrained parameters and running moments, and the paths of the other parameters.

    A parameter that the pretrained network lacks, or has in another shape, is unchanged, as are its vectors u and v.
    The optimiser state is unchanged.

    Args:
        state: a newly initialised network.
        pretrained: a trained network. Its vectors may be missing. Its optimiser state is not used.
    """
    params, missing = _take_matching(state.params, pretrained.params)
    batch_stats, _ = _take_matching(state.batch_stats, pretrained.batch_stats)
    vectors, given = flatten_dict(state.spectral), flatten_dict(pretrained.spectral)
    spectral = {
        path: given[path] if path in given and path[:-1] not in missing else vector for path, vector in vectors.items()
    }
    loaded = dataclasses.replace(state, params=params, batch_stats=batch_stats, spectral=unflatten_dict(spectral))
    return loaded, ["/".join(path) for path in missing]


def warm_start(
    state: AdversarialState, pretrained: AdversarialState, *, discriminator: bool = True
) -> tuple[AdversarialState, dict[str, list[str]]]:
    """Returns a state at step 0 with the networks of another run, and the paths of parameters not taken from it.

    The paths are lists by network: `generator`, and `discriminator` if the pretrained network's D is used.

    Args:
        state: a newly initialised state.
        pretrained: the state of a run with matching parameters. Its trained parameters are used, not their average.
        discriminator: whether to use the pretrained network's D too.
    """
    generator, missing = load_matching_params(state.generator, pretrained.generator)
    fresh = {"generator": missing}
    state = dataclasses.replace(state, generator=generator)
    if discriminator:
        loaded, fresh["discriminator"] = load_matching_params(state.discriminator, pretrained.discriminator)
        state = dataclasses.replace(state, discriminator=loaded)
    if state.average:
        state = dataclasses.replace(state, average=jax.tree.map(jnp.copy, generator.variables))
    return state, fresh


def _take_matching(
    tree: Mapping[str, Any], pretrained: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[tuple[str, ...]]]:
    """Returns the tree with the pretrained leaves of the same path and shape, and the paths of the other leaves."""
    leaves: dict[tuple[str, ...], Any] = flatten_dict(tree)
    given: dict[tuple[str, ...], Any] = flatten_dict(pretrained)
    missing = [path for path, leaf in leaves.items() if path not in given or given[path].shape != leaf.shape]
    taken = {path: leaf if path in missing else given[path] for path, leaf in leaves.items()}
    return unflatten_dict(taken), missing
