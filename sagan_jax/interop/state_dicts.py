"""State dicts of PyTorch networks: their names, the layouts of their tensors, and which of them were taken."""

import re
from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import (
    AS_IT_IS,
    Discriminator,
    Entry,
    Generator,
    Layout,
    Path,
    ReleasedNetworks,
    refuse_unknown,
    variables_of,
)

CONVOLUTION = Layout((2, 3, 1, 0))
DECONVOLUTION = Layout((2, 3, 0, 1), flip=True)

_IGNORED = r"(^|[./])(num_batches_tracked|sv\d+|global_step|accumulation_counter)$"


def positions_first(shape: tuple[int, ...]) -> Layout:
    """Returns the layout of a linear map to 4x4 features: PyTorch merges (C, 4, 4), we (4, 4, C).

    Args:
        shape: of its weight `[16 C, Z]`, or of its bias or u `[16 C]`.
    """
    channels = shape[0] // 16
    if len(shape) == 2:
        return Layout((3, 1, 2, 0), split=(channels, 4, 4, shape[1]))
    return Layout((1, 2, 0), split=(channels, 4, 4))


def left_vector(weight: tuple[int, ...], transposed: bool = False) -> Layout:
    """Returns the layout of a convolution's left vector v: PyTorch merges (in, kh, kw), we (kh, kw, in).

    Args:
        weight: shape of the convolution's.
        transposed: whether it is a transposed one, whose input comes first and whose kernel we turn round.
    """
    inputs = weight[0] if transposed else weight[1]
    return Layout((1, 2, 0), split=(inputs, *weight[2:]), flip=transposed)


class StateDict:
    """The tensors of one network.

    Args:
        network: `generator` or `discriminator`.
        arrays: all arrays, this network's with its name in front, and perhaps `module.` after it.
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
        """Returns the shape of a tensor, which has to be there and to have so many axes."""
        if name not in self.shapes:
            raise InvalidInputError(f"The {self.network} needs the tensor {name!r}, which is not among those given.")
        shape = self.shapes[name]
        if len(shape) != axes or not all(shape):
            raise InvalidInputError(f"The {self.network}'s {name!r} needs {axes} axes; got the shape {list(shape)}.")
        return shape

    def first(self, *names: str) -> str:
        """Returns the first of some spellings that is there, or the first of all."""
        return next((name for name in names if name in self.shapes), names[0])

    def blocks(self) -> list[list[str]]:
        """Returns for each `blocks.i` the prefixes of its parts, such as `blocks.3.1`."""
        found = sorted(
            {(int(at[1]), int(at[2])) for name in self.shapes if (at := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
        )
        parts: dict[int, list[str]] = {}
        for block, part in found:
            parts.setdefault(block, []).append(f"blocks.{block}.{part}")
        return [parts[block] for block in sorted(parts)]

    def take(self, collection: str, path: Path, name: str, layout: Layout = AS_IT_IS) -> None:
        """Notes that a tensor is one of ours."""
        source = self._sources.get(name, f"{self.network}/{name}")
        shape = self.shapes.get(name, ())
        self.entries.append(Entry(self.network, collection, path, source, shape, layout))

    def norm(self, path: Path, names: tuple[str, str, str, str]) -> None:
        """Takes scale, shift, mean and variance of an unconditional norm."""
        scale, shift, mean, variance = names
        self.take("params", (*path, "scale"), scale)
        self.take("params", (*path, "shift"), shift)
        self.moments(path, mean, variance)

    def moments(self, path: Path, mean: str, variance: str) -> None:
        """Takes the running moments of a norm."""
        self.take("batch_stats", (*path, "mean"), mean)
        self.take("batch_stats", (*path, "variance"), variance)


def released(
    arrays: Mapping[str, np.ndarray],
    generator: tuple[Generator, int, StateDict],
    discriminator: tuple[Discriminator, int, StateDict] | None,
    *,
    iterations: int,
    epsilon: float,
) -> ReleasedNetworks:
    """Returns the networks that two state dicts describe.

    Args:
        arrays: all of them, `generator/<key>` and `discriminator/<key>`.
        generator: the module, the size of its latents, and its state dict, read.
        discriminator: the module, its image channels, and its state dict, read; None where there is none.
        iterations: of the power iteration before sigma is taken.
        epsilon: added to the norms of u and v.

    Raises:
        InvalidInputError: a tensor is missing, unknown, or has a shape that contradicts the others.
    """
    module, latent_size, state = generator
    entries = (*state.entries, *(discriminator[2].entries if discriminator else ()))
    refuse_unknown(arrays, {entry.source for entry in entries}, _IGNORED)
    judge, judged = None, {}
    if discriminator:
        judge, channels, other = discriminator
        if (judge.resolution, judge.num_classes) != (module.resolution, module.num_classes):
            raise InvalidInputError(
                f"Both networks need one image size and one number of classes; got {module.resolution} pixels and "
                f"{module.num_classes} classes in the generator, {judge.resolution} and {judge.num_classes} in the "
                f"discriminator."
            )
        judged = variables_of(judge, (judge.resolution, judge.resolution, channels), tuple(other.entries), arrays)
    return ReleasedNetworks(
        module,
        judge,
        variables_of(module, (latent_size,), tuple(state.entries), arrays),
        judged,
        latent_size,
        {"iterations": iterations, "epsilon": epsilon},
        entries,
    )


def resolution_of(network: str, blocks: int, resolutions: Mapping[int, int]) -> int:
    """Returns the image size of a network of so many blocks, out of `{blocks: resolution}`."""
    if blocks not in resolutions:
        raise InvalidInputError(
            f"The {network} needs {' or '.join(map(str, sorted(resolutions)))} blocks; got {blocks}: "
            f"it is of another kind, or for an image size that is not had here."
        )
    return resolutions[blocks]


def base_of(state: StateDict, name: str, channels: int, width: int) -> int:
    """Returns the base width of a network whose tensor has so many channels where it should have `width` times that."""
    if channels % width:
        raise InvalidInputError(
            f"The {state.network}'s {name!r} needs channels in multiples of {width} for a network of so many blocks; "
            f"got {channels}."
        )
    return channels // width
