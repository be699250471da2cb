"""The infinite order in which training reads images, a function of only the seed and the position."""

from collections.abc import Callable
from functools import lru_cache

import grain
import numpy as np

from sagan_jax.errors import InvalidInputError

Order = Callable[[int], int]
"""Maps a position, from 0, to the index of an image. It is thread-safe."""

# The number of cached permutations. Threads may be several batches apart. A permutation of a class has its size.
_KEPT, _KEPT_OF_CLASS = 256, 3


def uniform_order(count: int, seed: int) -> Order:
    """Returns an order with every image once per epoch, in a new permutation for each epoch.

    Args:
        count: N, the number of images. An epoch is N positions.
        seed: in [0, 2**32).

    Examples:
        >>> order = uniform_order(5, seed=0)
        >>> sorted(order(position) for position in range(5, 10))
        [0, 1, 2, 3, 4]
    """
    order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    return lambda position: _found(order[position])


def balanced_order(labels: np.ndarray, seed: int) -> Order:
    """Returns an order with all classes equally often: each class once in every K positions, in random order.

    K is the number of classes with images. Each class has its own permutation of its images, and a new one when they
    are used up. So all images of a class occur equally often, and images of a small class more often than those of a
    large one. An epoch is K times the size of the largest class.

    Args:
        labels: integers `[N]`, the label of each image.
        seed: in [0, 2**32).

    Raises:
        InvalidInputError: fewer than two classes have images.

    Examples:
        >>> labels = np.array([0, 0, 0, 0, 1])
        >>> order = balanced_order(labels, seed=0)
        >>> epoch = [order(position) for position in range(8)]
        >>> sorted(epoch), sorted(labels[epoch[2:4]].tolist())
        ([0, 1, 2, 3, 4, 4, 4, 4], [0, 1])
    """
    present, sizes = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise InvalidInputError(
            f"--sampling balanced needs images of at least 2 classes; got {len(present)}. Do the images have labels?"
        )
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    count = len(present)

    @lru_cache(_KEPT)
    def turns(number: int) -> np.ndarray:
        return _permutation(count, seed, 0, number)

    @lru_cache(_KEPT_OF_CLASS * count)
    def within(of_class: int, number: int) -> np.ndarray:
        return members[of_class][_permutation(int(sizes[of_class]), seed, 1 + of_class, number)]

    def order(position: int) -> int:
        of_class = int(turns(position // count)[position % count])
        number, place = divmod(position // count, int(sizes[of_class]))
        return int(within(of_class, number)[place])

    return order


def _permutation(count: int, *key: int) -> np.ndarray:
    """Returns a permutation of 0, .., `count` - 1 that is determined by some integers.

    numpy guarantees these random bits for all versions, unlike those of its `permutation`. grain's shuffle needs no
    memory, but takes milliseconds per element for small counts.
    """
    return np.argsort(np.random.PCG64(np.random.SeedSequence(key)).random_raw(count), kind="stable")


def _found(index: int | None) -> int:
    assert index is not None  # grain returns None for filtered elements only
    return int(index)
