"""The weights of POSTECH-CVLab/PyTorch-StudioGAN: its SAGAN (`resnet`) and its DCGAN (`deep_conv`).

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/models/resnet.py, src/models/deep_conv.py and src/utils/ops.py. Evaluation
computes sigma from the stored u and v. Its ReLU works in place, so the shortcuts of D's blocks after the first one read
the features after the ReLU.
"""

from collections.abc import Mapping

import numpy as np

from sagan_jax.interop.networks import IDENTITY, TRANSPOSED, Layout, Path, ReleasedNetworks
from sagan_jax.interop.state_dicts import (
    CONVOLUTION,
    DECONVOLUTION,
    StateDict,
    build_networks,
    channels_last_layout,
    infer_base_channels,
    infer_resolution,
    left_vector_layout,
)
from sagan_jax.models import dcgan, sagan

_EPSILON = 1e-4  # of the batch norms
_ATTENTION = {"query": "theta", "key": "phi", "value": "g", "output": "attn"}
_CONVOLUTIONS = {"shortcut": 0, "conv_1": 1, "conv_2": 2}


def load(arrays: Mapping[str, np.ndarray]) -> ReleasedNetworks:
    """Returns the networks with the given tensors.

    Args:
        arrays: `generator/<state_dict key>` and `discriminator/<state_dict key>` to arrays in PyTorch's layouts. A
            generator alone is enough. Names and shapes determine the kind of network, the sizes, the classes and the
            attention layers.

    Raises:
        InvalidInputError: when a tensor is missing, is unknown, or has a shape that contradicts the others.
    """
    generator, discriminator = (StateDict(network, arrays) for network in ("generator", "discriminator"))
    if _has(generator, _name(generator, "blocks.0.0", "deconv0", "deconv2d0")):
        readers = _dcgan_generator, _dcgan_discriminator
    else:
        readers = _sagan_generator, _sagan_discriminator
    parts = readers[1](discriminator) if discriminator.shapes else None
    return build_networks(arrays, readers[0](generator), parts, iterations=0, epsilon=1e-6)


def _sagan_generator(state: StateDict) -> tuple[sagan.Generator, int, StateDict]:
    blocks, places = _split(state)
    widths = sagan.GENERATOR_WIDTHS
    resolution = infer_resolution("generator", len(blocks), {len(w) - 1: size for size, w in widths.items()})
    resolutions = sagan.generator_resolutions(resolution)
    last = _name(state, "", "conv2d5", "conv5")
    channels = _weight(state, last, 4)
    linear = _weight(state, "linear0", 2)
    generator = sagan.Generator(
        resolution=resolution,
        num_classes=_classes(state, f"{blocks[0]}.bn1"),
        base_channels=infer_base_channels(state, last, channels[1], widths[resolution][-1]),
        image_channels=channels[0],
        attention_resolutions=tuple(resolutions[after] for after, _ in places),
        norm_epsilon=_EPSILON,
        norm_decay=0.9,
        final_norm_decay=0.9,
        conditional_gain="map",
        initializer="orthogonal",
    )
    _first_linear(state, linear)
    for number, block in enumerate(blocks, start=1):
        for norm in ("1", "2"):
            _norm(state, (f"block_{number}", f"norm_{norm}"), f"{block}.bn{norm}")
        for ours, index in _CONVOLUTIONS.items():
            _convolution(state, (f"block_{number}", ours), _name(state, block, f"conv2d{index}", f"conv{index}"))
    for after, part in places:
        _attention(state, part, resolutions[after])
    _norm(state, ("norm",), "bn4")
    _convolution(state, ("conv",), last)
    return generator, linear[1], state


