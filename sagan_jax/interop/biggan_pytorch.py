"""The weights of ajbrock/BigGAN-PyTorch: its BigGAN, and the SAGAN of its training script.

Source: ajbrock/BigGAN-PyTorch:BigGAN.py and layers.py. Training and evaluation compute sigma after one power iteration
from the stored u.
"""

from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import IDENTITY, TRANSPOSED, Layout, Path, ReleasedNetworks
from sagan_jax.interop.state_dicts import (
    CONVOLUTION,
    StateDict,
    build_networks,
    channels_last_layout,
    infer_base_channels,
    infer_resolution,
)
from sagan_jax.models import biggan, sagan

_ATTENTION = {"query": "theta", "key": "phi", "value": "g", "output": "o"}
_CONVOLUTIONS = {"conv_1": "conv1", "conv_2": "conv2", "shortcut": "conv_sc"}


def load(arrays: Mapping[str, np.ndarray]) -> ReleasedNetworks:
    """Returns the networks with the given tensors.

    Args:
        arrays: `generator/<state_dict key>` and `discriminator/<state_dict key>` to arrays in PyTorch's layouts. A
            generator alone is enough. Names and shapes determine the sizes, the classes and the attention layers.

    Raises:
        InvalidInputError: when a tensor is missing, is unknown, or has a shape that contradicts the others.
    """
    generator, discriminator = (StateDict(network, arrays) for network in ("generator", "discriminator"))
    parts = _discriminator(discriminator) if discriminator.shapes else None
    return build_networks(arrays, _generator(generator), parts, iterations=1, epsilon=1e-8)


def _generator(state: StateDict) -> tuple[biggan.Generator, int, StateDict]:
    blocks = state.blocks()
    resolution = infer_resolution("generator", len(blocks), {len(w) - 1: r for r, w in biggan.GENERATOR_WIDTHS.items()})
    last = state.shape("output_layer.2.weight", 4)
    norm = state.shape("blocks.0.0.bn1.gain.weight", 2)
    shared_size = state.shape("shared.weight", 2)[1] if "shared.weight" in state else 0
    linear = state.shape("linear.weight", 2)
    # The gain of a norm with a map is [channels, vector], that of a norm with a table [classes, channels].
    chunk_size = norm[1] - shared_size if shared_size else 0
    if chunk_size not in (0, linear[1]):
        raise InvalidInputError(
            f"The generator's 'blocks.0.0.bn1.gain.weight' needs {shared_size} inputs, or {shared_size + linear[1]} "
            f"with hierarchical latents; got {norm[1]}."
        )
    generator = biggan.Generator(
        resolution=resolution,
        num_classes=state.shape("shared.weight", 2)[0] if shared_size else norm[0],
        base_channels=infer_base_channels(
            state, "output_layer.2.weight", last[1], biggan.GENERATOR_WIDTHS[resolution][-1]
        ),
        image_channels=last[0],
        attention_resolutions=_attention_sizes(blocks, sagan.generator_resolutions(resolution)),
        shared_size=shared_size,
        hierarchical=bool(chunk_size),
    )
    if shared_size:
        state.add("params", ("shared_embedding",), "shared.weight")
    outputs = channels_last_layout(linear[:1])
    _kernel(state, ("linear",), "linear", channels_last_layout(linear), u=outputs)
    state.add("params", ("linear", "bias"), "linear.bias", outputs)
    for number, parts in enumerate(blocks, start=1):
        for ours in ("norm_1", "norm_2"):
            theirs = f"{parts[0]}.bn{ours[-1]}"
            path = (f"block_{number}", ours)
            if shared_size:
                _kernel(state, path, f"{theirs}.gain", TRANSPOSED, leaf="scale_kernel")
                _kernel(state, path, f"{theirs}.bias", TRANSPOSED, leaf="shift_kernel")
            else:  # tables with gains around 0, where ours are around 1
                state.add("params", (*path, "scale"), f"{theirs}.gain.weight", Layout(plus=1.0))
                state.add("params", (*path, "shift"), f"{theirs}.bias.weight")
            state.add_moments(path, *_moments(state, theirs))
        _block(state, number, parts)
        _attention(state, parts, sagan.generator_resolutions(resolution)[number - 1])
    theirs = "output_layer.0"
    state.add_norm(("norm",), (f"{theirs}.gain", f"{theirs}.bias", *_moments(state, theirs)))
    _convolution(state, ("conv",), "output_layer.2")
    return generator, linear[1] * ((len(blocks) + 1) if chunk_size else 1), state


