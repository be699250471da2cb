"""Sets of images to score: generated, real or completed. They yield batches, split over processes."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sagan_jax.data import ImageSource, draw_mask
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.embeddings import ImageBatch
from sagan_jax.evaluation.generator import TrainedGenerator, draw_labels


class ImageSet(Protocol):
    """A set of images to draw from. Every process yields its share of the batches."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 means unlabelled."""
        ...

    @property
    def classes(self) -> list[int]:
        """The classes that have images, ascending."""
        ...

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images. Generated ones have uniformly drawn classes.

        The call itself, before iteration, raises InvalidInputError if there are too few images.
        """
        ...

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images of a class. The call itself raises InvalidInputError if there are too few."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns a description of the images for a result file."""
        ...


class GeneratedImages(NamedTuple):
    """Images drawn from a generator."""

    generator: TrainedGenerator
    batch_size: int = 100

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 means unlabelled."""
        return self.generator.num_classes

    @property
    def classes(self) -> list[int]:
        """All classes."""
        return list(range(self.num_classes))

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images whose classes are drawn uniformly."""
        return self._stream(draw_labels(self.num_classes, count, seed), seed)

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images of a class. Each class has its own latents."""
        return self._stream(np.full(count, label, np.int32), (seed + 1 + label) % 2**32)

    def describe(self) -> dict[str, Any]:
        """Returns the training step, the kind of weights and the truncation of the images."""
        return {
            "generated_by_step": self.generator.step,
            "weights": "moving average" if self.generator.averaged else "as trained",
            "truncation": None,
        }

    def _stream(self, labels: np.ndarray, seed: int) -> Iterator[ImageBatch]:
        shard = {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
        return self.generator.stream(labels, seed=seed, batch_size=self.batch_size, **shard)


class RealImages(NamedTuple):
    """The images of a source."""

    source: ImageSource
    batch_size: int = 100

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 means unlabelled."""
        return self.source.num_classes

    @property
    def classes(self) -> list[int]:
        """The classes that have images: all classes, except for an `.npz` file with samples of only some classes."""
        return np.unique(self.source.labels).tolist() if self.num_classes else []

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` distinct images, in random order by the seed.

        Raises:
            InvalidInputError: the source has fewer images.
        """
        return self.read(self.drawn(count, seed))

    def drawn(self, count: int, seed: int) -> np.ndarray:
        """Returns the indices of the images that `draw` yields. A smaller `count` gives the first of the same indices.

        Raises:
            InvalidInputError: the source has fewer images.
        """
        return self._choose(np.arange(len(self.source)), count, seed, self.source.description)

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` distinct images of a class.

        Raises:
            InvalidInputError: the class has fewer images.
        """
        where = f"class {self.source.class_names[label]!r} of {self.source.description}"
        return self.read(self._choose(self.class_indices(label), count, seed, where))

    def class_indices(self, label: int) -> np.ndarray:
        """Returns the indices of the images of a class."""
        return np.flatnonzero(self.source.labels == label)

    def describe(self) -> dict[str, Any]:
        """Returns a description of the images and their digest."""
        return {"images": self.source.description, "fingerprint": self.source.fingerprint}

    def read(self, indices: np.ndarray) -> Iterator[ImageBatch]:
        """Yields the images at these indices. Threads read the images of a batch in parallel."""
        devices = jax.local_device_count()
        size = -(-self.batch_size // devices) * devices
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            for start in range(jax.process_index() * size, len(indices), jax.process_count() * size):
                padded = indices[np.arange(start, start + size) % len(indices)]
                unpadded = len(indices[start : start + size])
                items = list(pool.map(self.source.__getitem__, map(int, padded)))
                images = np.stack([image for image, _ in items])
                yield ImageBatch(images, np.array([label for _, label in items[:unpadded]], np.int32), start)

    @staticmethod
    def _choose(indices: np.ndarray, count: int, seed: int, where: str) -> np.ndarray:
        if len(indices) < count:
            raise InvalidInputError(
                f"The protocol needs {count:,} images; {where} has {len(indices):,}: give more images, or name a "
                f"protocol of fewer. Scores of different numbers of images do not compare."
            )
        return np.random.default_rng([seed, 2]).permutation(indices)[:count]


class CompletedImages(NamedTuple):
    """Photographs whose holes are filled by sampled completions."""

    completer: TrainedCompleter
    source: ImageSource
    holes: Sequence[str]
    """kinds of `sagan_jax.data.masks`, used in turn"""
    batch_size: int = 50

    @property
    def num_classes(self) -> int:
        """0: a completion has no class."""
        return 0

    @property
    def classes(self) -> list[int]:
        """Empty: a completion has no class."""
        return []

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` completions. If there are fewer photographs, they are reused with new holes."""
        size = self.completer.network.resolution
        order = np.random.default_rng([seed, 2]).permutation(len(self.source))
        step = self.batch_size * jax.process_count()
        for start in range(jax.process_index() * self.batch_size, count, step):
            numbers = range(start, start + self.batch_size)  # padded, so that all batches have the same shape
            images = np.stack([self.source[int(order[number % len(order)])][0] for number in numbers])
            kinds = [self.holes[number % len(self.holes)] for number in numbers]
            masks = np.stack(
                [draw_mask(kind, size, size, seed=seed, index=n) for kind, n in zip(kinds, numbers, strict=True)]
            )
            completed = self.completer.sample(images, masks, 1, seed=seed, first=start, batch_size=self.batch_size)[0]
            yield ImageBatch(completed, np.zeros(min(self.batch_size, count - start), np.int32), start)

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Raises InvalidInputError: completions have no classes."""
        raise InvalidInputError("Completions have no classes.")

    def describe(self) -> dict[str, Any]:
        """Returns the step, the weights, the kinds of holes, and the photographs with their digest."""
        return {
            "completed_by_step": self.completer.step,
            "weights": "moving average" if self.completer.averaged else "as trained",
            "holes": list(self.holes),
            "photographs": self.source.description,
            "fingerprint": self.source.fingerprint,
        }
