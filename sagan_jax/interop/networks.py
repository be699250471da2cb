"""Networks whose weights other people released, running as ours, with the way back to their names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.errors import InvalidInputError
from sagan_jax.functional.spectral import spectral_normalize_tree
from sagan_jax.models.sagan import Discriminator, Generator

Path = tuple[str, ...]

_NEEDS_A_TREE = "source_names needs a tree shaped like the variables of one of the two networks"


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
    transpose: bool = False
    """whether a matrix of the source is our transposed one"""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tells whether our array of this shape is the source's: the same but for axes of length one, and turned."""
        turned = self.source_shape[::-1] if self.transpose else self.source_shape
        return [size for size in turned if size != 1] == [size for size in shape if size != 1]

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the source's array in our layout."""
        return (array.T if self.transpose else array).reshape(shape)

    def to_source(self, array: np.ndarray) -> np.ndarray:
        """Returns our array in the source's layout."""
        return (array.T if self.transpose else array).reshape(self.source_shape)


@dataclasses.dataclass(frozen=True)
class ReleasedNetworks:
    """A generator and a discriminator with somebody's released weights.

    Attributes:
        generator: the flax module; `apply` it to *normalised* parameters.
        discriminator: the same.
        generator_variables: collections `params` (as stored, not normalised), `batch_stats` and `spectral`.
        discriminator_variables: the same, `batch_stats` only where D has norms.
        spectral_rule: the source's keywords for `sagan_jax.functional.spectral_normalize_tree`.
        entries: one for each array of the source.
    """

    generator: Generator
    discriminator: Discriminator
    generator_variables: dict[str, Any]
    discriminator_variables: dict[str, Any]
    spectral_rule: dict[str, Any]
    entries: tuple[Entry, ...]

    def generate(self, latents: Any, labels: Any, train: bool = False) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating; arrays or nested lists, like everything here.
            labels: `[B]`, integers in [0, classes).
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


def _checked_labels(labels: Any, batch_size: int, num_classes: int) -> Array:
    """Returns labels as an array; a class that does not exist would quietly become no class at all."""
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


def fill(shapes: Mapping[str, Any], entries: tuple[Entry, ...], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the variables of one network, each leaf taken from the source.

    Args:
        shapes: collections of `jax.ShapeDtypeStruct`, as the module's `init` would return them.
        entries: those of this network.
        arrays: the source's names to arrays.

    Returns:
        Nested dictionaries with the structure of `shapes`.

    Raises:
        InvalidInputError: when an array is missing or has another shape than the network needs.
    """
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