def _sagan_discriminator(state: StateDict) -> tuple[sagan.Discriminator, int, StateDict]:
    blocks, places = _split(state)
    widths = sagan.DISCRIMINATOR_WIDTHS
    resolution = infer_resolution("discriminator", len(blocks), {len(w): size for size, w in widths.items()})
    resolutions = sagan.discriminator_resolutions(resolution)
    name = _name(state, blocks[0], "conv2d1", "conv1")
    first = _weight(state, name, 4)
    discriminator = sagan.Discriminator(
        resolution=resolution,
        num_classes=_embedded(state),
        base_channels=infer_base_channels(state, name, first[0], widths[resolution][0]),
        attention_resolutions=tuple(resolutions[after] for after, _ in places),
        shortcut="after_relu",
        initializer="orthogonal",
    )
    for number, block in enumerate(blocks, start=1):
        for ours, index in _CONVOLUTIONS.items():
            theirs = _name(state, block, f"conv2d{index}", f"conv{index}")
            if ours != "shortcut" or _has(state, theirs):
                _convolution(state, (f"block_{number}", ours), theirs)
    for after, part in places:
        _attention(state, part, resolutions[after])
    _head(state)
    return discriminator, first[1], state


def _dcgan_generator(state: StateDict) -> tuple[dcgan.Generator, int, StateDict]:
    blocks, places = _split(state)
    widths = dcgan.GENERATOR_WIDTHS
    resolution = infer_resolution("generator", len(blocks), {len(w) - 1: size for size, w in widths.items()})
    resolutions = dcgan.generator_resolutions(resolution)
    last = _name(state, "", "conv4", "conv2d4")
    channels = _weight(state, last, 4)
    linear = _weight(state, "linear0", 2)
    generator = dcgan.Generator(
        resolution=resolution,
        num_classes=_classes(state, f"{blocks[0]}.bn0"),
        base_channels=infer_base_channels(state, last, channels[1], widths[resolution][-1]),
        image_channels=channels[0],
        attention_resolutions=tuple(resolutions[after] for after, _ in places),
        norm_epsilon=_EPSILON,
        conditional_gain="map",
        initializer="orthogonal",
    )
    _first_linear(state, linear)
    for number, block in enumerate(blocks, start=1):
        theirs = _name(state, block, "deconv0", "deconv2d0")
        _convolution(state, (f"conv_{number}",), theirs, DECONVOLUTION)
        _norm(state, (f"norm_{number}",), f"{block}.bn0")
    for after, part in places:
        _attention(state, part, resolutions[after])
    _convolution(state, ("conv",), last)
    return generator, linear[1], state


def _dcgan_discriminator(state: StateDict) -> tuple[dcgan.Discriminator, int, StateDict]:
    blocks, places = _split(state)
    widths = dcgan.DISCRIMINATOR_WIDTHS
    resolution = infer_resolution("discriminator", len(blocks), {len(w) - 1: size for size, w in widths.items()})
    resolutions = dcgan.discriminator_resolutions(resolution)
    name = _name(state, blocks[0], "conv0", "conv2d0")
    first = _weight(state, name, 4)
    has_norms = f"{blocks[0]}.bn0.weight" in state
    discriminator = dcgan.Discriminator(
        resolution=resolution,
        num_classes=_embedded(state),
        base_channels=infer_base_channels(state, name, first[0], widths[resolution][0]),
        attention_resolutions=tuple(resolutions[after] for after, _ in places),
        norm="batch" if has_norms else "none",
        norm_epsilon=_EPSILON,
        initializer="orthogonal",
    )
    # Before version 0.4 the layers after the last block were named `conv` and `bn`.
    closing = (
        _name(state, "", "conv1", "conv2d1", "conv"),
        state.first_present("bn1.weight", "bn.weight").removesuffix(".weight"),
    )
    layers = [
        (f"{number}{letter}", _name(state, block, f"conv{index}", f"conv2d{index}"), f"{block}.bn{index}")
        for number, block in enumerate(blocks, start=1)
        for index, letter in enumerate("ab")
    ]
    for ours, convolution, norm in (*layers, (f"{len(blocks) + 1}", *closing)):
        _convolution(state, (f"conv_{ours}",), convolution)
        if has_norms:
            _norm(state, (f"norm_{ours}",), norm)
    for after, part in places:
        _attention(state, part, resolutions[after])
    _head(state)
    return discriminator, first[1], state


