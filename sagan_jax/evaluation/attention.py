"""The attention maps of trained networks for generated images, real images, or a user's images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data import ImageSource, to_float, to_uint8
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional import (
    attention_distance,
    attention_entropy,
    attention_map,
    attention_rows,
    attention_spread,
    spaced_queries,
)
from sagan_jax.models.programs import bind_static
from sagan_jax.runtime.full_precision import in_float32

_map, _rows = jax.jit(in_float32(attention_map)), jax.jit(in_float32(attention_rows))
_spread = jax.jit(in_float32(attention_spread), static_argnames=("query_shape", "key_shape"))
_distance = jax.jit(in_float32(attention_distance), static_argnames=("query_shape", "key_shape"))
_entropy = jax.jit(in_float32(attention_entropy))
_spaced = jax.jit(spaced_queries, static_argnames=("count", "query_shape"))


class AttentionLayer(NamedTuple):
    """The attention of one layer for a batch of images, stored as queries and keys or as maps.

    Attributes:
        network: `generator` or `discriminator`.
        resolution: the side of the layer's feature map, in positions.
        gamma: the weight of the attention output in the residual sum; None for a layer without one.
        queries: `[B, N, D]` or `[B, heads, N, D]` float32, in row-major order; empty if `maps` is given.
        keys: `[B, M, D]` or `[B, heads, M, D]` float32, in row-major order; empty if `maps` is given.
        query_shape: height and width of the queries, in positions.
        key_shape: height and width of the keys; half as large if keys are pooled, as in the authors' release.
        maps: `[B, N, M]` float32; None if the layer has queries and keys. Statistics of multi-head attention use the
            mean map over heads.
    """

    network: str
    resolution: int
    gamma: float | None
    queries: np.ndarray
    keys: np.ndarray
    query_shape: tuple[int, int]
    key_shape: tuple[int, int]
    maps: np.ndarray | None = None

    @property
    def attention_map(self) -> np.ndarray:
        """The whole map, `[B, N, M]` float32; rows sum to 1. At 128 x 128 positions it takes up to 1 GiB per image."""
        if self.maps is not None:
            return self.maps
        if self.queries.ndim == 3:
            return np.asarray(_map(self.queries, self.keys))
        positions = np.arange(self.queries.shape[-2])
        return np.stack([self.rows(number, positions) for number in range(len(self.queries))])

    def rows(self, number: int, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the rows of some query positions of one image, without computing the whole map.

        Args:
            number: the index of the image in the batch.
            positions: `[P]`, query indices in row-major order.

        Returns:
            `[P, M]` float32; rows sum to 1.
        """
        if self.maps is not None:
            return self.maps[number, np.asarray(positions)]
        rows = np.asarray(_rows(self.queries[number], self.keys[number], np.asarray(positions, np.int32)))
        return rows if rows.ndim == 2 else rows.mean(axis=0)

    def informative_queries(self, number: int, count: int) -> list[int]:
        """Returns informative query positions of one image; see `sagan_jax.functional.informative_queries`."""
        one = slice(number, number + 1)
        layer = self._replace(
            queries=self.queries[one], keys=self.keys[one], maps=None if self.maps is None else self.maps[one]
        )
        distance, entropy = layer._spread()
        scores = distance[0] / np.exp(entropy[0])
        return np.asarray(_spaced(scores, count=count, query_shape=self.query_shape)).tolist()

    def spread(self, resolution: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns the attention distance and the entropy of each query position.

        Args:
            resolution: the side of the images, in pixels.

        Returns:
            Mean distances `[B, N]` in pixels, entropies `[B, N]` in nats, and the entropy of uniform attention.
        """
        distance, entropy = self._spread()
        return distance * resolution / self.resolution, entropy, math.log(math.prod(self.key_shape))

    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns distances in units of positions, and entropies, both `[B, N]`."""
        shapes = {"query_shape": self.query_shape, "key_shape": self.key_shape}
        if self.maps is None and self.queries.ndim == 3:
            distance, entropy = _spread(self.queries, self.keys, **shapes)
        else:
            maps = self.attention_map
            distance, entropy = _distance(maps, **shapes), _entropy(maps)
        return np.asarray(distance), np.asarray(entropy)

    @property
    def name(self) -> str:
        """The network and the resolution, such as `generator_32`."""
        return f"{self.network}_{self.resolution}"


class AttentionRecord(NamedTuple):
    """Images, and the attention of each layer of a network for them."""

    images: np.ndarray
    """`[B, R, R, C]` uint8"""
    labels: np.ndarray
    """`[B]` int32"""
    layers: tuple[AttentionLayer, ...]
    """in the order of the forward pass; empty if the network has no attention"""

    def statistics(self) -> dict[str, float]:
        """Returns metrics of each layer: gamma, the mean attention distance in pixels, and the mean entropy in nats.

        A layer without a gamma has only the other two.

        This gamma belongs to the network in this record, which may be the moving average of G. Training logs the gamma
        of the trained G, before its last update.
        """
        found = {}
        for layer in self.layers:
            distance, entropy, _ = layer.spread(self.images.shape[1])
            if layer.gamma is not None:
                found[f"{layer.network}/attention_gamma_{layer.resolution}"] = layer.gamma
            found[f"{layer.network}/attention_distance_{layer.resolution}"] = float(distance.mean())
            found[f"{layer.network}/attention_entropy_{layer.resolution}"] = float(entropy.mean())
        return found


def generator_attention(trained: TrainedGenerator, latents: Array | np.ndarray, labels: np.ndarray) -> AttentionRecord:
    """Returns the images of latents, and the generator's attention for them.

    Args:
        trained: the generator; its batch norms use the stored statistics.
        latents: `[B, Z]`, for example from `TrainedGenerator.latents`.
        labels: `[B]` int32.
    """
    images, operands = bind_static(_apply, trained.generator)(
        trained.variables, np.asarray(latents), np.asarray(labels)
    )
    layers = _layers("generator", trained.variables, operands)
    return AttentionRecord(to_uint8(np.asarray(images)), np.asarray(labels), layers)


def discriminator_attention(trained: TrainedDiscriminator, images: np.ndarray, labels: np.ndarray) -> AttentionRecord:
    """Returns a discriminator's attention for images.

    Args:
        trained: the discriminator.
        images: `[B, R, R, C]` uint8; R is its resolution.
        labels: `[B]` int32; they do not affect attention, which comes before the class projection.
    """
    _, operands = bind_static(_apply, trained.discriminator)(trained.variables, to_float(images), np.asarray(labels))
    return AttentionRecord(images, np.asarray(labels), _layers("discriminator", trained.variables, operands))


def attention_records(
    generator: TrainedGenerator, discriminator: TrainedDiscriminator, source: ImageSource, count: int = 16
) -> list[AttentionRecord]:
    """Returns the attention of G for samples and of D for real images. Every call uses the same latents and images.

    Args:
        generator: the generator.
        discriminator: the discriminator.
        source: the real images.
        count: the number of samples, and of real images.

    Returns:
        One record for each network that has attention layers.
    """
    labels = np.resize(generator.classes(), count).astype(np.int32)
    sampled = generator_attention(generator, generator.latents(jax.random.key(0), np.arange(count)), labels)
    chosen = np.resize(np.random.default_rng(0).permutation(len(source)), count)
    items = [source[int(index)] for index in chosen]
    images, labels = np.stack([image for image, _ in items]), np.array([label for _, label in items], np.int32)
    real = discriminator_attention(discriminator, images, labels)
    return [record for record in (sampled, real) if record.layers]


def sows_attention(network: nn.Module, inputs: tuple[int, ...]) -> bool:
    """Returns whether a network has a layer that sows an attention map. The network is traced, not run.

    Args:
        network: as in `generator_attention` or `discriminator_attention`.
        inputs: the shape of one latent or of one image.
    """
    given = jax.ShapeDtypeStruct((1, *inputs), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    variables: Any = jax.eval_shape(
        lambda *given: network.init(jax.random.key(0), *given, train=False, mutable=True), *given
    )
    return any(True for _ in sown_maps(variables.get("intermediates", {})))


def sown_maps(sown: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yields the path of each layer that sowed a map, and its map, queries and keys by name.

    Args:
        sown: the collection `intermediates`.
        path: the path of the module that `sown` belongs to.
    """
    parts = ("attention_map", "attention_queries", "attention_keys")
    if isinstance(sown.get("attention_map"), tuple):
        yield path, {part: sown[part][0] for part in parts if isinstance(sown.get(part), tuple)}
    for name, inner in sown.items():
        if isinstance(inner, Mapping):
            yield from sown_maps(inner, (*path, name))


def mean_over_heads(attention_map: Array) -> Array:
    """Averages a map `[B, heads, N, M]` over heads to `[B, N, M]` float32. A map without heads is only cast."""
    attention_map = attention_map.astype(jnp.float32)
    return attention_map if attention_map.ndim == 3 else attention_map.mean(axis=1)


@partial(jax.jit, static_argnums=0)
@in_float32
def _apply(module: nn.Module, variables: Any, inputs: Array, labels: Array) -> tuple[Array, dict[str, Any]]:
    """Returns the outputs, and for each layer by path its queries and keys, or its maps if it has none."""
    applied: Any = module.apply(variables, inputs, labels, train=False, mutable=["intermediates"])
    outputs, sown = applied
    found = {}
    for path, parts in sown_maps(sown.get("intermediates", {})):
        # XLA does not compute a map that is not returned.
        if {"attention_queries", "attention_keys"} <= set(parts):
            found["/".join(path)] = {"queries": parts["attention_queries"], "keys": parts["attention_keys"]}
        else:
            found["/".join(path)] = {"maps": mean_over_heads(parts["attention_map"])}
    return outputs, found


def _layers(network: str, variables: Mapping[str, Any], seen: Mapping[str, Any]) -> tuple[AttentionLayer, ...]:
    found = []
    for path, parts in seen.items():
        arrays = {part: np.asarray(array, np.float32) for part, array in parts.items()}
        maps = arrays.get("maps")
        queries, keys = arrays.get("queries", _NOTHING), arrays.get("keys", _NOTHING)
        rows, columns = maps.shape[1:] if maps is not None else (queries.shape[-2], keys.shape[-2])
        resolution, side = (round(positions**0.5) for positions in (rows, columns))
        shapes = (resolution, resolution), (side, side)
        gamma = _gamma(variables["params"], path)
        found.append(AttentionLayer(network, resolution, gamma, queries, keys, *shapes, maps))
    return tuple(sorted(found, key=lambda layer: layer.resolution, reverse=network == "discriminator"))


_NOTHING = np.zeros((0, 0, 0), np.float32)


def _gamma(params: Any, path: str) -> float | None:
    """Returns the scalar `gamma` among the parameters of a layer, or None."""
    for name in filter(None, path.split("/")):
        params = params.get(name, {})
    gamma = params.get("gamma")
    return float(gamma) if getattr(gamma, "shape", None) == () else None
