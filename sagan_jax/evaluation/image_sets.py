"""What is scored, real or generated, as streams of batches: drawn by a seed, split over processes."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import ImageBatch
from sagan_jax.evaluation.generator import TrainedGenerator, draw_labels


class ImageSet(Protocol):
    """Something that images can be drawn from."""

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 means unlabelled."""
        ...

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images, their classes drawn uniformly, or as they come; this process's share of them."""
        ...

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images of a class; this process's share of them."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns what a result file says of them."""
        ...


class GeneratedImages(NamedTuple):
    """Images out of a generator."""

    generator: TrainedGenerator
    batch_size: int = 100

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 means unlabelled."""
        return self.generator.num_classes

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images, their classes drawn uniformly."""
        return self._stream(draw_labels(self.num_classes, count, seed), seed)

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images of a class, from latents of their own."""
        return self._stream(np.full(count, label, np.int32), (seed + 1 + label) % 2**32)

    def describe(self) -> dict[str, Any]:
        """Returns the step, and which weights and statistics the images come from."""
        return {
            "generated_by_step": self.generator.step,
            "weights": "moving average" if self.generator.averaged else "as trained",
            "truncation": None,
        }

    def _stream(self, labels: np.ndarray, seed: int) -> Iterator[ImageBatch]:
        share = {"part": jax.process_index(), "parts": jax.process_count()}
        return self.generator.stream(labels, seed=seed, batch_size=self.batch_size, **share)


class RealImages(NamedTuple):
    """Images out of a source."""

    source: ImageSource
    batch_size: int = 100

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 means unlabelled."""
        return self.source.num_classes

    def of(self, indices: np.ndarray) -> Iterator[ImageBatch]:
        """Yields the images at these indices; this process's share of them."""
        return self._read(indices)

    def draw(self, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images, none twice, in an order drawn with the seed.

        Raises:
            InvalidInputError: there are fewer.
        """
        return self._read(self._some(np.arange(len(self.source)), count, seed, self.source.description))

    def draw_class(self, label: int, count: int, seed: int) -> Iterator[ImageBatch]:
        """Yields `count` images of a class, none twice.

        Raises:
            InvalidInputError: there are fewer.
        """
        where = f"class {self.source.class_names[label]!r} of {self.source.description}"
        return self._read(self._some(self.of_class(label), count, seed, where))

    def of_class(self, label: int) -> np.ndarray:
        """Returns the indices of the images of a class."""
        return np.flatnonzero(self.source.labels == label)

    def describe(self) -> dict[str, Any]:
        """Returns what the images are, and a digest of them."""
        return {"images": self.source.description, "fingerprint": self.source.fingerprint}

    @staticmethod
    def _some(indices: np.ndarray, count: int, seed: int, where: str) -> np.ndarray:
        if len(indices) < count:
            raise InvalidInputError(
                f"The protocol needs {count:,} images; {where} has {len(indices):,}: give more, or name a protocol of "
                f"fewer, which compares with scores of as many only."
            )
        return np.random.default_rng([seed, 2]).permutation(indices)[:count]

    def _read(self, indices: np.ndarray) -> Iterator[ImageBatch]:
        """Yields the images at these indices; each batch is read by threads while the one before it is used."""
        devices = jax.local_device_count()
        size = -(-self.batch_size // devices) * devices
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            for start in range(jax.process_index() * size, len(indices), jax.process_count() * size):
                wanted = indices[np.arange(start, start + size) % len(indices)]
                kept = len(indices[start : start + size])
                read = list(pool.map(self.source.__getitem__, map(int, wanted)))
                images = np.stack([image for image, _ in read])
                yield ImageBatch(images, np.array([label for _, label in read[:kept]], np.int32), start)