def _split(state: StateDict) -> tuple[list[str], list[tuple[int, str]]]:
    """Returns the prefixes of the blocks, and for each attention layer the block that it follows and its prefix."""
    blocks: list[str] = []
    places: list[tuple[int, str]] = []
    for part, *_ in state.blocks():
        if f"{part}.sigma" in state:
            places.append((len(blocks) - 1, part))
        else:
            blocks.append(part)
    if not blocks:
        state.shape("blocks.0.0.conv2d1.weight_orig", 4)  # raises an error that names the missing tensor
    return blocks, places


def _has(state: StateDict, name: str) -> bool:
    return f"{name}.weight" in state or f"{name}.weight_orig" in state


def _name(state: StateDict, prefix: str, *spellings: str) -> str:
    """Returns the layer's name in the spelling that exists. Versions differ: `conv2d0` or `conv0`."""
    names = [f"{prefix}.{spelling}".lstrip(".") for spelling in spellings]
    return next((name for name in names if _has(state, name)), names[0])


def _weight(state: StateDict, name: str, axes: int) -> tuple[int, ...]:
    return state.shape(state.first_present(f"{name}.weight", f"{name}.weight_orig"), axes)


def _classes(state: StateDict, norm: str) -> int:
    """Returns the number of classes of the conditional norms; 0 if the norms are unconditional."""
    return _weight(state, f"{norm}.gain", 2)[1] if _has(state, f"{norm}.gain") else 0


def _embedded(state: StateDict) -> int:
    return _weight(state, "embedding", 2)[0] if _has(state, "embedding") else 0


def _kernel(
    state: StateDict,
    path: Path,
    name: str,
    layout: Layout,
    *,
    u: Layout = IDENTITY,
    v: Layout = IDENTITY,
    leaf: str = "kernel",
) -> None:
    if f"{name}.weight_orig" not in state:
        state.add("params", (*path, leaf), f"{name}.weight", layout)
        return
    state.add("params", (*path, leaf), f"{name}.weight_orig", layout)
    state.shape(f"{name}.weight_u", 1)
    state.shape(f"{name}.weight_v", 1)
    state.add("spectral", (*path, leaf, "u"), f"{name}.weight_u", u)
    state.add("spectral", (*path, leaf, "v"), f"{name}.weight_v", v)


def _convolution(
    state: StateDict, path: Path, name: str, layout: Layout = CONVOLUTION, *, leaf: str = "kernel", bias: bool = True
) -> None:
    weight = _weight(state, name, 4)
    _kernel(state, path, name, layout, v=left_vector_layout(weight, layout is DECONVOLUTION), leaf=leaf)
    if bias:
        state.add("params", (*path, "bias"), f"{name}.bias")


def _first_linear(state: StateDict, shape: tuple[int, ...]) -> None:
    outputs = channels_last_layout(shape[:1])
    _kernel(state, ("linear",), "linear0", channels_last_layout(shape), u=outputs)
    state.add("params", ("linear", "bias"), "linear0.bias", outputs)


def _norm(state: StateDict, path: Path, name: str) -> None:
    if not _has(state, f"{name}.gain"):
        state.add_norm(path, (f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"))
        return
    for ours, theirs in (("scale_kernel", "gain"), ("shift_kernel", "bias")):
        _kernel(state, path, f"{name}.{theirs}", TRANSPOSED, leaf=ours)
    state.add_moments(path, f"{name}.bn.running_mean", f"{name}.bn.running_var")


def _attention(state: StateDict, part: str, size: int) -> None:
    path = (f"attention_{size}",)
    for ours, theirs in _ATTENTION.items():
        _convolution(state, path, f"{part}.conv1x1_{theirs}", leaf=f"{ours}_kernel", bias=False)
    state.add("params", (*path, "gamma"), f"{part}.sigma")


def _head(state: StateDict) -> None:
    _kernel(state, ("linear",), "linear1", TRANSPOSED)
    state.add("params", ("linear", "bias"), "linear1.bias")
    if _embedded(state):
        _kernel(state, ("projection",), "embedding", TRANSPOSED)
