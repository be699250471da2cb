"""The nearest training images of given images, which show whether a generator has memorised its training set."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.runtime.progress import ProgressCallback

_PROBES = 100
"""The number of real images for which the nearest other real image is found. These distances serve as a scale."""


class Nearest(NamedTuple):
    """The nearest images of a set for each query, nearest first."""

    indices: np.ndarray
    """`[Q, K]` integers: indices into the set"""
    distances: np.ndarray
    """`[Q, K]` float64"""


class NeighbourReport(NamedTuple):
    """The nearest training images for one kind of distance."""

    name: str
    """what is compared: `pixels`, or the features of a network"""
    nearest: Nearest
    between_real: np.ndarray
    """`[P]`: distances of real images to the nearest other real image"""


def nearest_training_images(
    images: np.ndarray, source: ImageSource, embedding: Embedding, *, count: int, progress: ProgressCallback
) -> tuple[NeighbourReport, NeighbourReport]:
    """Returns the nearest training images of each image, in pixels and in the features of a network.

    Args:
        images: `[N, R, R, C]` uint8.
        source: the training images, of the same size.
        embedding: the network that computes the features.
        count: the number of neighbours to return.
        progress: receives the progress of both passes over the training images.

    Raises:
        InvalidInputError: the source has too few images.
    """
    check_training_images(source, count)
    probes = np.random.default_rng(0).permutation(len(source))[:_PROBES]
    queries = np.concatenate([images, np.stack([source[int(index)][0] for index in probes])])
    query_batch = ImageBatch(queries, np.zeros(len(queries), np.int32))
    real, everything = RealImages(source), np.arange(len(source))

    progress.begin("training images, in pixels", len(source))
    batches = ((pixels(batch), batch) for batch in real.read(everything))
    in_pixels = _search(pixels(query_batch), batches, max(2, count), progress)

    progress.begin("training images, in features", len(source))
    query_features = next(embedding([query_batch]))[0]["features"]
    batches = ((outputs["features"], batch) for outputs, batch in embedding(real.read(everything)))
    in_features = _search(query_features, batches, max(2, count), progress)
    return (
        _report("pixels", in_pixels, probes, count),
        _report(f"{embedding.name} features", in_features, probes, count),
    )


def check_training_images(source: ImageSource, count: int) -> None:
    """Raises InvalidInputError unless a source has more images than requested neighbours."""
    if not count < len(source):
        raise InvalidInputError(f"neighbours needs more than {count} training images; got {source.description}.")


def _search(
    queries: np.ndarray,
    batches: Iterable[tuple[np.ndarray, ImageBatch]],
    count: int,
    progress: ProgressCallback,
) -> Nearest:
    search = NearestSearch(queries, count)
    for features, batch in batches:
        search.update(features, batch.start)
        progress.tick(len(batch.labels))
    return search.nearest


def _report(name: str, found: Nearest, probes: np.ndarray, count: int) -> NeighbourReport:
    """Splits the result for the images from the result for the probes, which come last."""
    own = len(found.indices) - len(probes)
    # The nearest image of a probe is the probe itself or a duplicate with another index.
    is_itself = found.indices[own:, 0] == probes
    between_real = np.where(is_itself, found.distances[own:, 1], found.distances[own:, 0])
    return NeighbourReport(name, Nearest(found.indices[:own, :count], found.distances[:own, :count]), between_real)


class NearestSearch:
    """Finds the nearest rows of a stream for each query, by Euclidean distance.

    Args:
        queries: `[Q, D]` features.
        count: K, the number of nearest rows to keep.

    Attributes:
        nearest: the nearest rows so far; fewer than K until K rows have been added.
    """

    def __init__(self, queries: np.ndarray, count: int) -> None:
        self._queries = queries.astype(np.float64)
        self._count = count
        self.nearest = Nearest(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0)))

    def update(self, features: np.ndarray, start: int) -> None:
        """Adds rows of the stream.

        Args:
            features: `[n, D]`.
            start: the index of the first of these rows in the set.
        """
        rows, queries = features.astype(np.float64), self._queries
        squares = (queries**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * queries @ rows.T
        places = np.broadcast_to(start + np.arange(len(rows)), squares.shape)
        indices = np.concatenate([self.nearest.indices, places], axis=1)
        distances = np.concatenate([self.nearest.distances, np.sqrt(np.maximum(squares, 0))], axis=1)
        order = distances.argsort(axis=1, kind="stable")[:, : self._count]
        self.nearest = Nearest(*(np.take_along_axis(array, order, axis=1) for array in (indices, distances)))


def pixels(batch: ImageBatch) -> np.ndarray:
    """Returns the pixels of a batch as features `[n, H W C]` float32, in [0, 1]."""
    images = np.asarray(batch.images)[: len(batch.labels)]
    return images.reshape(len(images), -1).astype(np.float32) / 255
