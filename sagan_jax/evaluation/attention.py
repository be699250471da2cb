"""The attention maps of trained networks on images: generated, real or a user's own."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from sagan_jax.data import ImageSource, to_float, to_uint8
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional import attention_distance, attention_entropy


class AttentionLayer(NamedTuple):
    """The attention of one layer of a network on a batch of images.

    Attributes:
        network: `generator` or `discriminator`.
        resolution: the side of its features, in positions.
        gamma: the weight with which attention is added to the features.
        attention_map: `[B, N, M]` float32 for N queries and M keys, both row by row; rows sum to 1.
        query_shape: height and width of the queries, in positions.
        key_shape: height and width of the keys; half as large if keys are pooled, as in the authors' release.
    """

    network: str
    resolution: int
    gamma: float
    attention_map: np.ndarray
    query_shape: tuple[int, int]
    key_shape: tuple[int, int]

    def spread(self, resolution: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns how far the attention of each position reaches, and how spread out it is.

        Args:
            resolution: the side of the images, in pixels.

        Returns:
            Mean distances `[B, N]` in pixels, entropies `[B, N]` in nats, and the entropy of uniform attention.
        """
        distance, entropy = _distance_and_entropy(self.query_shape, self.key_shape, self.attention_map)
        uniform = math.log(self.attention_map.shape[-1])
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
    images, maps = _apply(trained.generator, trained.variables, np.asarray(latents), np.asarray(labels))
    layers = _layers("generator", trained.variables, maps)
    return AttentionRecord(to_uint8(np.asarray(images)), np.asarray(labels), layers)


def discriminator_attention(trained: TrainedDiscriminator, images: np.ndarray, labels: np.ndarray) -> AttentionRecord:
    """Returns a discriminator's attention on images.

    Args:
        trained: the discriminator.
        images: `[B, R, R, C]` uint8; R is its resolution.
        labels: `[B]` int32; they do not affect attention, which comes before the class projection.
    """
    _, maps = _apply(trained.discriminator, trained.variables, to_float(images), np.asarray(labels))
    return AttentionRecord(images, np.asarray(labels), _layers("discriminator", trained.variables, maps))


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


@partial(jax.jit, static_argnums=(0, 1))
def _distance_and_entropy(
    query_shape: tuple[int, int], key_shape: tuple[int, int], attention_map: Array
) -> tuple[Array, Array]:
    distance = attention_distance(attention_map, query_shape=query_shape, key_shape=key_shape)
    return distance, attention_entropy(attention_map)


@partial(jax.jit, static_argnums=0)
def _apply(module: nn.Module, variables: Any, inputs: Array, labels: Array) -> tuple[Array, dict[str, Any]]:
    with jax.default_matmul_precision("float32"):
        applied: Any = module.apply(variables, inputs, labels, train=False, mutable=["intermediates"])
    outputs, sown = applied
    return outputs, sown.get("intermediates", {})


def _layers(network: str, variables: Mapping[str, Any], maps: Mapping[str, Any]) -> tuple[AttentionLayer, ...]:
    found = []
    for name, sown in maps.items():
        resolution = int(re.sub(r"\D", "", name) or 0)
        if "attention_map" not in sown:
            continue
        attention_map = np.asarray(sown["attention_map"][0], np.float32)
        side = round(attention_map.shape[-1] ** 0.5)
        gamma = float(variables["params"][name]["gamma"])
        found.append(AttentionLayer(network, resolution, gamma, attention_map, (resolution, resolution), (side, side)))
    return tuple(sorted(found, key=lambda layer: layer.resolution, reverse=network == "discriminator"))