def _discriminator(state: StateDict) -> tuple[biggan.Discriminator, int, StateDict]:
    blocks = state.blocks()
    widths = biggan.DISCRIMINATOR_WIDTHS
    resolution = infer_resolution("discriminator", len(blocks), {len(w): size for size, w in widths.items()})
    first = state.shape("blocks.0.0.conv1.weight", 4)
    resolutions = sagan.discriminator_resolutions(resolution)
    discriminator = biggan.Discriminator(
        resolution=resolution,
        num_classes=state.shape("embed.weight", 2)[0] if "embed.weight" in state else 0,
        base_channels=infer_base_channels(state, "blocks.0.0.conv1.weight", first[0], widths[resolution][0]),
        attention_resolutions=_attention_sizes(blocks, resolutions),
    )
    for number, parts in enumerate(blocks, start=1):
        _block(state, number, parts)
        _attention(state, parts, resolutions[number - 1])
    _kernel(state, ("linear",), "linear", TRANSPOSED)
    state.add("params", ("linear", "bias"), "linear.bias")
    if discriminator.num_classes:
        _kernel(state, ("projection",), "embed", TRANSPOSED)
    return discriminator, first[1], state


def _attention_sizes(blocks: list[list[str]], resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the feature-map sizes of the blocks that an attention layer follows."""
    sizes = tuple(size for parts, size in zip(blocks, resolutions, strict=True) if len(parts) > 1)
    if len(set(sizes)) < len(sizes):
        raise InvalidInputError(
            f"The weights need at most one attention layer for each feature-map size; got the sizes {list(sizes)}."
        )
    return sizes


def _moments(state: StateDict, norm: str) -> tuple[str, str]:
    """Returns the names of a norm's running moments, which differ between the three kinds of norms."""
    return (
        state.first_present(f"{norm}.stored_mean", f"{norm}.bn.stored_mean", f"{norm}.bn.running_mean"),
        state.first_present(f"{norm}.stored_var", f"{norm}.bn.stored_var", f"{norm}.bn.running_var"),
    )


def _kernel(
    state: StateDict, path: Path, name: str, layout: Layout, *, u: Layout = IDENTITY, leaf: str = "kernel"
) -> None:
    state.add("params", (*path, leaf), f"{name}.weight", layout)
    if f"{name}.u0" in state:
        state.add("spectral", (*path, leaf, "u"), f"{name}.u0", u)


def _convolution(state: StateDict, path: Path, name: str) -> None:
    _kernel(state, path, name, CONVOLUTION)
    state.add("params", (*path, "bias"), f"{name}.bias")


def _block(state: StateDict, number: int, parts: list[str]) -> None:
    for ours, theirs in _CONVOLUTIONS.items():
        if ours != "shortcut" or f"{parts[0]}.{theirs}.weight" in state:
            _convolution(state, (f"block_{number}", ours), f"{parts[0]}.{theirs}")


def _attention(state: StateDict, parts: list[str], size: int) -> None:
    for part in parts[1:]:
        path = (f"attention_{size}",)
        for ours, theirs in _ATTENTION.items():
            _kernel(state, path, f"{part}.{theirs}", CONVOLUTION, leaf=f"{ours}_kernel")
        state.add("params", (*path, "gamma"), f"{part}.gamma")
