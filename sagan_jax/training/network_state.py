"""The training state of one network, and its spectral normalisation.

The type aliases here are used throughout `sagan_jax.training`. Trees are nested dictionaries of arrays, as in flax.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.struct
import jax
import optax
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from sagan_jax.functional.spectral import init_spectral

Params: TypeAlias = Mapping[str, Any]
"""the trainable parameters of a network, or a gradient with respect to them"""
BatchStats: TypeAlias = Mapping[str, Any]
"""the running moments of a network's norms; empty without norms"""
Spectral: TypeAlias = Mapping[str, Any]
"""the vectors u and v of every normalised kernel; empty without spectral normalisation"""
Sigmas: TypeAlias = Mapping[str, Any]
"""the largest singular value of every normalised kernel"""
Variables: TypeAlias = Mapping[str, Any]
"""the variables of a network's `apply`: `params` and, if it has norms, `batch_stats`"""
Metrics: TypeAlias = dict[str, Array]
"""scalars by name"""


@flax.struct.dataclass
class NetworkState:
    """The state of one network that is carried from step to step."""

    params: Params
    spectral: Spectral
    batch_stats: BatchStats
    optimizer: optax.OptState

    @property
    def variables(self) -> Variables:
        """The stored parameters, before spectral normalisation, and the running moments."""
        return {"params": self.params, "batch_stats": self.batch_stats}


Normalize: TypeAlias = Callable[[NetworkState], tuple[Params, Spectral, Sigmas]]
"""maps a network to its spectrally normalised parameters, its new vectors, and the sigmas"""


def init_network_state(
    variables: Variables, optimizer: optax.GradientTransformation, spectral_key: Array | None = None
) -> NetworkState:
    """Returns the state of a network before its first step.

    Call this under `jax.jit`, which compiles one program instead of hundreds.

    Args:
        variables: the result of the network's `init`.
        optimizer: the optimiser of this network.
        spectral_key: the PRNG key of the vectors u. None means that the network is not spectrally normalised.
    """
    params = variables["params"]
    return NetworkState(
        params=params,
        spectral={} if spectral_key is None else init_spectral(spectral_key, params),
        batch_stats=variables.get("batch_stats", {}),
        optimizer=optimizer.init(params),
    )


class Normalized(NamedTuple):
    """The result of one spectral normalisation of a network. All passes of an update share it."""

    params: Params
    """the normalised parameters"""
    vjp_fn: Callable[[Params], Params]
    """maps a gradient with respect to the normalised parameters to one with respect to the stored parameters"""
    found: tuple[Spectral, Sigmas]
    """the new vectors, and the sigmas"""


def normalized_variables(normalize: Normalize, state: NetworkState) -> Variables:
    """Returns the normalised variables of a network that stays fixed while another network is updated.

    Args:
        normalize: the normalisation function of the task.
        state: the network. Its vectors are not updated.
    """
    params, _, _ = normalize(state)
    return {"params": params, "batch_stats": state.batch_stats}


def normalize_with_vjp(normalize: Normalize, state: NetworkState) -> Normalized:
    """Returns the normalised parameters, their VJP function, and the new vectors with the sigmas.

    Args:
        normalize: the normalisation function of the task.
        state: the network.
    """

    def normalized(params: Params) -> tuple[Params, tuple[Spectral, Sigmas]]:
        params, spectral, sigmas = normalize(dataclasses.replace(state, params=params))
        return params, (spectral, sigmas)

    params, vjp_fn, found = jax.vjp(normalized, state.params, has_aux=True)
    # XLA would give parameters and optimiser states the layout of kernels in cuDNN, and copy them in each step.
    params = jax.lax.platform_dependent(params, cuda=_in_row_major_order, default=lambda params: params)
    return Normalized(params, lambda gradients: vjp_fn(gradients)[0], found)


def _in_row_major_order(tree: Params) -> Params:
    """Returns the arrays of a tree, with the layout that the arguments and results of a program have."""
    return jax.tree.map(lambda leaf: with_layout_constraint(leaf, Layout(tuple(range(leaf.ndim)))), tree)
