"""Conversion of the published DINOv2 weights from PyTorch's names and layouts. The arrays determine the sizes.

Source: the state dict of facebookresearch/dinov2:dinov2/models/vision_transformer.py.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop import published_arrays as published
from sagan_jax.models.dinov2 import DinoV2, table_side

HEAD_WIDTH = 64
"""The width of a head in all published sizes. The weights do not determine the number of heads."""

_UNUSED = ("mask_token",)  # only for training
_HINT = "Are these the weights of another network, or of DINOv2 with a head on top?"
_TOKEN, _PATCHES, _TABLE, _REGISTERS = "cls_token", "patch_embed.proj.weight", "pos_embed", "register_tokens"
_PLAIN, _GATED = "blocks.0.mlp.fc1.weight", "blocks.0.mlp.w12.weight"


class LoadedDinoV2(NamedTuple):
    """A network and its parameters."""

    network: DinoV2
    variables: dict[str, Any]
    """`{"params": ...}`, float32, for `network.apply`"""


def load(arrays: Mapping[str, np.ndarray], num_heads: int | None = None, file: str = "") -> LoadedDinoV2:
    """Returns the network of a published state dict.

    Args:
        arrays: the names of the state dict to arrays in PyTorch's layouts. `mask_token` is ignored.
        num_heads: the number of heads of each attention layer. Defaults to one per 64 features, as in ViT-S, B, L and
            g.
        file: the file of the arrays, for messages.

    Raises:
        InvalidInputError: a name is missing or unknown, an array has a wrong shape, or the heads do not divide the
            width.
    """
    network = network_of(arrays, num_heads, file)
    state = published_arrays(arrays, network, file)
    params = {path: _to_ours(state[_name(path)], path[-1] == "kernel") for path in _leaves(network)}
    return LoadedDinoV2(network, {"params": flax.traverse_util.unflatten_dict(params)})


def network_of(arrays: Mapping[str, np.ndarray], num_heads: int | None = None, file: str = "") -> DinoV2:
    """Returns the network with the sizes in a state dict. `published_arrays` checks the other shapes.

    Args:
        arrays: as for `load`.
        num_heads: as for `load`.
        file: as for `load`.

    Raises:
        InvalidInputError: an array that determines a size is missing or has a wrong shape, or the heads do not divide
            the width.
    """
    shape = functools.partial(_shape, arrays, _subject(file))
    width = shape(_TOKEN, (1, 1, 0))[2]
    patch = shape(_PATCHES, (width, 3, 0, 0))
    side = table_side(shape(_TABLE, (1, 0, width))[1] - 1)
    gated = _GATED in arrays
    inner = shape(_GATED if gated else _PLAIN, (0, width))[0]
    registers = shape(_REGISTERS, (1, 0, width))[1] if _REGISTERS in arrays else 0
    if patch[2] != patch[3] or side is None or (gated and inner % 2):
        raise InvalidInputError(
            f"{_subject(file)} needs square patches, a position for each patch of a square image and one more, and "
            f"two equal halves in SwiGLU; got {_PATCHES!r} of {list(patch)}, {_TABLE!r} of "
            f"{list(arrays[_TABLE].shape)} and a feed-forward layer of width {inner}."
        )
    return DinoV2(
        width=width,
        depth=len({found[1] for name in arrays if (found := re.match(r"blocks\.(\d+)\.", name))}),
        num_heads=_heads(width, num_heads, _subject(file)),
        hidden=inner // 2 if gated else inner,
        gated=gated,
        patch_size=patch[2],
        table_side=side,
        registers=registers,
    )


def published_arrays(arrays: Mapping[str, np.ndarray], network: DinoV2, file: str = "") -> dict[str, np.ndarray]:
    """Checks names and shapes, and returns the arrays that a network uses by their published names.

    Raises:
        InvalidInputError: a name is missing or unknown, or an array has a wrong shape.
    """
    given = {name: array for name, array in arrays.items() if name not in _UNUSED}
    subject = f"{_subject(file)} of width {network.width} and depth {network.depth}"
    return published.published_arrays(given, published_shapes(network), subject=subject, hint=_HINT)


def size_words(network: DinoV2) -> str:
    """Returns a human-readable description of the size of a network.

    Examples:
        >>> size_words(DinoV2())
        'width 1024, depth 24, 16 heads and patches of 14 pixels'
    """
    words = f"width {network.width}, depth {network.depth}, {network.num_heads} heads"
    words += ", SwiGLU" if network.gated else ""
    words += f", {network.registers} registers" if network.registers else ""
    return f"{words} and patches of {network.patch_size} pixels"


def published_shapes(network: DinoV2) -> dict[str, tuple[int, ...]]:
    """Returns the state dict names that a network needs, and their shapes in PyTorch's layouts."""
    return {_name(path): _to_source(leaf.shape, path[-1] == "kernel") for path, leaf in _leaves(network).items()}


def _name(path: tuple[str, ...]) -> str:
    """Returns the published name of the parameter at a path."""
    *layers, last = path
    last = {"kernel": "weight", "scale": "weight"}.get(last, last)
    layers = ["patch_embed.proj" if layer == "patch_embed" else layer.replace("_", ".") for layer in layers]
    return ".".join((*layers, last))


def _leaves(network: DinoV2) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Returns the shape of each parameter. All blocks are alike, so only one is traced."""
    images = jax.ShapeDtypeStruct((1, network.patch_size, network.patch_size, 3), jnp.float32)
    variables = jax.eval_shape(network.clone(depth=1).init, jax.random.key(0), images)
    leaves: Any = flax.traverse_util.flatten_dict(variables["params"])
    for block in range(1, network.depth):
        leaves |= {(f"blocks_{block}", *path[1:]): leaf for path, leaf in leaves.items() if path[0] == "blocks_0"}
    return leaves


def _heads(width: int, num_heads: int | None, subject: str) -> int:
    """Returns the number of heads: the given number, or that of the published sizes."""
    if num_heads is None and width % HEAD_WIDTH == 0:
        return width // HEAD_WIDTH
    if num_heads is None or num_heads < 1 or width % num_heads:
        given = "no number" if num_heads is None else num_heads
        raise InvalidInputError(
            f"{subject} of width {width} needs a number of heads that divides it, which the weights do not determine; "
            f"got {given}. The published sizes have one for each {HEAD_WIDTH} features; convert takes --num-heads."
        )
    return num_heads


def _shape(arrays: Mapping[str, np.ndarray], subject: str, name: str, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of an array, after checking it against the wanted sizes; 0 matches any size."""
    if name not in arrays:
        raise InvalidInputError(f"{subject} needs {name!r}, which is missing. {_HINT}")
    shape = arrays[name].shape
    if len(shape) != len(wanted) or not all(size in (0, got) for size, got in zip(wanted, shape, strict=True)):
        words = ", ".join(str(size or "any") for size in wanted)
        raise InvalidInputError(f"{subject} needs {name!r} of [{words}]; got {list(shape)}. {_HINT}")
    return shape


def _subject(file: str) -> str:
    return f"{file!r}: DINOv2" if file else "DINOv2"


def _to_source(shape: tuple[int, ...], kernel: bool) -> tuple[int, ...]:
    """Returns the shape of a parameter in PyTorch's layout."""
    return (*shape[:-3:-1], *shape[:-2]) if kernel else shape


def _to_ours(array: np.ndarray, kernel: bool) -> np.ndarray:
    """Returns a parameter in the flax layout, in which a kernel's input and output axes come last."""
    turned = np.moveaxis(array, (1, 0), (-2, -1)) if kernel else array
    return np.asarray(turned, np.float32, order="C")
