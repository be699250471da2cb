"""Conversion of POSTECH-CVLab/PyTorch-StudioGAN: its SAGAN (`resnet`) and its DCGAN (`deep_conv`).

Source: POSTECH-CVLab/PyTorch-StudioGAN:src/models/resnet.py, src/models/deep_conv.py and src/utils/ops.py. Evaluation
computes sigma from the stored u and v. StudioGAN's ReLU works in place, so the shortcuts of D's blocks after the first
one read the features after the ReLU.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.code_bases import refuse_other_code_base
from sagan_jax.interop.networks import IDENTITY, TRANSPOSED, Layout, Path, ReleasedNetworks
from sagan_jax.interop.source_config import check_agreement, refuse_feature
from sagan_jax.interop.state_dicts import (
    CONVOLUTION,
    DECONVOLUTION,
    StateDict,
    attention_sizes,
    build_networks,
    channels_last_layout,
    infer_base_channels,
    infer_resolution,
    left_vector_layout,
)
from sagan_jax.interop.studiogan_config import NORM_EPSILON, SPECTRAL_EPSILON, StudioGanConfig, parse_config
from sagan_jax.models import dcgan, sagan

_ATTENTION = {"query": "theta", "key": "phi", "value": "g", "output": "attn"}
_CONVOLUTIONS = {"shortcut": 0, "conv_1": 1, "conv_2": 2}


# Tensors that only one of the two networks has.
_OWN = {"generator": r"(linear0|conv(2d)?[45]|bn4)\.", "discriminator": r"(linear1|embedding)\."}
# Tensors of unsupported networks. The head of D is recognised by its shape.
_GENERATOR_FEATURES = {
    r"blocks\.\d+\.\d+\.conv2d[34]\.": "BigGAN-deep's blocks (StudioGAN's backbone big_resnet_deep)",
    r"shared\.": "a shared class embedding (StudioGAN's BigGAN, backbone big_resnet)",
    r"info_": "InfoGAN's codes (info_type)",
    r"(mapping\.(embed|fc\d)|synthesis\.)": "style blocks (StudioGAN's StyleGAN)",
}
_DISCRIMINATOR_FEATURES = {
    r"(blocks\.\d+\.\d+\.conv2d[34]\.|input_conv\.)": "BigGAN-deep's blocks (StudioGAN's backbone big_resnet_deep)",
    r"info_": "InfoGAN's codes (info_type)",
    r"(linear|embedding)_mi\.": "a twin auxiliary classifier (aux_cls_type TAC)",
    r"linear[2-9]\.": "an auxiliary classifier or a contrastive head (d_cond_mtd AC, 2C or D2DCE)",
    r"b\d+\.(conv|fromrgb)": "style blocks (StudioGAN's StyleGAN)",
}
_NO_SPECTRAL_NORM = {
    r"blocks\.\d+\.\d+\.bn\d\.": "batch norms also in the shortcuts of D, as StudioGAN has them where D has no "
    "spectral norm (apply_d_sn False)"
}


def load(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> ReleasedNetworks:
    """Returns the networks with the given tensors.

    Args:
        arrays: `generator/<state_dict key>` and `discriminator/<state_dict key>` to arrays in PyTorch's layouts. A
            generator alone is enough. Names and shapes determine the kind of network, the sizes, the classes and the
            attention layers.
        config: the content of StudioGAN's configuration file, which specifies activations and epsilons.

    Raises:
        InvalidInputError: when a tensor is missing, is unknown, or has a shape that contradicts the others. Also when
            the network has an unsupported feature, or the configuration belongs to another network.
    """
    refuse_other_code_base("studiogan", arrays)
    settings = None if config is None else parse_config(config)
    generator, discriminator = (StateDict(network, arrays) for network in ("generator", "discriminator"))
    for state in (generator, discriminator):
        state.refuse_exchanged(_OWN)
    generator.refuse_features(_GENERATOR_FEATURES)
    discriminator.refuse_features(_DISCRIMINATOR_FEATURES)
    is_dcgan = any(re.search(r"\.deconv(2d)?0\.", name) for name in generator.shapes)
    if settings and (settings.backbone == "deep_conv") != is_dcgan:
        check_agreement({"MODEL.backbone": (settings.backbone, "deep_conv" if is_dcgan else "resnet")})
    readers = (_dcgan_generator, _dcgan_discriminator) if is_dcgan else (_sagan_generator, _sagan_discriminator)
    epsilons = (settings.norm_epsilon, settings.discriminator_norm_epsilon) if settings else (NORM_EPSILON,) * 2
    module, latent_size, _ = found = readers[0](generator, epsilons[0])
    if not is_dcgan and settings is None:
        _refuse_latents_in_norms(module.num_classes, latent_size, discriminator)
    parts = readers[1](discriminator, epsilons[1]) if discriminator.shapes else None
    if settings:
        _check_config(settings, generator, found, parts)
    epsilon = settings.spectral_epsilon if settings else SPECTRAL_EPSILON
    assumed = ("ReLU", f"norms with epsilon {NORM_EPSILON:g}", "latents from N(0, 1)")
    return build_networks(arrays, found, parts, iterations=0, epsilon=epsilon, assumed=() if settings else assumed)


def _refuse_latents_in_norms(num_classes: int, latent_size: int, discriminator: StateDict) -> None:
    """Raises InvalidInputError when the input of the norms may be a part of the latent instead of the class.

    In StudioGAN's unconditional BigGAN, the norms read the latent. Its names and shapes are those of a SAGAN with as
    many classes as a latent has entries.
    """
    if not num_classes or num_classes != latent_size or _embedded(discriminator) == num_classes:
        return
    raise InvalidInputError(
        f"The weights cannot be converted as they are: the generator's norms read {num_classes} numbers, as many as "
        f"its first layer. Either it is StudioGAN's unconditional BigGAN (backbone big_resnet), which is not "
        f"supported, or a SAGAN with as many classes as latent numbers. Specify it with --source-config FILE."
    )


def _check_config(settings: StudioGanConfig, state: StateDict, generator: Any, discriminator: Any) -> None:
    """Raises InvalidInputError when the weights contradict the configuration."""
    module, latent_size, _ = generator
    is_dcgan = settings.backbone == "deep_conv"
    pairs = {
        "DATA.img_size": (settings.image_size, module.resolution),
        "DATA.img_channels": (settings.image_channels, module.image_channels),
        "MODEL.z_dim": (settings.latent_size, latent_size),
        "num_classes of the conditional norms": (
            settings.num_classes if settings.conditional_generator else 0,
            module.num_classes,
        ),
        "MODEL.apply_g_sn": (settings.generator_spectral_norm, _is_normalized(state)),
        "MODEL.attn_g_loc": (settings.generator_attention, _attention_blocks(state)),
    }
    if not is_dcgan:
        pairs["MODEL.g_conv_dim"] = settings.generator_channels, module.base_channels
    check_agreement(pairs)
    if not discriminator:
        return
    module, _, state = discriminator
    pairs = {
        "DATA.img_size": (settings.image_size, module.resolution),
        "num_classes of D's embedding": (
            settings.num_classes if settings.conditional_discriminator else 0,
            module.num_classes,
        ),
        "MODEL.apply_d_sn": (settings.discriminator_spectral_norm, _is_normalized(state)),
        "MODEL.attn_d_loc": (settings.discriminator_attention, _attention_blocks(state)),
    }
    if not is_dcgan:
        pairs["MODEL.d_conv_dim"] = settings.discriminator_channels, module.base_channels
    check_agreement(pairs)


def _is_normalized(state: StateDict) -> bool:
    return any(name.endswith(".weight_orig") for name in state.shapes)


def _attention_blocks(state: StateDict) -> tuple[int, ...]:
    """Returns the numbers, from 1, of the blocks that are followed by attention."""
    return tuple(number for number, _ in _split(state)[1])


def _sagan_generator(state: StateDict, epsilon: float) -> tuple[sagan.Generator, int, StateDict]:
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
        attention_resolutions=attention_sizes(state.network, [after for after, _ in places], resolutions),
        norm_epsilon=epsilon,
        norm_decay=0.9,
        final_norm_decay=0.9,
        conditional_gain="map",
        initializer="orthogonal",
    )
    if resolution == 64:
        _refuse_older_widths(state, _name(state, blocks[0], "conv2d1", "conv1"), 1, generator.base_channels)
    _first_linear(state, linear, generator.base_channels * widths[resolution][0])
    for number, block in enumerate(blocks, start=1):
        for norm in ("1", "2"):
            _norm(state, (f"block_{number}", f"norm_{norm}"), f"{block}.bn{norm}")
        for ours, index in _CONVOLUTIONS.items():
            _convolution(state, (f"block_{number}", ours), _name(state, block, f"conv2d{index}", f"conv{index}"))
    for after, part in places:
        _attention(state, part, resolutions[after - 1])
    _norm(state, ("norm",), "bn4")
    _convolution(state, ("conv",), last)
    return generator, linear[1], state


def _sagan_discriminator(state: StateDict, epsilon: float) -> tuple[sagan.Discriminator, int, StateDict]:
    state.refuse_features(_NO_SPECTRAL_NORM)
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
        attention_resolutions=attention_sizes(state.network, [after for after, _ in places], resolutions),
        shortcut="after_relu",
        initializer="orthogonal",
    )
    if resolution == 64:
        _refuse_older_widths(state, _name(state, blocks[-1], "conv2d1", "conv1"), 0, discriminator.base_channels)
    for number, block in enumerate(blocks, start=1):
        for ours, index in _CONVOLUTIONS.items():
            theirs = _name(state, block, f"conv2d{index}", f"conv{index}")
            if ours != "shortcut" or _has(state, theirs):
                _convolution(state, (f"block_{number}", ours), theirs)
    for after, part in places:
        _attention(state, part, resolutions[after - 1])
    _head(state)
    return discriminator, first[1], state


def _dcgan_generator(state: StateDict, epsilon: float) -> tuple[dcgan.Generator, int, StateDict]:
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
        attention_resolutions=attention_sizes(state.network, [after for after, _ in places], resolutions),
        norm_epsilon=epsilon,
        conditional_gain="map",
        initializer="orthogonal",
    )
    _first_linear(state, linear, generator.base_channels * widths[resolution][0])
    for number, block in enumerate(blocks, start=1):
        theirs = _name(state, block, "deconv0", "deconv2d0")
        _convolution(state, (f"conv_{number}",), theirs, DECONVOLUTION)
        _norm(state, (f"norm_{number}",), f"{block}.bn0")
    for after, part in places:
        _attention(state, part, resolutions[after - 1])
    _convolution(state, ("conv",), last)
    return generator, linear[1], state


def _dcgan_discriminator(state: StateDict, epsilon: float) -> tuple[dcgan.Discriminator, int, StateDict]:
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
        attention_resolutions=attention_sizes(state.network, [after for after, _ in places], resolutions),
        norm="batch" if has_norms else "none",
        norm_epsilon=epsilon,
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
        _attention(state, part, resolutions[after - 1])
    _head(state)
    return discriminator, first[1], state


def _split(state: StateDict) -> tuple[list[str], list[tuple[int, str]]]:
    """Returns the prefixes of the blocks, and the block number, from 1, and the prefix of each attention layer."""
    blocks: list[str] = []
    places: list[tuple[int, str]] = []
    for part, *_ in state.blocks():
        if any(name.startswith((f"{part}.conv1x1_", f"{part}.sigma")) for name in state.shapes):
            places.append((len(blocks), part))
        else:
            blocks.append(part)
    if not blocks:
        state.shape("blocks.0.0.conv2d1.weight_orig", 4)  # raises an error that names the missing tensor
    return blocks, places


def _refuse_older_widths(state: StateDict, name: str, axis: int, base: int) -> None:
    """Raises InvalidInputError for the widths that StudioGAN had at 64 pixels before version 0.4.

    Where both networks have 16 times the base width in later versions, they had 8 times the base width.
    """
    channels = _weight(state, name, 4)[axis]
    if channels == 8 * base:
        refuse_feature(
            f"the widths that StudioGAN had at 64 pixels before version 0.4; the {state.network}'s {name!r} has "
            f"{channels} channels"
        )


def _has(state: StateDict, name: str) -> bool:
    return f"{name}.weight" in state or f"{name}.weight_orig" in state


def _name(state: StateDict, prefix: str, *spellings: str) -> str:
    """Returns the layer's name in the spelling that exists. It varies between versions: `conv2d0` or `conv0`."""
    names = [f"{prefix}.{spelling}".lstrip(".") for spelling in spellings]
    return next((name for name in names if _has(state, name)), names[0])


