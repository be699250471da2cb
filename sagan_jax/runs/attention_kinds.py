"""Finds the attention layer that a config names, and checks the contract of a user's layer."""

import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.evaluation.attention import sown_maps
from sagan_jax.import_paths import find_object, is_import_path, line_of
from sagan_jax.models.attention import Attention, BrokenContractError, attention_layer


def find_attention(name: str, flag: str = "--attention") -> Attention:
    """Returns the layer for an attention name of a config: the name itself, or a user's class, module or function.

    Raises:
        InvalidInputError: there is no such object, or it cannot be called.
    """
    if not is_import_path(name):
        return name  # pyrefly: ignore[bad-return]
    found = find_object(name, flag)
    if not callable(found):
        raise InvalidInputError(
            f"{flag} {name} needs a flax module, its class, or a function of features [B, H, W, C]; it is of type "
            f"{type(found).__name__}."
        )
    return found


def check_attention_layer(name: str, flag: str, places: Mapping[int, int]) -> None:
    """Raises InvalidInputError if a user's layer breaks the contract of `sagan_jax.models.AttentionModule`.

    The layer is traced with two images at each place, in float32 and in bfloat16. It is not run.

    Args:
        name: an import path. Other names are not checked.
        flag: the flag that gives the name; starts the error message.
        places: the channels at each feature-map size where the layer is used.
    """
    if not is_import_path(name):
        return
    check_layer(find_attention(name, flag), f"{flag} {name}", name.rpartition(":")[0], places)


def check_layer(layer: Attention, what: str, where: str, places: Mapping[int, int]) -> None:
    """Raises InvalidInputError if a user's layer breaks its contract; see `check_attention_layer`.

    Args:
        layer: a class, a module or a function.
        what: a name for the layer; starts the error message.
        where: the file or the module of the layer.
        places: the channels at each feature-map size where the layer is used.
    """
    for size, channels in places.items():
        for dtype in (None, jnp.bfloat16):
            features = jax.ShapeDtypeStruct((2, size, size, channels), dtype or jnp.float32)
            variables = _variables(_Place(layer, dtype), features, what, where)
            others = sorted(set(variables) - {"params", "intermediates"})
            if others:
                raise InvalidInputError(
                    f"{what} has variables {', '.join(others)}: a layer has no `train` argument, so it may have "
                    f"parameters only. Leave out batch norm, dropout and other state."
                )
            for _, parts in sown_maps(variables.get("intermediates", {})):
                _check_map(parts["attention_map"], what, size)


def _variables(place: nn.Module, features: jax.ShapeDtypeStruct, what: str, where: str) -> Mapping[str, Any]:
    """Returns the shapes of the variables and sown values of a layer; `where` is its file or its module."""
    try:
        return jax.eval_shape(lambda given: place.init(jax.random.key(0), given, mutable=True), features)
    except BrokenContractError as error:
        raise InvalidInputError(f"{what}: {one_line(error)}.") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        file = where if where.endswith(".py") else getattr(sys.modules.get(where), "__file__", None) or where
        raise InvalidInputError(
            f"{what} failed on features {list(features.shape)} of {features.dtype}: {type(error).__name__}"
            f"{line_of(error, file)}: {one_line(error)}."
        ) from error


def _check_map(attention_map: Any, what: str, size: int) -> None:
    shape = tuple(getattr(attention_map, "shape", ()))
    key_maps = [(size // pool) ** 2 for pool in range(1, size + 1) if size % pool == 0]
    fits = len(shape) in (3, 4) and shape[0] == 2 and shape[-2] == size**2 and shape[-1] in key_maps
    if not fits or not jnp.issubdtype(attention_map.dtype, jnp.floating):
        raise InvalidInputError(
            f"{what} needs to sow an attention_map [B, N, M] or [B, heads, N, M] of floats, with N = {size**2} query "
            f"positions and M = {' or '.join(map(str, key_maps[:3]))} keys at {size}x{size}; got {list(shape)} for "
            f"B = 2."
        )


class _Place(nn.Module):
    """Calls a layer in the way that a network does."""

    layer: Any
    dtype: Any

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return attention_layer(self.layer, features.shape[1], dtype=self.dtype)(features)
