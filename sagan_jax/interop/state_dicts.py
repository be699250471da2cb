"""State dicts of PyTorch networks: names, tensor layouts, and their mapping to our variables."""

import re
from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import (
    IDENTITY,
    Discriminator,
    Entry,
    Generator,
    Layout,
    Path,
    ReleasedNetworks,
    build_variables,
    reject_unknown,
)
from sagan_jax.interop.source_config import refuse_feature

CONVOLUTION = Layout((2, 3, 1, 0))
DECONVOLUTION = Layout((2, 3, 0, 1), flip=True)

_IGNORED = r"(^|[./])(num_batches_tracked|sv\d+|global_step|accumulation_counter)$"


def channels_last_layout(shape: tuple[int, ...]) -> Layout:
    """Returns the layout of a linear map to 4x4 features. PyTorch merges (C, 4, 4), and we merge (4, 4, C).

    Args:
        shape: the shape of the weight `[16 C, Z]`, or of the bias or u `[16 C]`.
    """
    channels = shape[0] // 16
    if len(shape) == 2:
        return Layout((3, 1, 2, 0), split=(channels, 4, 4, shape[1]))
    return Layout((1, 2, 0), split=(channels, 4, 4))


def left_vector_layout(weight: tuple[int, ...], transposed: bool = False) -> Layout:
    """Returns the layout of a convolution's left vector v. PyTorch merges (in, kh, kw), and we merge (kh, kw, in).

    Args:
        weight: the shape of the weight.
        transposed: whether it is a transposed convolution. Its input axis comes first, and our kernel is flipped.
    """
    inputs = weight[0] if transposed else weight[1]
    return Layout((1, 2, 0), split=(inputs, *weight[2:]), flip=transposed)


