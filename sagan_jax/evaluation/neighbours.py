"""The training images nearest to given ones: whether a generator has learned images by heart."""

from typing import NamedTuple

import numpy as np

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.runtime.progress import ProgressCallback

_PROBES = 100  # real images whose own nearest neighbours say what is near


class Nearest(NamedTuple):
    """For each image, the nearest of a set, the nearest first."""

    indices: np.ndarray
    """`[Q, K]`, places in the set"""
    distances: np.ndarray
    """`[Q, K]` float64"""


class Space(NamedTuple):
    """What was found in pixels, or in features."""

    name: str
    nearest: Nearest
    between_real: np.ndarray
    """`[P]`: how far real images are from the nearest other real one"""


def compare(
    images: np.ndarray, source: ImageSource, embedding: Embedding, *, count: int, watcher: ProgressCallback
) -> tuple[Space, Space]:
    """Returns the training images nearest to each image, in pixels and in the features of a network.

    Args:
        images: `[N, R, R, C]` uint8.
        source: the training images, of that size.
        embedding: gives the features.
        count: how many of the nearest.
        watcher: is told how far it is.

    Raises:
        InvalidInputError: the set has not so many images.
    """
    if not count < len(source):
        raise InvalidInputError(f"neighbours needs more than {count} training images; got {source.description}.")
    pictures = RealImages(source)
    probes = np.random.default_rng(0).permutation(len(source))[:_PROBES]
    queries = np.concatenate([images, np.stack([source[int(index)][0] for index in probes])])
    asked = ImageBatch(queries, np.zeros(len(queries), np.int32))

    def split(name: str, found: Nearest) -> Space:
        own = len(images)
        # The nearest of a probe is itself, or an equal image elsewhere.
        others = np.where(found.indices[own:, 0] == probes, found.distances[own:, 1], found.distances[own:, 0])
        return Space(name, Nearest(found.indices[:own, :count], found.distances[:own, :count]), others)

    everything = np.arange(len(source))
    watcher.begin("training images, in pixels", len(source))
    in_pixels = Search(pixels(asked), max(2, count))
    for batch in pictures.of(everything):
        in_pixels.look(pixels(batch), batch.start)
        watcher.tick(len(batch.labels))
    watcher.begin("training images, in features", len(source))
    features = next(embedding([asked]))[0]["features"]
    in_features = Search(features, max(2, count))
    for outputs, batch in embedding(pictures.of(everything)):
        in_features.look(outputs["features"], batch.start)
        watcher.tick(len(batch.labels))
    return split("pixels", in_pixels.found), split(f"{embedding.name} features", in_features.found)


class Search:
    """Keeps the nearest of a stream to each query, by Euclidean distance.

    Args:
        queries: `[Q, D]` features.
        count: how many of the nearest are kept.
    """

    def __init__(self, queries: np.ndarray, count: int) -> None:
        self._queries = queries.astype(np.float64)
        self._count = count
        self.found = Nearest(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0)))

    def look(self, features: np.ndarray, start: int) -> None:
        """Goes through some more of the stream.

        Args:
            features: `[n, D]`.
            start: the place of the first of them in the set.
        """
        rows, queries = features.astype(np.float64), self._queries
        squares = (queries**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * queries @ rows.T
        places = np.broadcast_to(start + np.arange(len(rows)), squares.shape)
        indices = np.concatenate([self.found.indices, places], axis=1)
        distances = np.concatenate([self.found.distances, np.sqrt(np.maximum(squares, 0))], axis=1)
        order = distances.argsort(axis=1, kind="stable")[:, : self._count]
        self.found = Nearest(*(np.take_along_axis(array, order, axis=1) for array in (indices, distances)))


def pixels(batch: ImageBatch) -> np.ndarray:
    """Returns the pixels of a batch as features `[n, H W C]`, in [0, 1]."""
    images = np.asarray(batch.images)[: len(batch.labels)]
    return images.reshape(len(images), -1).astype(np.float32) / 255
