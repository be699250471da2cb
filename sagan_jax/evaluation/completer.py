"""Completion of images with holes by a trained network."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data import to_float, to_uint8
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.attention import mean_over_heads, sown_maps
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.runtime.full_precision import in_float32


@dataclasses.dataclass(frozen=True)
class TrainedCompleter:
    """A trained completion network, ready to use.

    Attributes:
        network: the flax module.
        params: its parameters.
        step: the number of updates that it was trained for.
        averaged: whether the parameters are the moving average.
    """

    network: CompletionNetwork
    params: Any = dataclasses.field(repr=False)
    step: int
    averaged: bool = False

    def complete(self, images: np.ndarray, masks: np.ndarray, *, batch_size: int = 50) -> np.ndarray:
        """Returns the images with their holes filled, with each latent at the mean of its distribution.

        Args:
            images: `[N, R, R, C]` uint8; pixels in the hole are not read.
            masks: `[N, R, R]` bool, True in the hole.
            batch_size: the number of images per forward pass. It affects memory. By rounding, it may also change a few
                pixels by one gray level.

        Returns:
            `[N, R, R, C]` uint8; pixels outside the hole are unchanged.

        Raises:
            InvalidInputError: images and masks do not fit the network or each other.
            NonFiniteError: a completion is not finite.
        """
        keys = jax.random.split(jax.random.key(0), len(images))  # unused: latents are at their means
        return self._complete(images, masks, keys, False, batch_size)

    def sample(
        self, images: np.ndarray, masks: np.ndarray, count: int, *, seed: int = 0, first: int = 0, batch_size: int = 50
    ) -> np.ndarray:
        """Returns several completions of each image. Latents depend on the seed, the image number and the sample.

        Args:
            images: as for `complete`.
            masks: as for `complete`.
            count: the number of completions per image, at least 1.
            seed: in [0, 2**32).
            first: the number of the first image.
            batch_size: as for `complete`.

        Returns:
            `[count, N, R, R, C]` uint8.

        Raises:
            InvalidInputError: as for `complete`, or a number is out of range.
            NonFiniteError: as for `complete`.
        """
        if count < 1 or not 0 <= seed < 2**32:
            raise InvalidInputError(
                f"sample needs a count of at least 1 and a seed in [0, 2**32); got {count} and {seed}."
            )
        keys = jax.random.split(jax.random.key(seed), count)
        numbers = first + jnp.arange(len(images))
        samples = []
        for key in keys:
            image_keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
            samples.append(self._complete(images, masks, image_keys, True, batch_size))
        return np.stack(samples)

    def attention(self, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the attention maps for images with holes, with each latent at the mean of its distribution.

        Args:
            images: as for `complete`.
            masks: as for `complete`.

        Returns:
            The map `[N, Q, K]` float32 of each layer by name, such as `encoder_16`. Queries and keys are in row-major
            order; rows sum to 1. Multi-head maps are averaged over heads.
        """
        maps = _attention(self.network, self.params, to_float(images), masks)
        return {name: np.asarray(attention_map, np.float32) for name, attention_map in maps.items()}

    def _complete(
        self, images: np.ndarray, masks: np.ndarray, keys: Array, sampled: bool, batch_size: int
    ) -> np.ndarray:
        size, channels = self.network.resolution, self.network.image_channels
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, channels) or not len(images):
            raise InvalidInputError(
                f"The network completes images [N, {size}, {size}, {channels}] of uint8; got {list(images.shape)} of "
                f"{images.dtype}."
            )
        if masks.dtype != bool or masks.shape != images.shape[:3]:
            raise InvalidInputError(
                f"Masks need to be bool {list(images.shape[:3])}, one per image; got {masks.dtype} {list(masks.shape)}."
            )
        parts = []
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            found = _forward(self.network, sampled, self.params, to_float(images[rows]), masks[rows], keys[rows])
            if not np.isfinite(found).all():
                raise NonFiniteError("The network returned images that are not finite: it has diverged.")
            parts.append(to_uint8(np.asarray(found)))
        return np.where(masks[..., None], np.concatenate(parts), images)


@partial(jax.jit, static_argnums=(0, 1))
@in_float32
def _forward(network: CompletionNetwork, sampled: bool, params: Any, images: Array, masks: Array, keys: Array) -> Array:
    """Returns the decoder's images, for latents sampled with `keys` or at their means."""
    apply = partial(network.apply, {"params": params})
    encoded: Any = apply(images, masks, method="encode")
    latents = encoded.mean
    if sampled:
        noise = jax.vmap(lambda key: jax.random.normal(key, latents.shape[1:]))(keys)
        latents = latents + jnp.exp(0.5 * encoded.log_variance) * noise
    completed: Any = apply(latents, encoded.features, method="decode")
    return completed


@partial(jax.jit, static_argnums=0)
@in_float32
def _attention(network: CompletionNetwork, params: Any, images: Array, masks: Array) -> dict[str, Array]:
    applied: Any = network.apply({"params": params}, images, masks, mutable=["intermediates"])
    found = {}
    for (part, layer, *inner), sown in sown_maps(applied[1].get("intermediates", {})):
        name = "_".join([layer.replace("attention", part), *inner])
        found[name] = mean_over_heads(sown["attention_map"])
    return found
