"""The attention maps of trained networks on images: generated, real or a user's own."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from sagan_jax.data import ImageSource, to_float, to_uint8
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional import attention_map, attention_rows, attention_spread, spaced_queries
from sagan_jax.models.programs import bind_static
from sagan_jax.runtime.full_precision import in_float32

_map, _rows = jax.jit(in_float32(attention_map)), jax.jit(in_float32(attention_rows))
_spread = jax.jit(in_float32(attention_spread), static_argnames=("query_shape", "key_shape"))
_spaced = jax.jit(spaced_queries, static_argnames=("count", "query_shape"))


class AttentionLayer(NamedTuple):
    """The attention of one layer of a network on a batch of images.

    Attributes:
        network: `generator` or `discriminator`.
        resolution: the side of its features, in positions.
        gamma: the weight with which attention is added to the features.
        queries: `[B, N, D]` float32, row by row.
        keys: `[B, M, D]` float32, row by row.
        query_shape: height and width of the queries, in positions.
        key_shape: height and width of the keys; half as large if keys are pooled, as in the authors' release.
    """

    network: str
    resolution: int
    gamma: float
    queries: np.ndarray
    keys: np.ndarray
    query_shape: tuple[int, int]
    key_shape: tuple[int, int]

    @property
    def attention_map(self) -> np.ndarray:
        """The whole map, `[B, N, M]` float32; rows sum to 1. At 128 x 128 positions it takes up to 1 GiB an image."""
        return np.asarray(_map(self.queries, self.keys))

    def rows(self, number: int, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns where some query positions of one image look, without the whole map.

        Args:
            number: of the image.
            positions: `[P]`, indices of queries, row by row.

        Returns:
            `[P, M]` float32; rows sum to 1.
        """
        return np.asarray(_rows(self.queries[number], self.keys[number], np.asarray(positions, np.int32)))

    def informative_queries(self, number: int, count: int) -> list[int]:
        """Returns the positions of one image whose rows say most; see `sagan_jax.functional.informative_queries`."""
        shapes = {"query_shape": self.query_shape, "key_shape": self.key_shape}
        distance, entropy = _spread(self.queries[number], self.keys[number], **shapes)
        scores = np.asarray(distance) / np.exp(entropy)
        return np.asarray(_spaced(scores, count=count, query_shape=self.query_shape)).tolist()

    def spread(self, resolution: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns how far the attention of each position reaches, and how spread out it is.

        Args:
            resolution: the side of the images, in pixels.

        Returns:
            Mean distances `[B, N]` in pixels, entropies `[B, N]` in nats, and the entropy of uniform attention.
        """
        distance, entropy = _spread(self.queries, self.keys, query_shape=self.query_shape, key_shape=self.key_shape)
        uniform = math.log(self.keys.shape[1])
        return np.asarray(distance) * resolution / self.resolution, np.asarray(entropy), uniform

    @property
    def name(self) -> str:
        """The network and the resolution, such as `generator_32`."""
        return f"{self.network}_{self.resolution}"


class AttentionRecord(NamedTuple):
    """Images, and the attention of each layer of a network on them."""

    images: np.ndarray
    """`[B, R, R, C]` uint8"""
    labels: np.ndarray
    """`[B]` int32"""
    layers: tuple[AttentionLayer, ...]
    """in the order of the forward pass; empty if the network has no attention"""

    def statistics(self) -> dict[str, float]:
        """Returns gamma, and the mean attention distance, in pixels, and entropy, in nats, of each layer, as metrics.

        Gamma is that of the network that looked. The gamma that training logs is of the weights before its last update,
        and of G itself where this network may be its moving average.
        """
        found = {}
        for layer in self.layers:
            distance, entropy, _ = layer.spread(self.images.shape[1])
            found[f"{layer.network}/attention_gamma_{layer.resolution}"] = layer.gamma
            found[f"{layer.network}/attention_distance_{layer.resolution}"] = float(distance.mean())
            found[f"{layer.network}/attention_entropy_{layer.resolution}"] = float(entropy.mean())
        return found


def generator_attention(trained: TrainedGenerator, latents: Array | np.ndarray, labels: np.ndarray) -> AttentionRecord:
    """Returns the images of latents, and the generator's attention on them.

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
    """Returns a discriminator's attention on images.

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
    """Returns the attention of G on samples and of D on real images; both are the same in every call.

    Args:
        generator: the generator.
        discriminator: the discriminator.
        source: the real images.
        count: number of images of each.

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


@partial(jax.jit, static_argnums=0)
@in_float32
def _apply(module: nn.Module, variables: Any, inputs: Array, labels: Array) -> tuple[Array, dict[str, Any]]:
    applied: Any = module.apply(variables, inputs, labels, train=False, mutable=["intermediates"])
    outputs, sown = applied
    # The maps are sown too. They are not returned, so they are not computed.
    wanted = ("attention_queries", "attention_keys")
    layers = sown.get("intermediates", {}).items()
    return outputs, {name: [layer[part][0] for part in wanted] for name, layer in layers if "attention_map" in layer}


def _layers(network: str, variables: Mapping[str, Any], operands: Mapping[str, Any]) -> tuple[AttentionLayer, ...]:
    found = []
    for name, sown in operands.items():
        resolution = int(re.sub(r"\D", "", name) or 0)
        queries, keys = (np.asarray(operand, np.float32) for operand in sown)
        side = round(keys.shape[1] ** 0.5)
        gamma = float(variables["params"][name]["gamma"])
        shapes = (resolution, resolution), (side, side)
        found.append(AttentionLayer(network, resolution, gamma, queries, keys, *shapes))
    return tuple(sorted(found, key=lambda layer: layer.resolution, reverse=network == "discriminator"))
