"""Drawing samples from a trained generator."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data.pipeline import to_uint8
from sagan_jax.errors import InvalidInputError


class Samples(NamedTuple):
    """Generated images and the classes that were asked for."""

    images: np.ndarray
    """`[N, H, W, C]` uint8"""
    labels: np.ndarray
    """`[N]` int32; zeros from an unconditional generator"""


@dataclasses.dataclass(frozen=True)
class TrainedGenerator:
    """A generator with its spectral normalisation folded in, ready to draw from.

    Attributes:
        generator: the flax module.
        variables: `params`, normalised, and `batch_stats`, the stored statistics that it normalises with.
        latent_size: Z.
        num_classes: 0 when it is unconditional.
        step: generator updates that it was trained for.
    """

    generator: nn.Module
    variables: dict[str, Any] = dataclasses.field(repr=False)
    latent_size: int
    num_classes: int
    step: int

    def generate(
        self,
        num_images: int = 100,
        *,
        labels: int | Sequence[int] | np.ndarray | None = None,
        seed: int = 0,
        truncation: float | None = None,
        batch_size: int = 100,
    ) -> Samples:
        """Returns samples; image i depends on the seed and i alone, not on the batch or on how many follow.

        Args:
            num_images: N, at least 1.
            labels: the class to ask for, or several, asked for in turn; every class unless given.
            seed: in [0, 2**32).
            truncation: the largest size of a latent's entries, each redrawn until it is below: below 1 for typical
                images; None for the normal distribution that G was trained with.
            batch_size: images a pass; changes the memory used and the last bits, nothing else.

        Returns:
            The images and their labels.

        Raises:
            InvalidInputError: for a number out of its range, or a class that the generator does not have.
        """
        for name, number in (("num_images", num_images), ("batch_size", batch_size)):
            if number < 1:
                raise InvalidInputError(f"generate needs {name} of at least 1; got {number}.")
        if not 0 <= seed < 2**32:
            raise InvalidInputError(f"generate needs a seed in [0, 2**32); got {seed}.")
        if truncation is not None and not truncation > 0:
            raise InvalidInputError(f"generate needs a truncation above 0; got {truncation}.")
        classes = np.resize(self._classes(labels), num_images).astype(np.int32)
        latents = self._latents(jax.random.key(seed), np.arange(num_images), truncation)
        images = []
        for start in range(0, num_images, batch_size):
            part = np.arange(start, start + batch_size) % num_images  # the last batch is filled up: one compilation
            kept = min(batch_size, num_images - start)
            images.append(to_uint8(np.asarray(self._apply(self.variables, latents[part], classes[part])))[:kept])
        return Samples(np.concatenate(images), classes)

    def _classes(self, labels: int | Sequence[int] | np.ndarray | None) -> np.ndarray:
        """Returns the classes to go through, in turn."""
        wanted = np.ravel([] if labels is None else labels)
        if not wanted.size:
            return np.arange(max(1, self.num_classes))
        if wanted.dtype.kind not in "iu":
            raise InvalidInputError(f"generate needs labels that are integers; got {wanted.tolist()}.")
        if not self.num_classes or wanted.min() < 0 or wanted.max() >= self.num_classes:
            has = f"the {self.num_classes} classes 0 to {self.num_classes - 1}" if self.num_classes else "no classes"
            raise InvalidInputError(f"The generator has {has}; got the classes {wanted.tolist()}.")
        return wanted

    def _latents(self, key: Array, numbers: np.ndarray, truncation: float | None) -> Array:
        """Returns latents `[N, Z]`, each drawn from a key of its own number."""

        def draw(number: Array) -> Array:
            own = jax.random.fold_in(key, number)
            if truncation is None:
                return jax.random.normal(own, (self.latent_size,))
            return jax.random.truncated_normal(own, -truncation, truncation, (self.latent_size,))

        return jax.vmap(draw)(jnp.asarray(numbers))

    @cached_property
    def _apply(self) -> Any:
        return jax.jit(lambda variables, latents, labels: self.generator.apply(variables, latents, labels, train=False))
