"""The certainty of the order of rows: the ranks of their means when the runs of each row are resampled."""

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np

from sagan_jax.evaluation.permutation import worst_ranks

MOST_RUNS = 10
"""Largest number of runs of a row for which all resamples are enumerated. 10 runs have 92,378 different resamples."""
DRAWS = 100_000
"""Random resamples, with seed 0, for a row with more runs. A share then has a standard error of at most 0.0016."""
DIGITS = 12
"""Means that agree to this many digits of the largest value are ties: the last bits depend on the order of values."""


def rank_shares(rows: Sequence[Sequence[float | None]], *, lower_is_better: bool) -> list[np.ndarray]:
    """Returns how often each row has each rank, if the runs of every row are resampled with replacement.

    This is the bootstrap with all resamples enumerated, so nothing is random. Only a row of more than `MOST_RUNS` runs
    has `DRAWS` random resamples. Tied rows share their ranks. If a run has no value, all runs are first replaced by
    their ranks, with such runs as the worst, and the means are those of these ranks.

    Args:
        rows: for each row, a value per run; None for a run that collapsed.
        lower_is_better: whether the lowest mean has rank 1.

    Returns:
        For each of K rows `[2K - 1]`: the shares of the ranks 1, 1.5, 2, ..., K. They sum to 1.

    Raises:
        ValueError: a row has no run.

    Examples:
        >>> [shares.tolist() for shares in rank_shares([[3.0, 3.0], [1.0, 3.0]], lower_is_better=False)]
        [[0.75, 0.25, 0.0], [0.0, 0.25, 0.75]]
    """
    if not all(rows):
        raise ValueError("rank_shares needs at least 1 run in each row.")
    joined = [value for row in rows for value in row]
    ranked = None in joined
    values = np.array(worst_ranks(joined, lower_is_better=lower_is_better) if ranked else joined, np.float64)
    values = (-values if lower_is_better and not ranked else values) / (abs(values).max() or 1.0)
    drawn = np.random.default_rng(0)  # shared by all rows, so that equal rows have different draws
    means = [
        _resampled_means(row) if len(row) <= MOST_RUNS else _drawn_means(row, drawn)
        for row in np.split(values, np.cumsum([len(row) for row in rows])[:-1])
    ]
    return [
        _shares_of_ranks(own, [other for place, other in enumerate(means) if place != number])
        for number, own in enumerate(means)
    ]


def rank_interval(shares: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean of a row's rank, and the bounds that contain it in at least 95% of the resamples.

    Args:
        shares: `[2K - 1]`, as `rank_shares` returns them.

    Examples:
        >>> rank_interval(np.array([0.75, 0.25, 0.0]))
        (1.125, 1.0, 1.5)
    """
    ranks, below = 1 + np.arange(len(shares)) / 2, np.cumsum(shares)
    low, high = (ranks[np.searchsorted(below, bound - 1e-9)] for bound in (0.025, 0.975))
    return float(ranks @ shares), float(low), float(high)


def _resampled_means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the possible means of n draws with replacement from n values, ascending, and their shares."""
    runs = len(values)
    drawn = np.array(list(combinations_with_replacement(range(runs), runs)))
    counts = (drawn[:, :, None] == np.arange(runs)).sum(axis=1)
    factorials = np.array([math.factorial(count) for count in range(runs + 1)], np.float64)
    shares = factorials[runs] / factorials[counts].prod(axis=1) / runs**runs
    means, places = np.unique(np.round(values[drawn].mean(axis=1), DIGITS), return_inverse=True)
    return means, np.bincount(places, shares)


def _drawn_means(values: np.ndarray, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means and shares of `_resampled_means`, estimated from `DRAWS` random resamples."""
    counts = drawn.multinomial(len(values), np.full(len(values), 1 / len(values)), DRAWS)
    means, times = np.unique(np.round(counts @ values / len(values), DIGITS), return_counts=True)
    return means, times / DRAWS


def _shares_of_ranks(own: tuple[np.ndarray, np.ndarray], others: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns the shares of the ranks of one row: each better row adds 1 to a rank, and each tied row adds 1/2."""
    means, shares = own
    ranks = np.zeros((len(means), 2 * len(others) + 1))
    ranks[:, 0] = 1
    for other_means, other_shares in others:
        below = np.concatenate([[0.0], np.cumsum(other_shares)])
        lower = below[np.searchsorted(other_means, means, "left")][:, None]
        up_to = below[np.searchsorted(other_means, means, "right")][:, None]
        half, whole = np.zeros_like(ranks), np.zeros_like(ranks)
        half[:, 1:], whole[:, 2:] = ranks[:, :-1], ranks[:, :-2]
        ranks = lower * ranks + (up_to - lower) * half + (1 - up_to) * whole
    return shares @ ranks
