"""Features and moments of batches of images, gathered over all processes."""

import functools
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch
from sagan_jax.functional.distances import Moments, merge_moments, moments_of
from sagan_jax.runtime.processes import gather
from sagan_jax.runtime.progress import ProgressCallback

_ROWS_PER_MERGE = 1000
"""Merging two moments costs about as much as computing the moments of a thousand rows."""


def embed(
    embedding: Embedding, batches: Iterable[ImageBatch], progress: ProgressCallback
) -> Iterator[tuple[dict[str, np.ndarray], ImageBatch]]:
    """Yields the outputs of a network for each batch of this process, `{name: [n, D]}`, and the batch.

    Args:
        embedding: the network.
        batches: this process's share of the images.
        progress: receives the number of images of each batch.

    Raises:
        InvalidInputError: an output is NaN or infinite.
    """
    for outputs, batch in embedding(batches):
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise InvalidInputError(
                f"The {embedding.name} network returned features that are not finite: its weights may be damaged."
            )
        progress.tick(len(batch.labels))
        yield outputs, batch


def gather_moments(embedding: Embedding, batches: Iterable[ImageBatch], progress: ProgressCallback) -> Moments:
    """Returns the moments of the features of all processes' images.

    Only one batch of images is in memory at a time.

    Args:
        embedding: the network; its output `features` is used.
        batches: this process's share of the images.
        progress: as for `embed`.

    Raises:
        InvalidInputError: a feature is NaN or infinite.
    """
    own = moments_of_stream(outputs["features"] for outputs, _ in embed(embedding, batches, progress))
    parts, size = [] if own is None else [own], embedding.size
    counts = gather(np.array([part.count for part in parts], np.int64))
    means = gather(np.reshape([part.mean for part in parts], (-1, size)))
    scatters = gather(np.reshape([part.scatter for part in parts], (-1, size, size)))
    everywhere = zip(*map(np.concatenate, (counts, means, scatters)), strict=True)
    return functools.reduce(merge_moments, (Moments(int(count), mean, scatter) for count, mean, scatter in everywhere))


def moments_of_stream(features: Iterable[np.ndarray]) -> Moments | None:
    """Returns the moments of all rows of a stream of arrays `[n, D]`; None for an empty stream.

    Only a few rows are held in float64 at a time.
    """
    total, rows = None, []
    for batch in features:
        rows.append(batch)
        if sum(map(len, rows)) >= _ROWS_PER_MERGE:
            total, rows = _merged(total, rows), []
    return _merged(total, rows) if rows else total


def _merged(total: Moments | None, rows: list[np.ndarray]) -> Moments:
    own = moments_of(np.concatenate(rows))
    return own if total is None else merge_moments(total, own)


def moments_of_features(features: np.ndarray) -> Moments:
    """Returns the moments of `[N, D]`, N at least 1, computed as in `gather_moments`.

    Only a few rows are held in float64 at a time.
    """
    found = moments_of_stream(np.array_split(features, -(-len(features) // _ROWS_PER_MERGE)))
    assert found
    return found


class RecentFeatures:
    """A cache of the features of the last scored images, for further scores of the same images."""

    def __init__(self) -> None:
        self._images: tuple[Any, ...] = ()
        self._found: dict[Hashable, np.ndarray] = {}

    def get(self, images: Any, key: Hashable, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Returns the result of `compute`, cached by key for the last images.

        Args:
            images: the origin of the images: a tuple such as a generator and a batch size. Two origins are the same if
                all their parts are identical objects.
            key: everything else that determines the features.
            compute: returns the features.
        """
        parts = tuple(images)
        if not (len(parts) == len(self._images) and all(map(operator.is_, parts, self._images))):
            self._images, self._found = parts, {}
        if key not in self._found:
            self._found[key] = compute()
        return self._found[key]


def gather_features(
    embedding: Embedding, batches: Iterable[ImageBatch], progress: ProgressCallback, output: str = "features"
) -> np.ndarray:
    """Returns one output of a network for the images of all processes, `[N, D]`, in the order of drawing.

    Args:
        embedding: the network.
        batches: this process's share of the images.
        progress: as for `embed`.
        output: the name of the output.

    Raises:
        InvalidInputError: an output is NaN or infinite.
    """
    rows, places = [], [np.zeros(0, np.int64)]
    for outputs, batch in embed(embedding, batches, progress):
        rows.append(outputs[output])
        places.append(batch.start + np.arange(len(batch.labels)))
    order = np.concatenate(gather(np.concatenate(places))).argsort()
    # A process without batches still needs an array of the right width, which it gets from the others.
    width = np.concatenate(gather(np.array([part.shape[1] for part in rows], np.int64))).max()
    return np.concatenate(gather(np.concatenate([np.zeros((0, width), np.float32), *rows])))[order]
