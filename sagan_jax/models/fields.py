"""Optional fields of a network that a run sets, such as `axis_name` and `dtype`, in linen and in nnx modules."""

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn
from flax.core import FrozenDict

Network = TypeVar("Network", bound=nn.Module)


def has_field(network: nn.Module, name: str) -> bool:
    """Returns whether a network has a field.

    For a wrapped nnx module, the fields are the keyword arguments that `flax.nnx.bridge.to_linen` received.

    Examples:
        >>> has_field(nn.Dense(3), "dtype"), has_field(nn.Dense(3), "axis_name")
        (True, False)
    """
    arguments = _nnx_arguments(network)
    return hasattr(network, name) if arguments is None else name in arguments


def with_fields(network: Network, **values: Any) -> Network:
    """Returns the network with new values for some of its fields, which must exist.

    Examples:
        >>> with_fields(nn.Dense(3), use_bias=False).use_bias
        False
    """
    arguments = _nnx_arguments(network)
    return network.clone(**values) if arguments is None else network.clone(kwargs=FrozenDict({**arguments, **values}))


def _nnx_arguments(network: nn.Module) -> Mapping[str, Any] | None:
    """Returns the keyword arguments of a wrapped nnx module, or None for another module."""
    bridge: Any = sys.modules.get("flax.nnx.bridge")  # imported already if such a module exists
    return network.kwargs if bridge and isinstance(network, bridge.ToLinen) else None
