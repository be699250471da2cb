"""Conversion of the SAGAN authors' release from TensorFlow's variable names and layouts.

Source: brain-research/self-attention-gan, generator.py, discriminator.py, non_local.py and ops.py.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.code_bases import refuse_other_code_base
from sagan_jax.interop.networks import IDENTITY, TRANSPOSED, Entry, ReleasedNetworks, build_variables, reject_unknown
from sagan_jax.models.sagan import (
    DISCRIMINATOR_WIDTHS,
    GENERATOR_WIDTHS,
    Discriminator,
    Generator,
    discriminator_resolutions,
    generator_resolutions,
)

# Our names in an attention layer to the names of the release.
_ATTENTION = {"query": "theta", "key": "phi", "value": "g", "output": "attn"}
IGNORED = r"(^|/)(Adam(_\d+)?|beta[12]_power(_\d+)?|global_step)$"
"""A regular expression for variables that belong to no network: those of the optimisers and the step."""

_RESOLUTION = 128
_CONVOLUTIONS = {"conv_1": 1, "conv_2": 2, "shortcut": 3}


class _Names:
    """The names and shapes of the variables."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        first = next((name for name in arrays if re.search(r"(^|/)g_snh0/Matrix$", name)), None)
        if first is None:
            raise InvalidInputError(
                "The official release needs a variable 'g_snh0/Matrix', with any scope as prefix; "
                f"got {len(arrays)} variables, the first {sorted(arrays)[:3]}. Are they from another code base?"
            )
        self.scope = first.removesuffix("g_snh0/Matrix")
        self.shapes = {
            name.removeprefix(self.scope): np.shape(array)
            for name, array in arrays.items()
            if name.startswith(self.scope)
        }

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise InvalidInputError(f"The official release needs the variable {self.scope + name!r}, which is missing.")
        return self.shapes[name]

    def attention(self, letter: str, widths: list[int], resolutions: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the feature-map size of the attention layer, determined by its number of channels."""
        if not any(name.startswith(f"{letter}_non_local/") for name in self.shapes):
            return ()
        channels = self.shape(f"{letter}_non_local/sn_conv_theta/w")[2]
        if channels not in widths:
            raise InvalidInputError(
                f"{letter}_non_local needs the channels of a block, one of {widths}; got {channels}."
            )
        return (resolutions[widths.index(channels)],)


def _kernel(ours: tuple[str, ...], theirs: str, leaf: str = "kernel") -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yields (collection, path, source) of a kernel and of its vector u."""
    folder = theirs.rpartition("/")[0]
    yield "params", (*ours, leaf), theirs
    yield "spectral", (*ours, leaf, "u"), f"{folder}/u"


def _convolution(ours: tuple[str, ...], theirs: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    yield from _kernel(ours, f"{theirs}/w")
    yield "params", (*ours, "bias"), f"{theirs}/biases"


def _linear(ours: tuple[str, ...], theirs: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    yield from _kernel(ours, f"{theirs}/Matrix")
    yield "params", (*ours, "bias"), f"{theirs}/bias"


def _norm(ours: tuple[str, ...], theirs: str, mean: str, variance: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    yield "params", (*ours, "scale"), f"{theirs}/gamma"
    yield "params", (*ours, "shift"), f"{theirs}/beta"
    yield "batch_stats", (*ours, "mean"), f"{theirs}/{mean}"
    yield "batch_stats", (*ours, "variance"), f"{theirs}/{variance}"


def _attention(ours: tuple[str, ...], theirs: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    for our_name, their_name in _ATTENTION.items():
        yield from _kernel(ours, f"{theirs}/sn_conv_{their_name}/w", f"{our_name}_kernel")
    yield "params", (*ours, "gamma"), f"{theirs}/sigma_ratio"


def _generator_names(generator: Generator) -> Iterator[tuple[str, tuple[str, ...], str]]:
    yield from _linear(("linear",), "g_snh0")
    for number, size in enumerate(generator_resolutions(generator.resolution), start=1):
        ours, theirs = (f"block_{number}",), f"g_block{number}"
        for norm in (1, 2):
            yield from _norm((*ours, f"norm_{norm}"), f"{theirs}/cbn_{norm - 1}", "mean", "var")
        for name, index in _CONVOLUTIONS.items():
            yield from _convolution((*ours, name), f"{theirs}/snconv{index}")
        if size in generator.attention_resolutions:
            yield from _attention((f"attention_{size}",), "g_non_local")
    yield from _norm(("norm",), "g_bn", "moving_mean", "moving_variance")
    yield from _convolution(("conv",), "g_snconv_last")


def _discriminator_names(discriminator: Discriminator) -> Iterator[tuple[str, tuple[str, ...], str]]:
    resolutions = discriminator_resolutions(discriminator.resolution)
    for number in range(1, len(resolutions) + 1):
        ours, theirs = (f"block_{number}",), "d_optimized_block1" if number == 1 else f"d_block{number}"
        last = number == len(resolutions)
        for name, index in _CONVOLUTIONS.items():
            if not (last and name == "shortcut"):
                yield from _convolution((*ours, name), f"{theirs}/sn_conv{index}")
    for size in discriminator.attention_resolutions:
        yield from _attention((f"attention_{size}",), "d_non_local")
    yield from _linear(("linear",), "d_sn_linear")
    yield from _kernel(("projection",), "d_embedding/embedding_map")


def load(arrays: Mapping[str, np.ndarray]) -> ReleasedNetworks:
    """Returns the networks of the authors' release with the given variables.

    Args:
        arrays: TensorFlow variable names, such as `model/g_block1/snconv1/w`, to arrays in TensorFlow's layouts. A
            generator alone is enough. Variables of the optimisers are ignored. The shapes determine the width, the
            classes and the attention layers. The image size is 128, the only one that was released.

    Returns:
        The networks. Gradients flow through u and v, as in the release.

    Raises:
        InvalidInputError: when a variable is missing, is unknown or has a wrong shape.
    """
    refuse_other_code_base("official", arrays)
    names = _Names(arrays)
    generator, latent_size = _generator(names)
    discriminator = (
        _discriminator(names, generator.num_classes) if any(name.startswith("d_") for name in names.shapes) else None
    )

    def entries(network: str, found: Iterator[tuple[str, tuple[str, ...], str]]) -> tuple[Entry, ...]:
        return tuple(
            Entry(
                network,
                collection,
                path,
                names.scope + source,
                names.shape(source),
                TRANSPOSED if source.endswith("embedding_map") else IDENTITY,
            )
            for collection, path, source in found
        )

    generator_entries = entries("generator", _generator_names(generator))
    discriminator_entries = entries("discriminator", _discriminator_names(discriminator)) if discriminator else ()
    all_entries = generator_entries + discriminator_entries
    reject_unknown(arrays, {entry.source for entry in all_entries}, IGNORED)
    image_shape = (_RESOLUTION, _RESOLUTION, generator.image_channels)
    return ReleasedNetworks(
        generator,
        discriminator,
        build_variables(generator, (latent_size,), generator_entries, arrays),
        build_variables(discriminator, image_shape, discriminator_entries, arrays) if discriminator else {},
        latent_size,
        {"iterations": 1, "epsilon": 1e-12, "differentiate_vectors": True},
        all_entries,
    )


def _generator(names: _Names) -> tuple[Generator, int]:
    """Returns G and its latent size."""
    blocks = {int(found[1]) for name in names.shapes if (found := re.match(r"g_block(\d+)/", name))}
    if blocks != {1, 2, 3, 4, 5}:
        raise InvalidInputError(f"The official release needs the generator blocks 1 to 5; got {sorted(blocks)}.")
    base = names.shape("g_bn/gamma")[0] // GENERATOR_WIDTHS[_RESOLUTION][-1]
    widths = [base * width for width in GENERATOR_WIDTHS[_RESOLUTION][1:]]
    generator = Generator(
        _RESOLUTION,
        names.shape("g_block1/cbn_0/gamma")[0],
        base,
        names.shape("g_snconv_last/w")[-1],
        names.attention("g", widths, generator_resolutions(_RESOLUTION)),
    )
    return generator, names.shape("g_snh0/Matrix")[0]


def _discriminator(names: _Names, num_classes: int) -> Discriminator:
    base = names.shape("d_optimized_block1/sn_conv1/w")[-1] // DISCRIMINATOR_WIDTHS[_RESOLUTION][0]
    widths = [base * width for width in DISCRIMINATOR_WIDTHS[_RESOLUTION]]
    return Discriminator(
        _RESOLUTION,
        num_classes,
        base,
        names.attention("d", widths, discriminator_resolutions(_RESOLUTION)),
    )
