"""Where the networks of a run look: their attention maps on images, generated, real or a user's own."""

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data import ImageSource, to_float, to_uint8
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional import attention_distance, attention_entropy


@dataclasses.dataclass(frozen=True)
class TrainedDiscriminator:
    """A discriminator with its spectral normalisation folded in.

    Attributes:
        discriminator: the flax module.
        variables: `params`, normalised, and `batch_stats` where it has any.
        num_classes: 0 when it is unconditional.
        step: generator updates that it was trained for.
    """

    discriminator: nn.Module
    variables: dict[str, Any] = dataclasses.field(repr=False)
    num_classes: int
    step: int


class AttentionLayer(NamedTuple):
    """One attention layer of a network, and where it looked.

    Attributes:
        network: `generator` or `discriminator`.
        resolution: of its features, in positions a side.
        gamma: how much of what it gathers is added to the features.
        attention_map: `[B, N, M]` float32: N query positions, row by row, M keys, row by row; rows sum to 1.
        query_shape: height and width of the queries, in positions.
        key_shape: of the keys: half of that in the release's form, whose keys are pooled.
    """

    network: str
    resolution: int
    gamma: float
    attention_map: np.ndarray
    query_shape: tuple[int, int]
    key_shape: tuple[int, int]

    def spread(self, resolution: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns how far each position looks, how spread out, and what a uniform row would have for the latter.

        Args:
            resolution: of the images.

        Returns:
            Distances `[B, N]` in pixels, entropies `[B, N]` in nats, and the entropy of a uniform row.
        """
        attention_map = jnp.asarray(self.attention_map)
        distance = attention_distance(attention_map, query_shape=self.query_shape, key_shape=self.key_shape)
        entropy = attention_entropy(attention_map)
        uniform = math.log(attention_map.shape[-1])
        return np.asarray(distance) * resolution / self.resolution, np.asarray(entropy), uniform

    @property
    def name(self) -> str:
        """Such as `generator_32`."""
        return f"{self.network}_{self.resolution}"


class AttentionRecord(NamedTuple):
    """Images, and where each attention layer of a network looked in them."""

    images: np.ndarray
    """`[B, R, R, C]` uint8"""
    labels: np.ndarray
    """`[B]` int32"""
    layers: tuple[AttentionLayer, ...]
    """from the first that the features meet to the last; none where the network has no attention"""

    def statistics(self) -> dict[str, float]:
        """Returns how far each layer looks on average, in pixels, and how spread out, in nats, as metrics of a run."""
        found = {}
        for layer in self.layers:
            distance, entropy, _ = layer.spread(self.images.shape[1])
            found[f"{layer.network}/attention_distance_{layer.resolution}"] = float(distance.mean())
            found[f"{layer.network}/attention_entropy_{layer.resolution}"] = float(entropy.mean())
        return found


def generator_attention(trained: TrainedGenerator, latents: Array | np.ndarray, labels: np.ndarray) -> AttentionRecord:
    """Returns what a generator makes of latents, and where it looked meanwhile.

    Args:
        trained: with its stored statistics.
        latents: `[B, Z]`, such as of `TrainedGenerator.latents`.
        labels: `[B]` int32.
    """
    images, maps = _apply(trained.generator, trained.variables, jnp.asarray(latents), jnp.asarray(labels))
    layers = _layers("generator", trained.variables, maps)
    return AttentionRecord(to_uint8(np.asarray(images)), np.asarray(labels), layers)


def discriminator_attention(trained: TrainedDiscriminator, images: np.ndarray, labels: np.ndarray) -> AttentionRecord:
    """Returns where a discriminator looked at images.

    Args:
        trained: of the run.
        images: `[B, R, R, C]` uint8, of its resolution.
        labels: `[B]` int32; they do not change where it looks, which happens before the projection.
    """
    _, maps = _apply(trained.discriminator, trained.variables, jnp.asarray(to_float(images)), jnp.asarray(labels))
    return AttentionRecord(images, np.asarray(labels), _layers("discriminator", trained.variables, maps))


def attention_records(
    generator: TrainedGenerator, discriminator: TrainedDiscriminator, source: ImageSource, count: int = 16
) -> list[AttentionRecord]:
    """Returns where a run looks, on the same latents and images each time: G in samples, D in real images.

    Args:
        generator: of the run.
        discriminator: of the run.
        source: the real images.
        count: how many of each.

    Returns:
        One for each network that has attention layers.
    """
    labels = np.resize(generator.classes(), count).astype(np.int32)
    seen = generator_attention(generator, generator.latents(jax.random.key(0), np.arange(count)), labels)
    chosen = np.resize(np.random.default_rng(0).permutation(len(source)), count)
    real = [source[int(index)] for index in chosen]
    images, labels = np.stack([image for image, _ in real]), np.array([label for _, label in real], np.int32)
    return [looks for looks in (seen, discriminator_attention(discriminator, images, labels)) if looks.layers]


@partial(jax.jit, static_argnums=0)
def _apply(module: nn.Module, variables: Any, inputs: Array, labels: Array) -> tuple[Array, dict[str, Any]]:
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