class StateDict:
    """The tensors of one network.

    Args:
        network: `generator` or `discriminator`.
        arrays: all arrays. The names of this network start with `generator/` or `discriminator/`, optionally followed
            by `module.`.
    """

    def __init__(self, network: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.network = network
        self.entries: list[Entry] = []
        self._sources = {
            name.removeprefix(f"{network}/").removeprefix("module."): name
            for name in arrays
            if name.startswith(f"{network}/")
        }
        self.shapes = {name: np.shape(arrays[source]) for name, source in self._sources.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Returns the shape of a tensor. Raises InvalidInputError when it is missing or has another number of axes."""
        if name not in self.shapes:
            raise InvalidInputError(f"The {self.network} needs the tensor {name!r}, which is missing.")
        shape = self.shapes[name]
        if len(shape) != axes or not all(shape):
            raise InvalidInputError(f"The {self.network}'s {name!r} needs {axes} axes; got the shape {list(shape)}.")
        return shape

    def refuse_features(self, features: Mapping[str, str]) -> None:
        """Raises InvalidInputError for a tensor that belongs to an unsupported feature.

        Args:
            features: regular expressions that match the start of such tensor names, mapped to descriptions of the
                feature.
        """
        for pattern, feature in features.items():
            found = sorted(name for name in self.shapes if re.match(pattern, name))
            if found:
                refuse_feature(f"{feature}; the {self.network} has {found[0]!r}")

    def refuse_exchanged(self, tensors: Mapping[str, str]) -> None:
        """Raises InvalidInputError when these tensors belong to the other network.

        Args:
            tensors: for each network, a regular expression that matches the start of names that only this network has.
        """
        (other,) = set(tensors) - {self.network}
        has_own = any(re.match(tensors[self.network], name) for name in self.shapes)
        found = sorted(name for name in self.shapes if re.match(tensors[other], name))
        if found and not has_own:
            raise InvalidInputError(
                f"The tensors given as the {self.network} are those of a {other}: they have {found[0]!r}. Were the "
                f"two files swapped, or is it the wrong file?"
            )

    def check_rows(self, name: str, rows: int) -> None:
        """Raises InvalidInputError unless the tensor of the first linear layer has this many rows."""
        shape = self.shape(name, 2)
        if shape[0] != rows:
            raise InvalidInputError(
                f"The {self.network}'s {name!r} needs {rows} rows, to match the width of its other layers; "
                f"got {shape[0]}."
            )

    def first_present(self, *names: str) -> str:
        """Returns the first of the names that exists, or the first name if none exists."""
        return next((name for name in names if name in self.shapes), names[0])

    def blocks(self) -> list[list[str]]:
        """Returns the prefixes of the parts of each block `blocks.i`, such as `blocks.3.1`."""
        found = sorted(
            {(int(at[1]), int(at[2])) for name in self.shapes if (at := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
        )
        parts: dict[int, list[str]] = {}
        for block, part in found:
            parts.setdefault(block, []).append(f"blocks.{block}.{part}")
        return [parts[block] for block in sorted(parts)]

    def add(self, collection: str, path: Path, name: str, layout: Layout = IDENTITY) -> None:
        """Adds the entry that maps a tensor to one of our variables."""
        source = self._sources.get(name, f"{self.network}/{name}")
        shape = self.shapes.get(name, ())
        self.entries.append(Entry(self.network, collection, path, source, shape, layout))

    def add_norm(self, path: Path, names: tuple[str, str, str, str]) -> None:
        """Adds scale, shift, mean and variance of an unconditional norm."""
        scale, shift, mean, variance = names
        self.add("params", (*path, "scale"), scale)
        self.add("params", (*path, "shift"), shift)
        self.add_moments(path, mean, variance)

    def add_moments(self, path: Path, mean: str, variance: str) -> None:
        """Adds the running moments of a norm."""
        self.add("batch_stats", (*path, "mean"), mean)
        self.add("batch_stats", (*path, "variance"), variance)


def build_networks(
    arrays: Mapping[str, np.ndarray],
    generator: tuple[Generator, int, StateDict],
    discriminator: tuple[Discriminator, int, StateDict] | None,
    *,
    iterations: int,
    epsilon: float,
    assumed: tuple[str, ...] = (),
) -> ReleasedNetworks:
    """Returns the networks of two state dicts.

    Args:
        arrays: all arrays, `generator/<key>` and `discriminator/<key>`.
        generator: the module, its latent size, and its state dict with all entries.
        discriminator: the module, its image channels, and its state dict with all entries; None for no discriminator.
        iterations: the number of power iterations before sigma is computed.
        epsilon: added to the norms of u and v.
        assumed: properties that neither the weights nor a configuration determine.

    Raises:
        InvalidInputError: when a tensor is missing, is unknown, or has a shape that contradicts the others.
    """
    module, latent_size, state = generator
    entries = (*state.entries, *(discriminator[2].entries if discriminator else ()))
    reject_unknown(arrays, {entry.source for entry in entries}, _IGNORED)
    other, discriminator_variables = None, {}
    if discriminator:
        other, channels, other_state = discriminator
        if (other.resolution, other.num_classes) != (module.resolution, module.num_classes):
            raise InvalidInputError(
                f"Both networks need the same image size and number of classes; got {module.resolution} pixels and "
                f"{module.num_classes} classes in the generator, {other.resolution} and {other.num_classes} in the "
                f"discriminator."
            )
        shape = other.resolution, other.resolution, channels
        discriminator_variables = build_variables(other, shape, tuple(other_state.entries), arrays)
    return ReleasedNetworks(
        module,
        other,
        build_variables(module, (latent_size,), tuple(state.entries), arrays),
        discriminator_variables,
        latent_size,
        {"iterations": iterations, "epsilon": epsilon},
        entries,
        assumed,
    )


def attention_sizes(network: str, blocks: list[int], resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the feature-map sizes of the blocks that are followed by an attention layer.

    Args:
        network: `generator` or `discriminator`.
        blocks: the numbers of these blocks, from 1, in ascending order.
        resolutions: the feature-map size after each block.

    Raises:
        InvalidInputError: when attention follows several blocks of the same size, or not the first block of a size. The
            networks of this package do not support this.
    """
    sizes = tuple(resolutions[number - 1] for number in blocks)
    for number, size in zip(blocks, sizes, strict=True):
        first = resolutions.index(size) + 1
        if sizes.count(size) > 1:
            refuse_feature(
                f"attention twice at a size: the {network} has it after blocks {_listed(blocks)}, and at most one "
                f"attention layer for each feature-map size is possible; got the sizes {list(sizes)}"
            )
        if number != first:
            refuse_feature(
                f"attention after a later block of a size: the {network} has it after block {number}, and at "
                f"{size} pixels it can only follow block {first}"
            )
    return sizes


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers))


def infer_resolution(network: str, blocks: int, resolutions: Mapping[int, int]) -> int:
    """Returns the image size of a network from its number of blocks. `resolutions` is `{blocks: resolution}`."""
    if blocks not in resolutions:
        raise InvalidInputError(
            f"The {network} needs {' or '.join(map(str, sorted(resolutions)))} blocks; got {blocks}. "
            f"It is another kind of network, or has an image size that is not supported."
        )
    return resolutions[blocks]


def infer_base_channels(state: StateDict, name: str, channels: int, width: int) -> int:
    """Returns the base width of a network whose tensor `name` has `width` times as many channels."""
    if channels % width:
        raise InvalidInputError(
            f"The {state.network}'s {name!r} needs a multiple of {width} channels in a network with this number of "
            f"blocks; got {channels}."
        )
    return channels // width
