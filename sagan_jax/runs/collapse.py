"""Signs that a generator has collapsed: its images lose their variety, or its score becomes much worse."""

import numpy as np

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.generator import TrainedGenerator

MIN_DIVERSITY = 0.1
"""The generator has collapsed when its diversity falls below this, once it has been above; a generator starts low."""

_WORSE_FACTOR, _WORSE_TIMES = 2.0, 3  # a score this many times worse than the best, this often in a row

_PAIRS = 100


class CollapseDetector:
    """Compares the variety and the score of a generator with what they were before.

    Args:
        source: the training images, whose variety is the unit of `diversity`.
        score: the name of the score that is watched.
        higher_is_better: whether a higher value of it is better.

    Raises:
        InvalidInputError: all training images of a class are the same.
    """

    def __init__(self, source: ImageSource, score: str, *, higher_is_better: bool) -> None:
        self._score, self._higher_is_better = score, higher_is_better
        self._real_distance = _mean_distance(*_real_pairs(source))
        if not self._real_distance:
            raise InvalidInputError("--protocols need training images that differ, for variety to be told; got one.")
        self._worse, self._was_varied = 0, False

    def diversity(self, generator: TrainedGenerator) -> float:
        """Returns the mean distance of two generated images of a class, as a share of that of two real ones."""
        return _mean_distance(*_generated_pairs(generator)) / self._real_distance

    def find_sign(self, diversity: float, value: float, best: float | None) -> str | None:
        """Returns a sentence that says in what the generator has collapsed, or None when it has not.

        Args:
            diversity: of this step.
            value: the score of this step.
            best: the best score before this step; None when there is none.
        """
        self._worse = self._worse + 1 if best is not None and self._is_much_worse(value, best) else 0
        was_varied, self._was_varied = self._was_varied, self._was_varied or diversity >= MIN_DIVERSITY
        if was_varied and diversity < MIN_DIVERSITY:
            return f"two images of a class differ by {diversity:.1%} of what two real ones do"
        if self._worse >= _WORSE_TIMES:
            return f"{self._score} is {value:.4g} after a best of {best or 0:.4g}"
        return None

    def _is_much_worse(self, value: float, best: float) -> bool:
        return value < best / _WORSE_FACTOR if self._higher_is_better else value > best * _WORSE_FACTOR


def _real_pairs(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of real images of one class: two different ones where the class has two."""
    rng = np.random.default_rng(0)
    first = rng.permutation(len(source))[:_PAIRS]
    labels = source.labels
    second = [rng.choice(np.flatnonzero(labels == labels[index])) for index in first]
    return _stacked(source, first), _stacked(source, second)


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
