"""The weights of ajbrock/BigGAN-PyTorch: its BigGAN, and the SAGAN of its training script.

Source: ajbrock/BigGAN-PyTorch:BigGAN.py and layers.py. Training and evaluation compute sigma after one power iteration
from the stored u.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.biggan_config import NORM_EPSILON, SPECTRAL_EPSILON, BigGanConfig, parse_config
from sagan_jax.interop.code_bases import refuse_other_code_base
from sagan_jax.interop.networks import IDENTITY, TRANSPOSED, Layout, Path, ReleasedNetworks
from sagan_jax.interop.source_config import check_agreement, refuse_feature
from sagan_jax.interop.state_dicts import (
    CONVOLUTION,
    StateDict,
    attention_sizes,
    build_networks,
    channels_last_layout,
    infer_base_channels,
    infer_resolution,
)
from sagan_jax.models import biggan, sagan

_ATTENTION = {"query": "theta", "key": "phi", "value": "g", "output": "o"}
_CONVOLUTIONS = {"conv_1": "conv1", "conv_2": "conv2", "shortcut": "conv_sc"}


# Tensors that only one of the two networks has. Both have a layer named linear, but a generator also has other layers.
_OWN = {"generator": r"output_layer\.", "discriminator": r"(embed|linear)\."}
# Tensors of unsupported networks.
_FEATURES = {
    r"(blocks\.\d+\.\d+\.conv[34]|input_conv)\.": "BigGAN-deep's blocks",
    r".*\.u[1-9]\d*$": "several singular values in the spectral norm (num_G_SVs, num_D_SVs)",
}


def load(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> ReleasedNetworks:
    """Returns the networks with the given tensors.

    Args:
        arrays: `generator/<state_dict key>` and `discriminator/<state_dict key>` to arrays in PyTorch's layouts. A
            generator alone is enough. Names and shapes determine the sizes, the classes and the attention layers.
        config: the flags of train.py, which specify activations and epsilons. G's last norm always has an epsilon of
            1e-5 in the source. If the flags have another epsilon, the scale of this norm is adapted to it.

    Raises:
        InvalidInputError: when a tensor is missing, is unknown, or has a shape that contradicts the others. Also when
            the network has an unsupported feature, or the flags belong to another network.
    """
    refuse_other_code_base("biggan-pytorch", arrays)
    settings = None if config is None else parse_config(config)
    generator, discriminator = (StateDict(network, arrays) for network in ("generator", "discriminator"))
    for state in (generator, discriminator):
        state.refuse_exchanged(_OWN | ({"discriminator": r"embed\."} if state is discriminator else {}))
        state.refuse_features(_FEATURES)
    found = _generator(generator, settings.norm_epsilon if settings else NORM_EPSILON)
    parts = _discriminator(discriminator) if discriminator.shapes else None
    if settings:
        _check_config(settings, found[0], parts[0] if parts else None)
    epsilon = settings.spectral_epsilon if settings else SPECTRAL_EPSILON
    assumed = (
        "ReLU",
        f"norms with epsilon {NORM_EPSILON:g}",
        f"spectral norm with epsilon {SPECTRAL_EPSILON:g}",
        "latents from N(0, 1)",
    )
    released = build_networks(arrays, found, parts, iterations=1, epsilon=epsilon, assumed=() if settings else assumed)
    return _with_last_norm_of_its_epsilon(released)


def _with_last_norm_of_its_epsilon(released: ReleasedNetworks) -> ReleasedNetworks:
    """Adapts the scale of G's last norm to `norm_epsilon`, since the source always uses the default epsilon there."""
    epsilon = released.generator.norm_epsilon
    if epsilon == NORM_EPSILON:
        return released
    params = released.generator_variables["params"]
    variance = released.generator_variables["batch_stats"]["norm"]["variance"].astype(np.float64)
    scale = params["norm"]["scale"] * np.sqrt((variance + epsilon) / (variance + NORM_EPSILON))
    norm = params["norm"] | {"scale": scale.astype(np.float32)}
    variables = released.generator_variables | {"params": params | {"norm": norm}}
    return dataclasses.replace(released, generator_variables=variables)


