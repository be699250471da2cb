"""A network under training, of any task: what it carries from step to step, and one step of its optimiser."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import optax
from jax import Array

from sagan_jax.functional.spectral import init_spectral
from sagan_jax.training.accumulation import Metrics


@flax.struct.dataclass
class NetworkState:
    """All that one network carries from step to step."""

    params: Any
    spectral: Any
    """the vectors u and v of every normalised kernel; empty when the network is not normalised"""
    batch_stats: Any
    optimizer: Any


def init_network_state(
    variables: Mapping[str, Any], optimizer: optax.GradientTransformation, spectral_key: Array | None = None
) -> NetworkState:
    """Returns a network before its first step.

    Args:
        variables: of `init`: `params`, and `batch_stats` where it has norms.
        optimizer: its own.
        spectral_key: draws the vectors u of its kernels; None where it is not spectrally normalised.
    """
    params = variables["params"]
    return NetworkState(
        params=params,
        spectral={} if spectral_key is None else jax.jit(init_spectral)(spectral_key, params),
        batch_stats=variables.get("batch_stats", {}),
        optimizer=jax.jit(optimizer.init)(params),  # one program, not one for each shape
    )


def normalize_with_vjp(
    normalize: Callable[[NetworkState], tuple[Any, Any, Any]], player: NetworkState
) -> tuple[Any, Callable[[Any], Any], tuple[Any, Any]]:
    """Returns the normalised parameters, the way back from their gradient to the stored ones', vectors and sigmas.

    Args:
        normalize: returns a player's normalised parameters, its new vectors, and the sigmas.
        player: the network.
    """

    def parts(params: Any) -> tuple[Any, tuple[Any, Any]]:
        params, spectral, sigmas = normalize(dataclasses.replace(player, params=params))
        return params, (spectral, sigmas)

    params, pull, found = jax.vjp(parts, player.params, has_aux=True)
    return params, lambda slopes: pull(slopes)[0], found


def apply_gradients(
    name: str,
    optimizer: optax.GradientTransformation,
    player: NetworkState,
    gradients: Any,
    spectral: Any,
    statistics: Any,
    metrics: Metrics,
    axis_name: str | None,
) -> tuple[NetworkState, Metrics]:
    """Returns the player one optimiser step further, and the metrics with its gradient's norm and every gamma.

    Args:
        name: of the network, in front of its metrics.
        optimizer: its own.
        player: before the step.
        gradients: of its stored parameters; like statistics and metrics they are averaged over devices first.
        spectral: the new vectors, which every device computes alike.
        statistics: the new running moments.
        metrics: what was measured.
        axis_name: the mapped axis over devices, or None for one device.
    """
    gradients, statistics, metrics = mean_over_devices((gradients, statistics, metrics), axis_name)
    updates, optimizer_state = optimizer.update(gradients, player.optimizer, player.params)
    params = optax.apply_updates(player.params, updates)
    metrics |= {f"{name}/gradient_norm": optax.tree.norm(gradients)} | _gammas(name, player.params)
    return NetworkState(params=params, spectral=spectral, batch_stats=statistics, optimizer=optimizer_state), metrics


def mean_over_devices(tree: Any, axis_name: str | None) -> Any:
    """Returns the mean of what each device has; the tree itself where there is one device."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def named(prefix: str, tree: Any) -> Metrics:
    """Returns the leaves of a tree by prefix and path, the closing `kernel` left out."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join([prefix, *(key.key for key in path)]).removesuffix("/kernel"): leaf for path, leaf in leaves}


def _gammas(name: str, params: Mapping[str, Any]) -> Metrics:
    """Returns every attention layer's gamma, such as `generator/gamma_32`, the names of the parts it lies in before."""
    found = {}
    for layer, part in params.items():
        if layer.startswith("attention_"):
            if "gamma" in part:
                found[f"{name}/gamma_{layer.removeprefix('attention_')}"] = part["gamma"]
        elif isinstance(part, Mapping):
            found |= _gammas(f"{name}/{layer}", part)
    return found
