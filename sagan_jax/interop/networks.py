"""Networks with released weights of other code bases, and the mapping back to the names of their source."""

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.errors import InvalidInputError
from sagan_jax.functional.spectral import power_iteration, spectral_normalize_tree
from sagan_jax.models import biggan, dcgan, sagan
from sagan_jax.runtime.full_precision import in_float32

Path = tuple[str, ...]
Generator = sagan.Generator | biggan.Generator | dcgan.Generator
Discriminator = sagan.Discriminator | dcgan.Discriminator

_NEEDS_A_TREE = "source_names needs a tree shaped like the variables of one of the two networks"


@dataclasses.dataclass(frozen=True)
class Layout:
    """A conversion of an array from the source's axes to ours and back. Axes of length one may be added or removed.

    Attributes:
        axes: for each of our axes, the axis of the source; None for the same order.
        split: the shape into which the source's array is reshaped first, if it merges axes in another order than ours.
        flip: whether the entries along our first two axes are reversed.
        plus: a constant to add to the source's entries.
    """

    axes: tuple[int, ...] | None = None
    split: tuple[int, ...] | None = None
    flip: bool = False
    plus: float = 0.0

    def fits(self, source_shape: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Returns whether an array of the source with `source_shape` can be converted to our `shape`."""
        if self.split and math.prod(self.split) != math.prod(source_shape):
            return False
        # With `split`, the axes are split, permuted and merged again.
        axes = range(len(source_shape))[::-1] if self.split else self._axes(source_shape)
        turned = [source_shape[axis] for axis in axes]
        return [size for size in turned if size != 1] == [size for size in shape if size != 1]

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the source's array converted to our layout, with the given shape."""
        array = array.reshape(self.split or array.shape)
        array = array.transpose(self._axes(array.shape))
        array = (array[::-1, ::-1] if self.flip else array).reshape(shape)
        return array + array.dtype.type(self.plus) if self.plus else array

    def to_source(self, array: np.ndarray, source_shape: tuple[int, ...]) -> np.ndarray:
        """Returns our array converted to the source's layout, with the given shape."""
        split = self.split or source_shape
        axes = self._axes(split)
        array = array.reshape([split[axis] for axis in axes])
        array = array - array.dtype.type(self.plus) if self.plus else array
        return (array[::-1, ::-1] if self.flip else array).transpose(np.argsort(axes)).reshape(source_shape)

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(range(len(shape))) if self.axes is None else self.axes


IDENTITY = Layout()
TRANSPOSED = Layout((1, 0))


@dataclasses.dataclass(frozen=True)
class Entry:
    """The mapping of one array of the source to our variables."""

    network: str
    """`generator` or `discriminator`"""
    collection: str
    """`params`, `batch_stats` or `spectral`"""
    path: Path
    source: str
    source_shape: tuple[int, ...]
    layout: Layout = IDENTITY

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether this shape of our array fits the source's array."""
        return self.layout.fits(self.source_shape, shape)

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the source's array in our layout."""
        return self.layout.to_ours(array, shape)

    def to_source(self, array: np.ndarray) -> np.ndarray:
        """Returns our array in the source's layout."""
        return self.layout.to_source(array, self.source_shape)


@dataclasses.dataclass(frozen=True)
class ReleasedNetworks:
    """A generator and a discriminator with released weights.

    Attributes:
        generator: the flax module. Apply it to *normalised* parameters.
        discriminator: the flax module, or None when the source has no discriminator.
        generator_variables: collections `params` (as stored, not normalised), `batch_stats` and `spectral`.
        discriminator_variables: the same collections; `batch_stats` only if D has norms.
        latent_size: Z.
        spectral_rule: keyword arguments of `sagan_jax.functional.spectral_normalize_tree` for this source.
        entries: one entry for each array of the source.
        assumed: properties that neither the weights nor a configuration determine, such as `ReLU`.
    """

    generator: Generator
    discriminator: Discriminator | None
    generator_variables: dict[str, Any]
    discriminator_variables: dict[str, Any]
    latent_size: int
    spectral_rule: dict[str, Any]
    entries: tuple[Entry, ...]
    assumed: tuple[str, ...] = ()

    def generate(self, latents: Any, labels: Any, train: bool = False) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating; an array or nested lists.
            labels: `[B]`, integers in [0, classes); an array or a list. A network without classes ignores them.
            train: whether to normalise with the moments of this batch instead of the running moments.

        Returns:
            `[B, H, W, C]` in [-1, 1].

        Raises:
            InvalidInputError: when the labels are not such integers. Under `jit`, their values are not checked.
        """
        latents = jnp.asarray(latents)
        labels = _checked_labels(labels, latents.shape[0], self.generator.num_classes)
        return _outputs(self.generator, self._rule(), train, self.generator_variables, latents, labels)

    def discriminate(self, images: Any, labels: Any) -> Array:
        """Returns the logits `[B]` of images.

        Args:
            images: `[B, H, W, C]` in [-1, 1], floating; an array or nested lists.
            labels: as for `generate`.

        Raises:
            InvalidInputError: as for `generate`, or when there is no discriminator.
        """
        if self.discriminator is None:
            raise InvalidInputError("discriminate needs a discriminator; these weights have only a generator.")
        images = jnp.asarray(images)
        labels = _checked_labels(labels, images.shape[0], self.discriminator.num_classes)
        return _outputs(self.discriminator, self._rule(), False, self.discriminator_variables, images, labels)

    def _rule(self) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted(self.spectral_rule.items()))

    def refuse_zeros(self) -> None:
        """Raises InvalidInputError for an all-zero kernel or vector whose spectral norm divides by 0.

        Such networks give NaN, here as in their source. Without spectral norm, zeros are valid.
        """
        kernels = {(entry.network, entry.path): entry.source for entry in self.entries if entry.collection == "params"}
        variables = {"generator": self.generator_variables, "discriminator": self.discriminator_variables}
        for entry in self.entries:
            if entry.collection != "spectral":
                continue
            kernel, vector = variables[entry.network]["params"], variables[entry.network]["spectral"]
            for name in entry.path[:-1]:
                kernel, vector = kernel[name], vector[name]
            source = kernels[entry.network, entry.path[:-1]]
            zeros = entry.source if not vector[entry.path[-1]].any() else source if not kernel.any() else None
            if zeros:
                raise InvalidInputError(
                    f"{zeros!r} is all zeros, so the spectral norm of {source!r} divides by 0, here as in its source: "
                    f"such weights give no images. Was the network never trained, or was the file made by hand?"
                )

    def source_names(self, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the leaves of a tree with the source's names and layouts.

        Args:
            tree: a tree with the structure of the `params`, `batch_stats` or `spectral` of one network, such as the
                variables themselves, their gradients or their moving averages. It may also be a dictionary of
                collections, or of `{"generator": …, "discriminator": …}`.

        Returns:
            The source's variable names to numpy arrays. Left vectors `v` are omitted if the source stores none.

        Raises:
            ValueError: when the tree matches neither network.
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
        """Returns the leaves by their source names. Raises KeyError for a leaf that is not in this network."""
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


# Jitted as a whole: layer by layer, jax would compile hundreds of small programs.
@partial(jax.jit, static_argnums=(0, 1, 2))
@in_float32
def _outputs(
    network: Generator | Discriminator,
    spectral_rule: tuple[tuple[str, Any], ...],
    train: bool,
    variables: Mapping[str, Any],
    inputs: Array,
    labels: Array | None,
) -> Array:
    """Returns the outputs of a network with released weights."""
    params, _, _ = spectral_normalize_tree(variables["params"], variables["spectral"], **dict(spectral_rule))
    normalized = {"params": params, "batch_stats": variables.get("batch_stats", {})}
    outputs = network.apply(normalized, inputs, labels, train=train)
    return outputs  # pyrefly: ignore[bad-return]


def _checked_labels(labels: Any, batch_size: int, num_classes: int) -> Array | None:
    """Returns labels as an array, after a check. Without the check, an invalid class would silently act as no class."""
    if not num_classes:
        return None
    known = not isinstance(labels, jax.core.Tracer)
    found = np.asarray(labels) if known else labels
    whole = jnp.issubdtype(found.dtype, jnp.integer)
    if found.shape != (batch_size,) or not whole or (known and not ((found >= 0) & (found < num_classes)).all()):
        span = f" from {found.min()} to {found.max()}" if known and found.size else ""
        raise InvalidInputError(
            f"The networks need {batch_size} integer labels [B] in [0, {num_classes}), one for each image; got "
            f"{found.dtype} {list(found.shape)}{span}."
        )
    return jnp.asarray(found, jnp.int32)


def build_variables(
    network: Generator | Discriminator,
    inputs: tuple[int, ...],
    entries: tuple[Entry, ...],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Returns the variables of one network, filled from the source.

    Left vectors v that the source does not store are computed from u.

    Args:
        network: our module.
        inputs: the shape of one latent or one image.
        entries: the entries of this network.
        arrays: the source's names to arrays.

    Returns:
        Collections `params`, `batch_stats` (if the network has norms) and `spectral`.

    Raises:
        InvalidInputError: when an array is missing or has a wrong shape.
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
            raise InvalidInputError(f"The released weights need the variable {name!r}, which is missing.")
        array = np.asarray(arrays[entry.source], np.float32)
        if not entry.fits(wanted.shape):
            raise InvalidInputError(
                f"{entry.source} needs {wanted.shape} in our layout; got {array.shape}. Are the weights those of a "
                f"network with another width or another number of classes?"
            )
        return entry.to_ours(array, wanted.shape)

    return jax.tree_util.tree_map_with_path(leaf, dict(shapes))


def _vectors(params: Mapping[str, Any], entries: tuple[Entry, ...], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the vectors u and v of each kernel with spectral norm in the source."""
    spectral: dict[str, Any] = {}
    stored = {entry.path for entry in entries if entry.collection == "spectral"}
    without: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
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
        wanted, axis = (matrix.shape[1], "output") if side == "u" else (matrix.shape[0], "input")
        if not entry.fits((1,) * (array.ndim - 1) + (wanted,)):
            raise InvalidInputError(
                f"{entry.source} needs {wanted} entries, one for each {axis} of its kernel; got {array.size}."
            )
        node[side] = entry.to_ours(array, (wanted,))
        if side == "u" and (*folders, "v") not in stored:
            without[tuple(folders)] = matrix, node["u"]
    for folders, v in _left_vectors(without).items():
        node = spectral
        for name in folders:
            node = node[name]
        node["v"] = np.asarray(v)
    return spectral


@jax.jit
def _left_vectors(pairs: Mapping[Path, tuple[Array, Array]]) -> dict[Path, Array]:
    """Returns the vector v for each matrix and its u."""
    return {path: power_iteration(matrix, u, iterations=1)[1] for path, (matrix, u) in pairs.items()}


def reject_unknown(names: Mapping[str, Any], used: set[str], ignored: str) -> None:
    """Raises InvalidInputError for a name that is neither used nor ignored.

    Args:
        names: the names of all arrays.
        used: the names of the arrays that were used.
        ignored: a regular expression that matches somewhere in each ignored name.
    """
    unknown = sorted(name for name in set(names) - used if not re.search(ignored, name))
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InvalidInputError(
            f"The networks have no place for the variable {unknown[0]!r}{others}. Are these weights those of another "
            f"network?"
        )
