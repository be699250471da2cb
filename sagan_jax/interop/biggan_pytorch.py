"""The weights of ajbrock/BigGAN-PyTorch: BigGAN, and SAGAN as its script trains it.

Source: ajbrock/BigGAN-PyTorch:BigGAN.py and layers.py. Sigma is taken after one step from the stored u, in training and
evaluation.
"""

from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import AS_IT_IS, TRANSPOSED, Layout, Path, ReleasedNetworks
from sagan_jax.interop.state_dicts import (
    CONVOLUTION,
    StateDict,
    base_of,
    positions_first,
    released,
    resolution_of,
)
from sagan_jax.models import biggan, sagan

_ATTENTION = {"query": "theta", "key": "phi", "value": "g", "output": "o"}
_CONVOLUTIONS = {"conv_1": "conv1", "conv_2": "conv2", "shortcut": "conv_sc"}


def load(arrays: Mapping[str, np.ndarray]) -> ReleasedNetworks:
    """Returns the networks with the given tensors.

    Args:
        arrays: `generator/<state_dict key>` and `discriminator/<state_dict key>` to arrays in PyTorch's layouts. A
            generator alone is enough. Sizes, classes and places of attention are read off names and shapes.

    Raises:
        InvalidInputError: a tensor is missing, unknown, or has a shape that contradicts the others.
    """
    generator, discriminator = (StateDict(network, arrays) for network in ("generator", "discriminator"))
    judge = _discriminator(discriminator) if discriminator.shapes else None
    return released(arrays, _generator(generator), judge, iterations=1, epsilon=1e-8)


def _generator(state: StateDict) -> tuple[biggan.Generator, int, StateDict]:
    blocks = state.blocks()
    resolution = resolution_of("generator", len(blocks), {len(w) - 1: r for r, w in biggan.GENERATOR_WIDTHS.items()})
    last = state.shape("output_layer.2.weight", 4)
    norm = state.shape("blocks.0.0.bn1.gain.weight", 2)
    shared_size = state.shape("shared.weight", 2)[1] if "shared.weight" in state else 0
    linear = state.shape("linear.weight", 2)
    # A norm that is told by a map has [channels, vector]; one with a table of its own [classes, channels].
    part = norm[1] - shared_size if shared_size else 0
    if part not in (0, linear[1]):
        raise InvalidInputError(
            f"The generator's 'blocks.0.0.bn1.gain.weight' needs {shared_size} inputs, or {shared_size + linear[1]} "
            f"with hierarchical latents; got {norm[1]}."
        )
    generator = biggan.Generator(
        resolution=resolution,
        num_classes=state.shape("shared.weight", 2)[0] if shared_size else norm[0],
        base_channels=base_of(state, "output_layer.2.weight", last[1], biggan.GENERATOR_WIDTHS[resolution][-1]),
        image_channels=last[0],
        attention_resolutions=_places(blocks, sagan.generator_resolutions(resolution)),
        shared_size=shared_size,
        hierarchical=bool(part),
    )
    if shared_size:
        state.take("params", ("shared_embedding",), "shared.weight")
    outputs = positions_first(linear[:1])
    _kernel(state, ("linear",), "linear", positions_first(linear), u=outputs)
    state.take("params", ("linear", "bias"), "linear.bias", outputs)
    for number, parts in enumerate(blocks, start=1):
        for ours in ("norm_1", "norm_2"):
            theirs = f"{parts[0]}.bn{ours[-1]}"
            path = (f"block_{number}", ours)
            if shared_size:
                _kernel(state, path, f"{theirs}.gain", TRANSPOSED, leaf="scale_kernel")
                _kernel(state, path, f"{theirs}.bias", TRANSPOSED, leaf="shift_kernel")
            else:  # tables of the classes, around 0 where ours are around 1
                state.take("params", (*path, "scale"), f"{theirs}.gain.weight", Layout(plus=1.0))
                state.take("params", (*path, "shift"), f"{theirs}.bias.weight")
            state.moments(path, *_moments(state, theirs))
        _block(state, number, parts)
        _attention(state, parts, sagan.generator_resolutions(resolution)[number - 1])
    theirs = "output_layer.0"
    state.norm(("norm",), (f"{theirs}.gain", f"{theirs}.bias", *_moments(state, theirs)))
    _convolution(state, ("conv",), "output_layer.2")
    return generator, linear[1] * ((len(blocks) + 1) if part else 1), state


def _discriminator(state: StateDict) -> tuple[biggan.Discriminator, int, StateDict]:
    blocks = state.blocks()
    widths = biggan.DISCRIMINATOR_WIDTHS
    resolution = resolution_of("discriminator", len(blocks), {len(w): size for size, w in widths.items()})
    first = state.shape("blocks.0.0.conv1.weight", 4)
    resolutions = sagan.discriminator_resolutions(resolution)
    discriminator = biggan.Discriminator(
        resolution=resolution,
        num_classes=state.shape("embed.weight", 2)[0] if "embed.weight" in state else 0,
        base_channels=base_of(state, "blocks.0.0.conv1.weight", first[0], widths[resolution][0]),
        attention_resolutions=_places(blocks, resolutions),
    )
    for number, parts in enumerate(blocks, start=1):
        _block(state, number, parts)
        _attention(state, parts, resolutions[number - 1])
    _kernel(state, ("linear",), "linear", TRANSPOSED)
    state.take("params", ("linear", "bias"), "linear.bias")
    if discriminator.num_classes:
        _kernel(state, ("projection",), "embed", TRANSPOSED)
    return discriminator, first[1], state


def _places(blocks: list[list[str]], resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the feature-map sizes of the blocks that attention follows."""
    places = tuple(size for parts, size in zip(blocks, resolutions, strict=True) if len(parts) > 1)
    if len(set(places)) < len(places):
        raise InvalidInputError(
            f"Attention sits after several blocks of one feature-map size, {list(places)}: no network here has that."
        )
    return places


def _moments(state: StateDict, norm: str) -> tuple[str, str]:
    """Returns the names of a norm's running moments, which depend on which of three norms a run chose."""
    return (
        state.first(f"{norm}.stored_mean", f"{norm}.bn.stored_mean", f"{norm}.bn.running_mean"),
        state.first(f"{norm}.stored_var", f"{norm}.bn.stored_var", f"{norm}.bn.running_var"),
    )


def _kernel(
    state: StateDict, path: Path, name: str, layout: Layout, *, u: Layout = AS_IT_IS, leaf: str = "kernel"
) -> None:
    state.take("params", (*path, leaf), f"{name}.weight", layout)
    if f"{name}.u0" in state:
        state.take("spectral", (*path, leaf, "u"), f"{name}.u0", u)


def _convolution(state: StateDict, path: Path, name: str) -> None:
    _kernel(state, path, name, CONVOLUTION)
    state.take("params", (*path, "bias"), f"{name}.bias")


def _block(state: StateDict, number: int, parts: list[str]) -> None:
    for ours, theirs in _CONVOLUTIONS.items():
        if ours != "shortcut" or f"{parts[0]}.{theirs}.weight" in state:
            _convolution(state, (f"block_{number}", ours), f"{parts[0]}.{theirs}")


def _attention(state: StateDict, parts: list[str], size: int) -> None:
    for part in parts[1:]:
        path = (f"attention_{size}",)
        for ours, theirs in _ATTENTION.items():
            _kernel(state, path, f"{part}.{theirs}", CONVOLUTION, leaf=f"{ours}_kernel")
        state.take("params", (*path, "gamma"), f"{part}.gamma")
