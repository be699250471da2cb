"""A network under training: what it carries from step to step, and its spectral normalisation.

The names of types here serve the whole room. Trees are nested dictionaries of arrays, as flax makes them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.struct
import jax
import optax
from jax import Array

from sagan_jax.functional.spectral import init_spectral

Params: TypeAlias = Mapping[str, Any]
"""the trainable arrays of a network, or a gradient of them"""
BatchStats: TypeAlias = Mapping[str, Any]
"""the running moments of a network's norms; empty where it has none"""
Spectral: TypeAlias = Mapping[str, Any]
"""the vectors u and v of every normalised kernel; empty where the network is not normalised"""
Sigmas: TypeAlias = Mapping[str, Any]
"""the largest singular value of every normalised kernel"""
Variables: TypeAlias = Mapping[str, Any]
"""what `apply` of a network takes: `params` and, where it has norms, `batch_stats`"""
Metrics: TypeAlias = dict[str, Array]
"""scalars by name"""


@flax.struct.dataclass
class NetworkState:
    """All that one network carries from step to step."""

    params: Params
    spectral: Spectral
    batch_stats: BatchStats
    optimizer: optax.OptState

    @property
    def variables(self) -> Variables:
        """The parameters as stored, which are not normalised, and the running moments."""
        return {"params": self.params, "batch_stats": self.batch_stats}


Normalize: TypeAlias = Callable[[NetworkState], tuple[Params, Spectral, Sigmas]]
"""maps a network to its spectrally normalised parameters, its new vectors, and the sigmas"""


def init_network_state(
    variables: Variables, optimizer: optax.GradientTransformation, spectral_key: Array | None = None
) -> NetworkState:
    """Returns a network before its first step. Call it in `jax.jit`, where it is one program instead of hundreds.

    Args:
        variables: what the network's `init` returned.
        optimizer: of this network.
        spectral_key: draws the vectors u of the kernels. None means that the network is not spectrally normalised.
    """
    params = variables["params"]
    return NetworkState(
        params=params,
        spectral={} if spectral_key is None else init_spectral(spectral_key, params),
        batch_stats=variables.get("batch_stats", {}),
        optimizer=optimizer.init(params),
    )


class Normalized(NamedTuple):
    """What one spectral normalisation of a network gives. All passes of an update share it."""

    params: Params
    """the normalised parameters"""
    vjp_fn: Callable[[Params], Params]
    """maps a gradient of the normalised parameters to the gradient of the stored ones"""
    found: tuple[Spectral, Sigmas]
    """the new vectors, and the sigmas"""


def normalized_variables(normalize: Normalize, state: NetworkState) -> Variables:
    """Returns the variables of a network as the update of another network sees it: normalised, and standing still.

    Args:
        normalize: of the task.
        state: the network. Its vectors do not move.
    """
    params, _, _ = normalize(state)
    return {"params": params, "batch_stats": state.batch_stats}


def normalize_with_vjp(normalize: Normalize, state: NetworkState) -> Normalized:
    """Returns the normalised parameters, their VJP function, and the new vectors with the sigmas.

    Args:
        normalize: of the task.
        state: the network.
    """

    def normalized(params: Params) -> tuple[Params, tuple[Spectral, Sigmas]]:
        params, spectral, sigmas = normalize(dataclasses.replace(state, params=params))
        return params, (spectral, sigmas)

    params, vjp_fn, found = jax.vjp(normalized, state.params, has_aux=True)
    return Normalized(params, lambda gradients: vjp_fn(gradients)[0], found)
