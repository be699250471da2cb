"""The variety of generated images, relative to that of the training images."""

from functools import cached_property

import numpy as np

from sagan_jax.data import ImageSource
from sagan_jax.evaluation.generator import TrainedGenerator

_PAIRS = 100


class Diversity:
    """Compares the differences between generated images of a class with those between real images of a class.

    Args:
        source: the training images.
    """

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    @cached_property
    def of_real_images(self) -> float:
        """The mean distance of two training images of a class; 0 if all images of each class are equal."""
        return _mean_distance(*_real_pairs(self._source))

    def of(self, generator: TrainedGenerator) -> float:
        """Returns the mean distance of two generated images of a class, divided by that of two real images."""
        return _mean_distance(*_generated_pairs(generator)) / self.of_real_images


def _real_pairs(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of different real images of one class. The only image of a class is paired with itself."""
    rng = np.random.default_rng(0)
    first = rng.permutation(len(source))[:_PAIRS]
    labels = source.labels
    second = [_another_of_class(labels, index, rng) for index in first]
    return _stacked(source, first), _stacked(source, second)


def _another_of_class(labels: np.ndarray, index: int, rng: np.random.Generator) -> int:
    """Returns the index of another image of the class of image `index`, or `index` if there is no other."""
    members = np.flatnonzero(labels == labels[index])
    others = members[members != index]
    return int(rng.choice(others)) if len(others) else int(index)


def _stacked(source: ImageSource, indices: np.ndarray | list[int]) -> np.ndarray:
    return np.stack([source[int(index)][0] for index in indices])


def _generated_pairs(generator: TrainedGenerator) -> tuple[np.ndarray, np.ndarray]:
    labels = np.resize(np.arange(max(1, generator.num_classes)), _PAIRS)
    images = generator.generate(2 * _PAIRS, labels=np.concatenate([labels, labels]) if generator.num_classes else None)
    return images.images[:_PAIRS], images.images[_PAIRS:]


def _mean_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean L2 distance between the pixels of each pair."""
    differences = first.astype(np.float64) - second
    return float(np.sqrt((differences**2).sum(axis=(1, 2, 3))).mean())
