"""Sampling from a trained generator."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from numbers import Real
from typing import Any, Literal, NamedTuple, Self, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.embeddings import ImageBatch, Variables
from sagan_jax.models.fields import has_field, with_fields
from sagan_jax.models.programs import bind_static
from sagan_jax.runtime.devices import replicate_locally, shard_locally
from sagan_jax.runtime.full_precision import in_float32
from sagan_jax.runtime.progress import NullProgress, ProgressCallback

TruncationRule = Literal["resampled", "clipped"]

_DIVERGED = "The generator returned images that are not finite: it has diverged."


class Samples(NamedTuple):
    """Generated images and the classes that they were generated for."""

    images: np.ndarray
    """`[N, H, W, C]` uint8"""
    labels: np.ndarray
    """`[N]` int32; zeros from an unconditional generator"""


@dataclasses.dataclass(frozen=True)
class TrainedGenerator:
    """A trained generator, ready to sample from; spectral normalisation is folded into its weights.

    Attributes:
        generator: the flax module.
        variables: the normalised `params`, and `batch_stats`, the stored statistics of its batch norms.
        latent_size: Z, the size of a latent.
        num_classes: 0 when it is unconditional.
        step: the number of generator updates that it was trained for.
        averaged: whether the weights are the moving average.
        batch_statistics: whether batch norm uses the moments of each batch instead of the stored ones.
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
        progress: ProgressCallback | None = None,
    ) -> Samples:
        """Returns samples. Image i depends only on the seed and i, not on the batch size or the number of images.

        Args:
            num_images: N, at least 1.
            labels: one class, or several classes to cycle through. Defaults to all classes.
            seed: in [0, 2**32).
            truncation: the truncation threshold: the largest magnitude of a latent's entries. Smaller values give more
                typical images. None keeps the normal distribution that G was trained with.
            truncation_rule: how entries above the threshold are treated; see `latents`.
            batch_size: the number of images per forward pass. It affects only memory and rounding.
            progress: receives the progress.

        Returns:
            The images and their labels.

        Raises:
            InvalidInputError: a number is out of range or not an integer, or the generator does not have a class.
            NonFiniteError: an image is not finite.
        """
        _check_integers("generate", num_images=num_images, batch_size=batch_size, seed=seed)
        classes = np.resize(self.classes(labels), num_images).astype(np.int32)
        batches = self.stream(
            classes, seed=seed, truncation=truncation, truncation_rule=truncation_rule, batch_size=batch_size
        )
        progress = progress or NullProgress()
        progress.begin("images", num_images)
        images = []
        for batch in batches:
            images.append(np.asarray(batch.images)[: len(batch.labels)])
            progress.tick(len(batch.labels))
        return Samples(np.concatenate(images), classes)

    def images(self, latents: Array | np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the images for given latents.

        Args:
            latents: `[N, Z]`, for example from `latents`.
            labels: `[N]` int32, or mixtures of classes `[N, num_classes]`, floating.

        Returns:
            `[N, H, W, C]` uint8.

        Raises:
            NonFiniteError: an image is not finite.
        """
        draw = bind_static(_draw, self.generator, self.batch_statistics)
        drawn, finite = draw(self.variables, jnp.asarray(latents), labels)
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
        shard_index: int = 0,
        shard_count: int = 1,
    ) -> Iterator[ImageBatch]:
        """Yields the images that `generate` would return for these labels, in batches that stay on the devices.

        Args:
            labels: `[N]` integers, the class of each image.
            seed: as in `generate`.
            truncation: as in `generate`.
            truncation_rule: as in `latents`.
            batch_size: the number of images per forward pass, rounded up to a multiple of the number of devices. The
                last batch is padded with the first images, so that all batches have the same shape.
            shard_index: the index of this process. It generates every `shard_count`-th batch, starting with this index.
            shard_count: the number of processes that share the batches.

        Yields:
            The padded images, and the labels without padding.

        Raises:
            InvalidInputError: a number or a label is out of range or not an integer, or the truncation rule is unknown.
            NonFiniteError: an image is not finite.
        """
        _check_integers("stream", batch_size=batch_size, seed=seed)
        labels = _checked_labels(labels, self.num_classes)
        devices = jax.local_device_count()
        batch_size = -(-batch_size // devices) * devices
        key, draw = jax.random.key(seed), bind_static(_draw, self.generator, self.batch_statistics)
        for start in range(shard_index * batch_size, len(labels), shard_count * batch_size):
            numbers = np.arange(start, start + batch_size) % len(labels)
            latents = shard_locally(self.latents(key, numbers, truncation, truncation_rule))
            classes = shard_locally(labels[numbers])
            images, finite = draw(self._device_variables, latents, classes)
            if not finite:
                raise NonFiniteError(_DIVERGED)
            yield ImageBatch(images, labels[start : start + batch_size], start)

    def classes(self, labels: int | Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Returns the classes to cycle through: the given ones, else all; `[0]` for an unconditional generator.

        Raises:
            InvalidInputError: the generator does not have a class.
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
        """Returns a generator whose batch norms use the moments of each batch."""
        return dataclasses.replace(self, batch_statistics=True)

    def with_standing_statistics(self, *, batches: int = 100, batch_size: int = 100, seed: int = 0) -> Self:
        """Returns a generator with standing statistics: its stored statistics are the mean moments of new batches.

        While the moments are measured, every layer normalises with the moments of its current batch. Published scores
        of SAGAN and BigGAN used such statistics. The number and size of the batches vary between implementations.

        Args:
            batches: the number of batches to average over.
            batch_size: the number of images per batch. Their classes are drawn uniformly.
            seed: the seed for latents and classes.

        Raises:
            InvalidInputError: a number is out of range or not an integer, or the generator has no field `norm_decay`.

        Source: ajbrock/BigGAN-PyTorch:utils.py, `accumulate_standing_stats`; compare_gan's accumulators.
        """
        _check_integers("with_standing_statistics", batches=batches, batch_size=batch_size, seed=seed)
        if self.variables["batch_stats"] and not has_field(self.generator, "norm_decay"):
            raise InvalidInputError(
                f"Standing statistics need a generator with a field norm_decay, the decay of its running moments; "
                f"{type(self.generator).__name__} has none."
            )
        decays = [name for name in ("norm_decay", "final_norm_decay") if has_field(self.generator, name)]
        zeros: dict[str, Any] = dict.fromkeys(decays, 0.0)  # each pass then stores the moments of its own batch
        undecayed = with_fields(self.generator, **zeros)

        @jax.jit
        @in_float32
        def moments(variables: Variables, latents: Array, labels: Array) -> Variables:
            _, updated = undecayed.apply(variables, latents, labels, train=True, mutable=["batch_stats"])
            return updated["batch_stats"]

        labels = draw_labels(self.num_classes, batches * batch_size, seed)
        key = jax.random.fold_in(jax.random.key(seed), 2**31)  # not the latents of the images
        total = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), np.float64), self.variables["batch_stats"])
        for start in range(0, batches * batch_size, batch_size):
            numbers = np.arange(start, start + batch_size)
            drawn = moments(self._device_variables, self.latents(key, numbers, None), labels[numbers])
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
        """Returns latents `[N, Z]`. Each is drawn from `key` folded with its number.

        Args:
            key: `jax.random.key(seed)` gives the latents that `generate` draws with that seed.
            numbers: `[N]` integers.
            truncation: as in `generate`.
            truncation_rule: `"resampled"` or `"clipped"`. Resampled entries have a truncated normal distribution, as if
                each were redrawn until its magnitude is below the threshold (Brock et al. 2019, arXiv:1809.11096,
                section 3.1). Clipped entries are drawn from the normal distribution and clipped to the threshold; they
                have a larger variance. The modules that Brock et al. released use a third rule, which is not
                implemented here: a normal distribution truncated at 2, times the threshold (tensorflow/hub#214).

        Raises:
            InvalidInputError: the truncation is not above 0, or the truncation rule is unknown.
        """
        if truncation is not None and not (isinstance(truncation, Real) and truncation > 0):
            raise InvalidInputError(f"Latents need a truncation above 0; got {truncation!r}.")
        if truncation_rule not in get_args(TruncationRule):
            rules = " or ".join(map(repr, get_args(TruncationRule)))
            raise InvalidInputError(f"Latents need the truncation_rule {rules}; got {truncation_rule!r}.")

        return _draw_latents(self.latent_size, truncation_rule, key, np.asarray(numbers), truncation)

    @cached_property
    def _device_variables(self) -> Variables:
        return replicate_locally(self.variables)


@partial(jax.jit, static_argnums=(0, 1))
def _draw_latents(size: int, rule: TruncationRule, key: Array, numbers: Array, truncation: float | None) -> Array:
    def draw(number: Array) -> Array:
        own = jax.random.fold_in(key, number)
        if truncation is not None and rule == "resampled":
            return jax.random.truncated_normal(own, -truncation, truncation, (size,))
        drawn = jax.random.normal(own, (size,))
        return drawn if truncation is None else drawn.clip(-truncation, truncation)

    return jax.vmap(draw)(numbers)


# The variables are arguments, so that all checkpoints of a run share one compiled program.
@partial(jax.jit, static_argnums=(0, 1))
@in_float32
def _draw(
    generator: nn.Module, batch_statistics: bool, variables: Variables, latents: Array, labels: Array
) -> tuple[Array, Array]:
    """Returns uint8 images, and whether all values were finite before they were rounded."""
    # Norms may write new moments, which are discarded.
    drawn: Any = generator.apply(variables, latents, labels, train=batch_statistics, mutable=["batch_stats"])[0]
    levels = jnp.rint((drawn.astype(jnp.float32) + 1) * 127.5)  # `sagan_jax.data.to_uint8`, on the devices
    return levels.clip(0, 255).astype(jnp.uint8), jnp.isfinite(levels).all()


def _check_integers(function: str, *, seed: int, **counts: int) -> None:
    """Raises for a seed outside [0, 2**32), counts below 1, and values that are not integers: 2.0, True or an array."""
    for name, number in {**counts, "seed": seed}.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise InvalidInputError(f"{function} needs {name} to be an integer; got {number!r}.")
        if name != "seed" and number < 1:
            raise InvalidInputError(f"{function} needs {name} of at least 1; got {number}.")
    if not 0 <= seed < 2**32:
        raise InvalidInputError(f"{function} needs a seed in [0, 2**32); got {seed}.")


def _checked_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the labels of `stream` as int32. Raises for floats, which would be truncated, and unknown classes."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise InvalidInputError(f"stream needs integer labels [N]; got {labels.dtype} {list(labels.shape)}.")
    if num_classes and labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise InvalidInputError(
            f"stream needs labels from 0 to {num_classes - 1}; got some from {labels.min()} to {labels.max()}."
        )
    return labels.astype(np.int32)


def draw_labels(num_classes: int, count: int, seed: int) -> np.ndarray:
    """Returns classes drawn uniformly, `[count]` int32; zeros if there are no classes."""
    return np.random.default_rng([seed, 1]).integers(0, max(1, num_classes), count, dtype=np.int32)
