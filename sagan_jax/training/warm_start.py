"""Starting a run from networks that were trained before."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from sagan_jax.training.adversarial import AdversarialState
from sagan_jax.training.network_state import NetworkState


def load_matching_params(player: NetworkState, donor: NetworkState) -> tuple[NetworkState, list[str]]:
    """Returns a player with the donor's parameters and statistics, and the paths of the parameters it has not.

    What the donor lacks, or has in another shape, stays as it was, with its vectors u and v; so does the optimiser.

    Args:
        player: freshly made.
        donor: trained; neither its vectors nor its optimiser are needed.
    """
    params, missing = _take(player.params, donor.params)
    statistics, _ = _take(player.batch_stats, donor.batch_stats)
    vectors, given = flatten_dict(player.spectral), flatten_dict(donor.spectral)
    spectral = {
        path: given[path] if path in given and path[:-1] not in missing else vector for path, vector in vectors.items()
    }
    adopted = dataclasses.replace(player, params=params, batch_stats=statistics, spectral=unflatten_dict(spectral))
    return adopted, ["/".join(path) for path in missing]


def warm_start(
    state: AdversarialState, donor: AdversarialState, *, discriminator: bool = True
) -> tuple[AdversarialState, dict[str, list[str]]]:
    """Returns a state at step 0 with the networks of another run, and by network the parameters that start anew.

    Args:
        state: freshly made.
        donor: of a run whose networks share parameters with these; its weights as trained, not their average.
        discriminator: whether D is taken too.
    """
    generator, missing = load_matching_params(state.generator, donor.generator)
    fresh = {"generator": missing}
    state = dataclasses.replace(state, generator=generator)
    if discriminator:
        judge, fresh["discriminator"] = load_matching_params(state.discriminator, donor.discriminator)
        state = dataclasses.replace(state, discriminator=judge)
    if state.average:
        average = {"params": generator.params, "batch_stats": generator.batch_stats}
        state = dataclasses.replace(state, average=jax.tree.map(jnp.copy, average))
    return state, fresh


def _take(tree: Any, donor: Any) -> tuple[Any, list[tuple[str, ...]]]:
    """Returns the tree with the donor's leaves where it has them, and the paths where it has not."""
    leaves: dict[tuple[str, ...], Any] = flatten_dict(tree)
    given: dict[tuple[str, ...], Any] = flatten_dict(donor)
    missing = [path for path, leaf in leaves.items() if path not in given or given[path].shape != leaf.shape]
    taken = {path: leaf if path in missing else given[path] for path, leaf in leaves.items()}
    return unflatten_dict(taken), missing
