"""How sure the order of rows is: the ranks of their means where the runs of each row are drawn anew."""

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np

from sagan_jax.evaluation.permutation import worst_ranks

MOST_RUNS = 10
"""Runs of a row that are drawn anew in all ways: of 10 there are 92,378 different draws. Of more, some are drawn."""
DRAWS = 100_000
"""Draws of a row of more runs, at random with seed 0. A share then has a standard error of at most 0.0016."""
DIGITS = 12
"""Means that agree in so many digits of the largest value are ties: the last bits depend on the order of the values."""


def rank_shares(rows: Sequence[Sequence[float | None]], *, lower_is_better: bool) -> list[np.ndarray]:
    """Returns how often each row has each rank, if the runs of every row are drawn anew from its own with replacement.

    This is the bootstrap with all resamples counted, so nothing is random. Only a row of more than `MOST_RUNS` runs has
    `DRAWS` random resamples. Rows that tie share their ranks. If a run has no value, all runs are ranked first, with
    such runs as the worst, and the means are those of these ranks.

    Args:
        rows: for each row a value a run; None for a run that collapsed.
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
    drawn = np.random.default_rng(0)  # goes on from row to row: equal rows have other draws
    means = [
        _resampled_means(row) if len(row) <= MOST_RUNS else _drawn_means(row, drawn)
        for row in np.split(values, np.cumsum([len(row) for row in rows])[:-1])
    ]
    return [
        _shares_of_ranks(own, [other for place, other in enumerate(means) if place != number])
        for number, own in enumerate(means)
    ]


def rank_interval(shares: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean of a row's rank, and the bounds between which it lies in at least 95% of the draws.

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
    """Returns the means that n values have when n are drawn from them with replacement, ascending, and their shares."""
    runs = len(values)
    drawn = np.array(list(combinations_with_replacement(range(runs), runs)))
    counts = (drawn[:, :, None] == np.arange(runs)).sum(axis=1)
    factorials = np.array([math.factorial(count) for count in range(runs + 1)], np.float64)
    shares = factorials[runs] / factorials[counts].prod(axis=1) / runs**runs
    means, places = np.unique(np.round(values[drawn].mean(axis=1), DIGITS), return_inverse=True)
    return means, np.bincount(places, shares)


def _drawn_means(values: np.ndarray, drawn: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `_resampled_means` does, of so many draws at random."""
    counts = drawn.multinomial(len(values), np.full(len(values), 1 / len(values)), DRAWS)
    means, times = np.unique(np.round(counts @ values / len(values), DIGITS), return_counts=True)
    return means, times / DRAWS


def _shares_of_ranks(own: tuple[np.ndarray, np.ndarray], others: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns the shares of the ranks of one row: each other row above adds 1 to a rank, and one that ties adds 1/2."""
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
