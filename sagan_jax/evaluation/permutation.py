"""Exact permutation tests: two groups of runs, nothing paired and nothing assumed of their distribution."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

MOST_GROUPINGS = 3_000_000
"""Groupings that a test may have: those of 12 runs against 12 are 2,704,156."""


def permutation_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the two-sided p of a difference of means: the share of groupings with a difference at least as large.

    All ways to deal the values into groups of these two sizes are counted, the one that was measured among them.
    Differences that agree up to the rounding of float64 are equal.

    Args:
        one: a value a run, finite.
        other: the same of the other group.

    Raises:
        ValueError: a group has fewer than two runs, or there are more groupings than can be counted.

    Examples:
        >>> permutation_p([1, 2, 3], [4, 5, 6])  # 2 of 20 groupings
        0.1
    """
    if min(len(one), len(other)) < 2:
        raise ValueError("permutation_p needs two runs in each group.")
    if math.comb(len(one) + len(other), len(one)) > MOST_GROUPINGS:
        raise ValueError(f"permutation_p counts at most {MOST_GROUPINGS:,} groupings: give fewer runs.")

    def difference(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        return abs(first.mean(axis) - second.mean(axis))

    groups = np.array(one, np.float64), np.array(other, np.float64)
    joined = np.concatenate(groups)
    centre = np.median(joined)  # without it, sums of large values that hardly differ would be rounded more
    tested = stats.permutation_test(
        tuple(group - centre for group in groups),
        difference,
        vectorized=True,
        n_resamples=np.inf,
        batch=50_000,
        alternative="greater",
    )
    # The tolerance of scipy is relative to the difference that was measured, which may be far below the values.
    rounding = 2 * len(joined) * np.finfo(np.float64).eps * abs(joined).max()
    return float(np.mean(tested.null_distribution >= tested.statistic - rounding))


def smallest_p(one: int, other: int) -> float:
    """Returns the least p that groups of these sizes can have, whatever is measured.

    >>> [round(smallest_p(runs, runs), 5) for runs in (2, 3, 4, 5, 8)]
    [0.33333, 0.1, 0.02857, 0.00794, 0.00016]
    """
    # In groups of one size, the mirror image of a grouping has the same difference.
    return min(1.0, (2 if one == other else 1) / math.comb(one + other, one))


def worst_ranks(values: Sequence[float | None], *, lower_is_better: bool) -> list[float]:
    """Returns ranks from the worst on, 1 the least. None, a run that collapsed, is worse than any value; ties share.

    A test on these ranks neither drops a run that collapsed nor invents a value for it (Lachin, "Worst-rank score
    analysis with informatively missing observations in clinical trials", 1999).

    >>> worst_ranks([30.0, None, 10.0, None], lower_is_better=True)
    [3.0, 1.5, 4.0, 1.5]
    """
    sign = -1 if lower_is_better else 1
    return stats.rankdata([-math.inf if value is None else sign * value for value in values]).tolist()


def difference_p(one: Sequence[float | None], other: Sequence[float | None], *, lower_is_better: bool) -> float:
    """Returns `permutation_p` of values, or of their worst ranks where a run of either group collapsed.

    Which of the two it is depends on both groups together, so it is the same for every grouping: the test stays exact.

    Examples:
        >>> difference_p([None, None, None], [7.0, 8.0, 9.0], lower_is_better=True)
        0.1
    """
    both = [*one, *other]
    if None in both:
        both = worst_ranks(both, lower_is_better=lower_is_better)
    return permutation_p(both[: len(one)], both[len(one) :])  # pyrefly: ignore[bad-argument-type]
