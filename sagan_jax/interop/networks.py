"""Networks whose weights other people released, running as ours, with the way back to their names."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.errors import InvalidInputError
from sagan_jax.functional.spectral import power_iteration, spectral_normalize_tree
from sagan_jax.models import biggan, dcgan, sagan

Path = tuple[str, ...]
Generator = sagan.Generator | biggan.Generator | dcgan.Generator
Discriminator = sagan.Discriminator | dcgan.Discriminator

_NEEDS_A_TREE = "source_names needs a tree shaped like the variables of one of the two networks"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the axes of a source's array lie, seen from ours; axes of length one come and go.

    Attributes:
        axes: for each of our axes, that of the source.
        split: what the source's array is seen as before, for one that merges axes in another order than we do.
        flip: whether the first two of our axes run the other way.
        plus: what is added to the source's entries to get ours.
    """

    axes: tuple[int, ...] | None = None
    split: tuple[int, ...] | None = None
    flip: bool = False
    plus: float = 0.0

    def fits(self, source_shape: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Tells whether an array of the source of one shape becomes one of ours of the other."""
        if self.split and math.prod(self.split) != math.prod(source_shape):
            return False
        # What is split is merged again.
        axes = range(len(source_shape))[::-1] if self.split else self._axes(source_shape)
        turned = [source_shape[axis] for axis in axes]
        return [size for size in turned if size != 1] == [size for size in shape if size != 1]

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the source's array as ours, of the given shape."""
        array = array.reshape(self.split or array.shape)
        array = array.transpose(self._axes(array.shape))
        array = (array[::-1, ::-1] if self.flip else array).reshape(shape)
        return array + array.dtype.type(self.plus) if self.plus else array

    def to_source(self, array: np.ndarray, source_shape: tuple[int, ...]) -> np.ndarray:
        """Returns our array as the source's, of the given shape."""
        split = self.split or source_shape
        axes = self._axes(split)
        array = array.reshape([split[axis] for axis in axes])
        array = array - array.dtype.type(self.plus) if self.plus else array
        return (array[::-1, ::-1] if self.flip else array).transpose(np.argsort(axes)).reshape(source_shape)

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(range(len(shape))) if self.axes is None else self.axes


AS_IT_IS = Layout()
TRANSPOSED = Layout((1, 0))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of the source and where it lives with us."""

    network: str
    """`generator` or `discriminator`"""
    collection: str
    """`params`, `batch_stats` or `spectral`"""
    path: Path
    source: str
    source_shape: tuple[int, ...]
    layout: Layout = AS_IT_IS

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tells whether our array of this shape is the source's."""
        return self.layout.fits(self.source_shape, shape)

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the source's array in our layout."""
        return self.layout.to_ours(array, shape)

    def to_source(self, array: np.ndarray) -> np.ndarray:
        """Returns our array in the source's layout."""
        return self.layout.to_source(array, self.source_shape)


@dataclasses.dataclass(frozen=True)
class ReleasedNetworks:
    """A generator and a discriminator with somebody's released weights.

    Attributes:
        generator: the flax module; `apply` it to *normalised* parameters.
        discriminator: the same; None where the source has none.
        generator_variables: collections `params` (as stored, not normalised), `batch_stats` and `spectral`.
        discriminator_variables: the same, `batch_stats` only where D has norms.
        latent_size: entries of a latent.
        spectral_rule: the source's keywords for `sagan_jax.functional.spectral_normalize_tree`.
        entries: one for each array of the source.
    """

    generator: Generator
    discriminator: Discriminator | None
    generator_variables: dict[str, Any]
    discriminator_variables: dict[str, Any]
    latent_size: int
    spectral_rule: dict[str, Any]
    entries: tuple[Entry, ...]

    def generate(self, latents: Any, labels: Any, train: bool = False) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating; arrays or nested lists, like everything here.
            labels: `[B]`, integers in [0, classes); not read by a network without classes.
            train: normalise with the moments of this batch rather than the stored ones.

        Returns:
            `[B, H, W, C]` in [-1, 1].

        Raises:
            InvalidInputError: when the labels are no such integers, where they are known: not under `jit`.
        """
        latents = jnp.asarray(latents)
        labels = _checked_labels(labels, latents.shape[0], self.generator.num_classes)
        variables = self._normalized(self.generator_variables)
        images = self.generator.apply(variables, latents, labels, train=train)
        return images  # pyrefly: ignore[bad-return]

    def discriminate(self, images: Any, labels: Any) -> Array:
        """Returns logits `[B]` of images `[B, H, W, C]` in [-1, 1] and labels `[B]`, taken as `generate` takes them."""
        if self.discriminator is None:
            raise InvalidInputError("There is no discriminator among these weights: the generator came alone.")
        images = jnp.asarray(images)
        labels = _checked_labels(labels, images.shape[0], self.discriminator.num_classes)
        variables = self._normalized(self.discriminator_variables)
        logits = self.discriminator.apply(variables, images, labels, train=False)
        return logits  # pyrefly: ignore[bad-return]

    def _normalized(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        params, _, _ = spectral_normalize_tree(variables["params"], variables["spectral"], **self.spectral_rule)
        return {"params": params, "batch_stats": variables.get("batch_stats", {})}

    def source_names(self, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the leaves of a tree under the source's names and in its layouts.

        Args:
            tree: shaped like the parameters of one network, or like its `batch_stats` or `spectral`: the variables
                themselves, their gradients, their moving averages. A dictionary of collections, or of
                `{"generator": …, "discriminator": …}`, is taken too.

        Returns:
            The source's variable names to numpy arrays. A left vector `v` has no name where the source stores none,
            and is left out.

        Raises:
            ValueError: when the tree fits neither network.
        """
        try:
            if set(tree) <= {"generator", "discriminator"}:
                parts = [self._named(part, network) for network, part in tree.items()]
                return {name: array for part in parts for name, array in part.items()}
        except KeyError as error:
            raise ValueError(f"{_NEEDS_A_TREE}; got a leaf at {error}.") from error
        for network in ("generator", "discriminator"):
            try:
                return self._named(tree, network)
            except KeyError:
                continue
        raise ValueError(f"{_NEEDS_A_TREE}; got {sorted(tree)}.")

    def _named(self, tree: Mapping[str, Any], network: str) -> dict[str, np.ndarray]:
        """Returns the leaves under their source names, or raises KeyError where one is not this network's."""
        known = {entry.path: entry for entry in self.entries if entry.network == network}
        named = {}
        for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            path = tuple(str(getattr(key, "key", key)) for key in keys)
            path = path[1:] if path[:1] and path[0] in ("params", "batch_stats", "spectral") else path
            if path[-1:] == ("v",) and path not in known and (*path[:-1], "u") in known:
                continue
            entry, array = known[path], np.asarray(leaf)
            if not entry.fits(array.shape):
                raise KeyError("/".join(path))
            named[entry.source] = entry.to_source(array)
        return named


def _checked_labels(labels: Any, batch_size: int, num_classes: int) -> Array | None:
    """Returns labels as an array; a class that does not exist would quietly become no class at all."""
    if not num_classes:
        return None
    known = not isinstance(labels, jax.core.Tracer)
    found = np.asarray(labels) if known else labels
    whole = jnp.issubdtype(found.dtype, jnp.integer)
    if found.shape != (batch_size,) or not whole or (known and not ((found >= 0) & (found < num_classes)).all()):
        span = f" from {found.min()} to {found.max()}" if known and found.size else ""
        raise InvalidInputError(
            f"The networks need {batch_size} integer labels [B] in [0, {num_classes}), one an image; got "
            f"{found.dtype} {list(found.shape)}{span}."
        )
    return jnp.asarray(found, jnp.int32)


def variables_of(
    network: Generator | Discriminator,
    inputs: tuple[int, ...],
    entries: tuple[Entry, ...],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Returns the variables of one network, each leaf taken from the source.

    Where the source stores no left vector v, the one that follows from u stands in.

    Args:
        network: ours.
        inputs: shape of its latents or images, for one of them.
        entries: those of this network.
        arrays: the source's names to arrays.

    Returns:
        Collections `params`, `batch_stats` where it has norms, and `spectral`.

    Raises:
        InvalidInputError: when an array is missing or has another shape than the network needs.
    """
    labels = jnp.zeros((1,), jnp.int32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *inputs)), labels, train=False))
    shapes = {name: shapes[name] for name in ("params", "batch_stats") if name in shapes}
    variables = _fill(shapes, entries, arrays)
    return variables | {"spectral": _vectors(variables["params"], entries, arrays)}


def _fill(shapes: Mapping[str, Any], entries: tuple[Entry, ...], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the variables with the structure of `shapes`."""
    sources = {(entry.collection, *entry.path): entry for entry in entries}

    def leaf(keys: Any, wanted: jax.ShapeDtypeStruct) -> np.ndarray:
        path = tuple(key.key for key in keys)
        entry = sources.get(path)
        if entry is None or entry.source not in arrays:
            name = entry.source if entry else "/".join(path)
            raise InvalidInputError(f"The released weights need the variable {name!r}, which is not among those given.")
        array = np.asarray(arrays[entry.source], np.float32)
        if not entry.fits(wanted.shape):
            raise InvalidInputError(
                f"{entry.source} needs {wanted.shape} in our layout; got {array.shape}: "
                f"the weights are of a network of another width or another number of classes."
            )
        return entry.to_ours(array, wanted.shape)

    return jax.tree_util.tree_map_with_path(leaf, dict(shapes))


def _vectors(params: Mapping[str, Any], entries: tuple[Entry, ...], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns u and v of each kernel that the source normalises."""
    spectral: dict[str, Any] = {}
    for entry in entries:
        if entry.collection != "spectral":
            continue
        *folders, side = entry.path
        kernel: Any = params
        node = spectral
        for name in folders:
            kernel, node = kernel[name], node.setdefault(name, {})
        matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        array = np.asarray(arrays[entry.source], np.float32)
        wanted, of_what = (matrix.shape[1], "output") if side == "u" else (matrix.shape[0], "input")
        if not entry.fits((1,) * (array.ndim - 1) + (wanted,)):
            raise InvalidInputError(
                f"{entry.source} needs {wanted} entries, one for each {of_what} of its kernel; got {array.size}."
            )
        node[side] = entry.to_ours(array, (wanted,))
        if side == "u":
            _, v = power_iteration(jnp.asarray(matrix), jnp.asarray(node["u"]), iterations=1)
            node.setdefault("v", np.asarray(v))
    return spectral


def refuse_unknown(names: Mapping[str, Any], used: set[str], ignored: str) -> None:
    """Raises InvalidInputError for a name that is neither used nor one that may be left out.

    Args:
        names: of all arrays.
        used: those that were read.
        ignored: a regular expression, found anywhere in names that may be left out.
    """
    unknown = sorted(name for name in set(names) - used if not re.search(ignored, name))
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InvalidInputError(
            f"The released weights have no place for the variable {unknown[0]!r}{others}: they are of a network of "
            f"another kind."
        )
