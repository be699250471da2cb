"""Drawing samples from a trained generator."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, Self, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.embeddings import ImageBatch
from sagan_jax.runtime.devices import replicate_locally, shard_locally

TruncationRule = Literal["resampled", "clipped"]

_DIVERGED = "The generator returns what is no number: it has diverged."


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
        averaged: whether the weights are the moving average.
        batch_statistics: normalise with the moments of each batch rather than with the stored ones.
    """

    generator: nn.Module
    variables: dict[str, Any] = dataclasses.field(repr=False)
    latent_size: int
    num_classes: int
    step: int
    averaged: bool = False
    batch_statistics: bool = False

    def generate(
        self,
        num_images: int = 100,
        *,
        labels: int | Sequence[int] | np.ndarray | None = None,
        seed: int = 0,
        truncation: float | None = None,
        truncation_rule: TruncationRule = "resampled",
        batch_size: int = 100,
    ) -> Samples:
        """Returns samples; image i depends on the seed and i alone, not on the batch or on how many follow.

        Args:
            num_images: N, at least 1.
            labels: the class to ask for, or several, asked for in turn; every class unless given.
            seed: in [0, 2**32).
            truncation: the largest size of a latent's entries, below 1 for typical images; None for the normal
                distribution that G was trained with.
            truncation_rule: what becomes of larger entries: as in `latents`.
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
        classes = np.resize(self.classes(labels), num_images).astype(np.int32)
        batches = self.stream(
            classes, seed=seed, truncation=truncation, truncation_rule=truncation_rule, batch_size=batch_size
        )
        return Samples(np.concatenate([np.asarray(batch.images)[: len(batch.labels)] for batch in batches]), classes)

    def images(self, latents: Array | np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the images of given latents, `[N, H, W, C]` uint8.

        Args:
            latents: `[N, Z]`, such as of `latents`.
            labels: `[N]` int32, or mixtures of classes `[N, num_classes]`, floating.

        Raises:
            NonFiniteError: when the generator returns what is no number.
        """
        drawn, finite = _draw(self.generator, self.batch_statistics, self.variables, jnp.asarray(latents), labels)
        if not finite:
            raise NonFiniteError(_DIVERGED)
        return np.asarray(drawn)

    def stream(
        self,
        labels: np.ndarray,
        *,
        seed: int = 0,
        truncation: float | None = None,
        truncation_rule: TruncationRule = "resampled",
        batch_size: int = 100,
        part: int = 0,
        parts: int = 1,
    ) -> Iterator[ImageBatch]:
        """Yields the images that `generate` would return for these labels, a batch at a time, still on the devices.

        Args:
            labels: `[N]` integers, the class of each image.
            seed: as in `generate`.
            truncation: as in `generate`.
            truncation_rule: as in `latents`.
            batch_size: images a pass, rounded up to a multiple of the devices; the last batch is filled up from the
                first images, so that all have one shape.
            part: with `parts`, every `parts`-th batch from this one on: the share of one of several processes.
            parts: how many share the batches.

        Yields:
            Images and the labels of those before the filling.

        Raises:
            InvalidInputError: for a truncation that is not above 0, or a rule that there is not.
            NonFiniteError: when the generator returns what is no number.
        """
        labels = np.asarray(labels, np.int32)
        devices = jax.local_device_count()
        batch_size = -(-batch_size // devices) * devices
        key = jax.random.key(seed)
        for start in range(part * batch_size, len(labels), parts * batch_size):
            numbers = np.arange(start, start + batch_size) % len(labels)
            latents = shard_locally(self.latents(key, numbers, truncation, truncation_rule))
            classes = shard_locally(labels[numbers])
            images, finite = _draw(self.generator, self.batch_statistics, self._placed, latents, classes)
            if not finite:
                raise NonFiniteError(_DIVERGED)
            yield ImageBatch(images, labels[start : start + batch_size], start)

    def classes(self, labels: int | Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Returns the classes to go through, in turn: those that are given, else all; a 0 where there are none.

        Raises:
            InvalidInputError: for a class that the generator does not have.
        """
        wanted = np.ravel([] if labels is None else labels)
        if not wanted.size:
            return np.arange(max(1, self.num_classes))
        if wanted.dtype.kind not in "iu":
            raise InvalidInputError(f"generate needs labels that are integers; got {wanted.tolist()}.")
        if not self.num_classes or wanted.min() < 0 or wanted.max() >= self.num_classes:
            has = f"the {self.num_classes} classes 0 to {self.num_classes - 1}" if self.num_classes else "no classes"
            raise InvalidInputError(f"The generator has {has}; got the classes {wanted.tolist()}.")
        return wanted

    def with_batch_statistics(self) -> Self:
        """Returns the generator that normalises with the moments of each batch that it makes."""
        return dataclasses.replace(self, batch_statistics=True)

    def with_standing_statistics(self, *, batches: int = 100, batch_size: int = 100, seed: int = 0) -> Self:
        """Returns the generator with stored statistics that are the mean of the moments of fresh batches.

        Every layer normalises with its own batch meanwhile. Published scores of SAGAN and BigGAN used such statistics,
        each tool with other numbers of batches and sizes.

        Args:
            batches: over how many the moments are averaged.
            batch_size: images in each, their classes drawn uniformly.
            seed: of latents and classes.

        Source: ajbrock/BigGAN-PyTorch:utils.py, `accumulate_standing_stats`; compare_gan's accumulators.
        """
        decays = [name for name in ("norm_decay", "final_norm_decay") if hasattr(self.generator, name)]
        zeros: dict[str, Any] = dict.fromkeys(decays, 0.0)  # what is stored is then the batch's own
        whole = self.generator.clone(**zeros)

        @jax.jit
        def moments(variables: Any, latents: Array, labels: Array) -> Any:
            _, moved = whole.apply(variables, latents, labels, train=True, mutable=["batch_stats"])
            return moved["batch_stats"]

        labels = draw_labels(self.num_classes, batches * batch_size, seed)
        key = jax.random.fold_in(jax.random.key(seed), 2**31)  # other latents than those of the images
        total = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), np.float64), self.variables["batch_stats"])
        for start in range(0, batches * batch_size, batch_size):
            numbers = np.arange(start, start + batch_size)
            drawn = moments(self._placed, self.latents(key, numbers, None), labels[numbers])
            total = jax.tree.map(lambda old, new: old + np.asarray(new, np.float64), total, drawn)
        mean = jax.tree.map(lambda leaf: (leaf / batches).astype(np.float32), total)
        return dataclasses.replace(self, variables={**self.variables, "batch_stats": mean})

    def latents(
        self,
        key: Array,
        numbers: np.ndarray,
        truncation: float | None = None,
        truncation_rule: TruncationRule = "resampled",
    ) -> Array:
        """Returns latents `[N, Z]`, each drawn from a key of its own number.

        Args:
            key: `jax.random.key(seed)` for those that `generate` draws with that seed.
            numbers: `[N]` integers.
            truncation: as in `generate`.
            truncation_rule: `"resampled"`, the truncated normal distribution: as if each entry were redrawn until its
                size is below the truncation (Brock et al. 2019, arXiv:1809.11096, section 3.1); or `"clipped"`: the
                entries drawn without truncation, those of a larger size set to the truncation, of either sign. Clipped
                entries spread wider. The modules that Brock et al. released follow a third rule, not offered here: a
                normal distribution truncated at 2, times the truncation (tensorflow/hub#214).

        Raises:
            InvalidInputError: for a truncation that is not above 0, or a rule that there is not.
        """
        if truncation is not None and not truncation > 0:
            raise InvalidInputError(f"Latents need a truncation above 0; got {truncation}.")
        if truncation_rule not in get_args(TruncationRule):
            rules = " or ".join(map(repr, get_args(TruncationRule)))
            raise InvalidInputError(f"Latents need the truncation_rule {rules}; got {truncation_rule!r}.")

        def draw(number: Array) -> Array:
            own = jax.random.fold_in(key, number)
            if truncation is not None and truncation_rule == "resampled":
                return jax.random.truncated_normal(own, -truncation, truncation, (self.latent_size,))
            drawn = jax.random.normal(own, (self.latent_size,))
            return drawn if truncation is None else drawn.clip(-truncation, truncation)

        return jax.vmap(draw)(jnp.asarray(numbers))

    @cached_property
    def _placed(self) -> Any:
        return replicate_locally(self.variables)


# Compiled once for all states of a run.
@partial(jax.jit, static_argnums=(0, 1))
def _draw(
    generator: nn.Module, batch_statistics: bool, variables: Any, latents: Array, labels: Array
) -> tuple[Array, Array]:
    """Returns uint8 images, and whether all of them are numbers."""
    drawn: Any = generator.apply(variables, latents, labels, train=batch_statistics)
    levels = jnp.rint((drawn.astype(jnp.float32) + 1) * 127.5)  # `sagan_jax.data.to_uint8`, on the devices
    return levels.clip(0, 255).astype(jnp.uint8), ~jnp.isnan(levels).any()


def draw_labels(num_classes: int, count: int, seed: int) -> np.ndarray:
    """Returns `count` classes drawn uniformly, int32; zeros where there are no classes."""
    return np.random.default_rng([seed, 1]).integers(0, max(1, num_classes), count, dtype=np.int32)