def _weight(state: StateDict, name: str, axes: int) -> tuple[int, ...]:
    return state.shape(state.first_present(f"{name}.weight", f"{name}.weight_orig"), axes)


def _classes(state: StateDict, norm: str) -> int:
    """Returns the number of classes of the conditional norms; 0 if the norms are unconditional."""
    if _has(state, f"{norm}.embed0"):
        return _weight(state, f"{norm}.embed0", 2)[0]
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


def _first_linear(state: StateDict, shape: tuple[int, ...], channels: int) -> None:
    state.check_rows(state.first_present("linear0.weight", "linear0.weight_orig"), 4 * 4 * channels)
    outputs = channels_last_layout(shape[:1])
    _kernel(state, ("linear",), "linear0", channels_last_layout(shape), u=outputs)
    state.add("params", ("linear", "bias"), "linear0.bias", outputs)


def _norm(state: StateDict, path: Path, name: str) -> None:
    if _has(state, f"{name}.gain"):
        for ours, theirs in (("scale_kernel", "gain"), ("shift_kernel", "bias")):
            _kernel(state, path, f"{name}.{theirs}", TRANSPOSED, leaf=ours)
    elif _has(state, f"{name}.embed0"):
        for ours, theirs in (("scale_kernel", "embed0"), ("shift_kernel", "embed1")):
            _embedding(state, (*path, ours), f"{name}.{theirs}")
    else:
        state.add_norm(path, (f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"))
        return
    state.add_moments(path, f"{name}.bn.running_mean", f"{name}.bn.running_var")


def _embedding(state: StateDict, path: Path, name: str) -> None:
    """Adds the table of a conditional norm before version 0.4. It is [classes, channels], as ours, so u and v swap."""
    normalized = f"{name}.weight_orig" in state
    state.add("params", path, f"{name}.weight_orig" if normalized else f"{name}.weight")
    if normalized:
        for ours, theirs in (("u", "v"), ("v", "u")):
            state.shape(f"{name}.weight_{theirs}", 1)
            state.add("spectral", (*path, ours), f"{name}.weight_{theirs}")


def _attention(state: StateDict, part: str, size: int) -> None:
    path = (f"attention_{size}",)
    for ours, theirs in _ATTENTION.items():
        _convolution(state, path, f"{part}.conv1x1_{theirs}", leaf=f"{ours}_kernel", bias=False)
    state.add("params", (*path, "gamma"), f"{part}.sigma")


def _head(state: StateDict) -> None:
    outputs = _weight(state, "linear1", 2)[0]
    if outputs > 1:
        refuse_feature(
            f"a multi-hinge or multi-class head (d_cond_mtd MH or MD); the discriminator's 'linear1' has {outputs} "
            f"outputs"
        )
    _kernel(state, ("linear",), "linear1", TRANSPOSED)
    state.add("params", ("linear", "bias"), "linear1.bias")
    if _embedded(state):
        _kernel(state, ("projection",), "embedding", TRANSPOSED)