def _check_config(
    settings: BigGanConfig, generator: biggan.Generator, discriminator: biggan.Discriminator | None
) -> None:
    """Raises InvalidInputError when the weights contradict the flags."""
    pairs: dict[str, tuple[Any, Any]] = {
        "resolution": (settings.image_size, generator.resolution),
        "n_classes": (settings.num_classes, generator.num_classes),
        "G_ch": (settings.generator_channels, generator.base_channels),
        "G_shared": (settings.shared, bool(generator.shared_size)),
        "hier": (settings.hierarchical, generator.hierarchical),
        "G_attn": (settings.generator_attention, tuple(sorted(generator.attention_resolutions))),
    }
    if discriminator:
        pairs["D_ch"] = settings.discriminator_channels, discriminator.base_channels
        pairs["D_attn"] = settings.discriminator_attention, tuple(sorted(discriminator.attention_resolutions))
    check_agreement({name: pair for name, pair in pairs.items() if pair[0] is not None})


def _conditioning(state: StateDict, block: str) -> tuple[int, int, bool]:
    """Returns the number of classes, the size of the shared embedding, and whether the latent is hierarchical."""
    norm = f"{block}.bn1"
    if f"{norm}.gain" in state:
        refuse_feature(f"plain norms in G's blocks, which read neither a class nor the latent ('{norm}.gain')")
    gain = state.shape(f"{norm}.gain.weight", 2)
    latent = state.shape("linear.weight", 2)
    if "shared.weight" in state:
        classes, size = state.shape("shared.weight", 2)
        if gain[1] - size not in (0, latent[1]):
            raise InvalidInputError(
                f"The generator's '{norm}.gain.weight' needs {size} inputs, or {size + latent[1]} with hierarchical "
                f"latents; got {gain[1]}."
            )
        return classes, size, gain[1] != size
    # A map has the shape [channels, vector], a table of classes [classes, channels]. Only maps have spectral norm.
    channels = latent[0] // 16
    if f"{norm}.gain.u0" in state or (gain[0] == channels != gain[1] and gain[1] == latent[1]):
        if gain[1] != latent[1]:
            raise InvalidInputError(
                f"The generator's '{norm}.gain.weight' needs {latent[1]} inputs, a part of the latent, in a network "
                f"without a shared class embedding; got {gain[1]}."
            )
        return 0, 0, True
    return gain[0], 0, False


def _refuse_absent_moments(state: StateDict) -> None:
    if not any(name.endswith(("_mean", "_var")) for name in state.shapes):
        refuse_feature("another norm than batch norm, or none (norm_style nonorm or gn): G stores no mean and variance")


def _generator(state: StateDict, epsilon: float) -> tuple[biggan.Generator, int, StateDict]:
    blocks = state.blocks()
    resolution = infer_resolution("generator", len(blocks), {len(w) - 1: r for r, w in biggan.GENERATOR_WIDTHS.items()})
    _refuse_absent_moments(state)
    last = state.shape("output_layer.2.weight", 4)
    num_classes, shared_size, hierarchical = _conditioning(state, blocks[0][0])
    linear = state.shape("linear.weight", 2)
    generator = biggan.Generator(
        resolution=resolution,
        num_classes=num_classes,
        base_channels=infer_base_channels(
            state, "output_layer.2.weight", last[1], biggan.GENERATOR_WIDTHS[resolution][-1]
        ),
        image_channels=last[0],
        attention_resolutions=_attention_sizes("generator", blocks, sagan.generator_resolutions(resolution)),
        shared_size=shared_size,
        hierarchical=hierarchical,
        norm_epsilon=epsilon,
    )
    state.check_rows("linear.weight", 4 * 4 * generator.base_channels * biggan.GENERATOR_WIDTHS[resolution][0])
    if shared_size:
        state.add("params", ("shared_embedding",), "shared.weight")
    outputs = channels_last_layout(linear[:1])
    _kernel(state, ("linear",), "linear", channels_last_layout(linear), u=outputs)
    state.add("params", ("linear", "bias"), "linear.bias", outputs)
    for number, parts in enumerate(blocks, start=1):
        for ours in ("norm_1", "norm_2"):
            theirs = f"{parts[0]}.bn{ours[-1]}"
            path = (f"block_{number}", ours)
            if shared_size or hierarchical:
                _kernel(state, path, f"{theirs}.gain", TRANSPOSED, leaf="scale_kernel")
                _kernel(state, path, f"{theirs}.bias", TRANSPOSED, leaf="shift_kernel")
            else:  # these tables store gain - 1
                state.add("params", (*path, "scale"), f"{theirs}.gain.weight", Layout(plus=1.0))
                state.add("params", (*path, "shift"), f"{theirs}.bias.weight")
            state.add_moments(path, *_moments(state, theirs))
        _block(state, number, parts)
        _attention(state, parts, sagan.generator_resolutions(resolution)[number - 1])
    theirs = "output_layer.0"
    state.add_norm(("norm",), (f"{theirs}.gain", f"{theirs}.bias", *_moments(state, theirs)))
    _convolution(state, ("conv",), "output_layer.2")
    return generator, linear[1] * ((len(blocks) + 1) if hierarchical else 1), state


def _discriminator(state: StateDict) -> tuple[biggan.Discriminator, int, StateDict]:
    blocks = state.blocks()
    widths = biggan.DISCRIMINATOR_WIDTHS
    resolution = infer_resolution("discriminator", len(blocks), {len(w): size for size, w in widths.items()})
    _refuse_thin(state, blocks)
    outputs = state.shape("linear.weight", 2)[0]
    if outputs > 1:
        refuse_feature(
            f"a multi-hinge or multi-class head (output_dim); the discriminator's 'linear.weight' has {outputs} outputs"
        )
    first = state.shape("blocks.0.0.conv1.weight", 4)
    resolutions = sagan.discriminator_resolutions(resolution)
    discriminator = biggan.Discriminator(
        resolution=resolution,
        num_classes=state.shape("embed.weight", 2)[0] if "embed.weight" in state else 0,
        base_channels=infer_base_channels(state, "blocks.0.0.conv1.weight", first[0], widths[resolution][0]),
        attention_resolutions=_attention_sizes("discriminator", blocks, resolutions),
    )
    for number, parts in enumerate(blocks, start=1):
        _block(state, number, parts)
        _attention(state, parts, resolutions[number - 1])
    _kernel(state, ("linear",), "linear", TRANSPOSED)
    state.add("params", ("linear", "bias"), "linear.bias")
    if discriminator.num_classes:
        _kernel(state, ("projection",), "embed", TRANSPOSED)
    return discriminator, first[1], state


def _attention_sizes(network: str, blocks: list[list[str]], resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the feature-map sizes of the blocks that are followed by an attention layer."""
    places = [number for number, parts in enumerate(blocks, start=1) for _ in parts[1:]]
    return attention_sizes(network, places, resolutions)


def _refuse_thin(state: StateDict, blocks: list[list[str]]) -> None:
    """Raises InvalidInputError if the first convolution of a block of D keeps the number of channels."""
    for number, (part, *_) in enumerate(blocks, start=1):
        name = f"{part}.conv1.weight"
        first, second = state.shape(name, 4), state.shape(f"{part}.conv2.weight", 4)
        if first[0] == first[1] == second[1] != second[0]:
            refuse_feature(
                f"a thin D (D_wide False); in block {number} {name!r} has {first[0]} channels of {second[0]}"
            )


def _moments(state: StateDict, norm: str) -> tuple[str, str]:
    """Returns the names of a norm's running moments, which differ between three kinds of norms."""
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
