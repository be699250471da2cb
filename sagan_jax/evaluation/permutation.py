"""Exact permutation tests for two unpaired groups of runs, without assumptions on their distribution."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

MOST_GROUPINGS = 3_000_000
"""The maximum number of groupings of a test. 12 runs against 12 have 2,704,156 groupings."""


def permutation_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the two-sided p-value of a difference of means.

    It is the fraction of groupings whose difference of means is at least as large as the measured one. All ways to
    split the values into groups of these two sizes are counted, including the measured one. Differences that agree up
    to float64 rounding count as equal.

    Args:
        one: a finite value per run.
        other: the same for the other group.

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
    centre = np.median(joined)  # centring reduces the rounding error of large values that hardly differ
    tested = stats.permutation_test(
        tuple(group - centre for group in groups),
        difference,
        vectorized=True,
        n_resamples=np.inf,
        batch=50_000,
        alternative="greater",
    )
    # The tolerance of scipy is relative to the measured difference, which may be much smaller than the values.
    rounding = 2 * len(joined) * np.finfo(np.float64).eps * abs(joined).max()
    return float(np.mean(tested.null_distribution >= tested.statistic - rounding))


def smallest_p(one: int, other: int) -> float:
    """Returns the smallest possible p-value for groups of these sizes.

    >>> [round(smallest_p(runs, runs), 5) for runs in (2, 3, 4, 5, 8)]
    [0.33333, 0.1, 0.02857, 0.00794, 0.00016]
    """
    # With equal group sizes, swapping the groups gives the same difference.
    return min(1.0, (2 if one == other else 1) / math.comb(one + other, one))


def worst_ranks(values: Sequence[float | None], *, lower_is_better: bool) -> list[float]:
    """Returns ranks from worst (1) to best. None, a collapsed run, is worse than any value. Ties get their mean rank.

    A test on these ranks neither drops collapsed runs nor imputes values for them (Lachin, "Worst-rank score analysis
    with informatively missing observations in clinical trials", 1999).

    >>> worst_ranks([30.0, None, 10.0, None], lower_is_better=True)
    [3.0, 1.5, 4.0, 1.5]
    """
    sign = -1 if lower_is_better else 1
    return stats.rankdata([-math.inf if value is None else sign * value for value in values]).tolist()


def difference_p(one: Sequence[float | None], other: Sequence[float | None], *, lower_is_better: bool) -> float:
    """Returns `permutation_p` of the values, or of their worst ranks if a run of either group collapsed.

    The choice depends on both groups together and is the same for every grouping, so the test remains exact.

    Examples:
        >>> difference_p([None, None, None], [7.0, 8.0, 9.0], lower_is_better=True)
        0.1
    """
    both = [*one, *other]
    if None in both:
        both = worst_ranks(both, lower_is_better=lower_is_better)
    return permutation_p(both[: len(one)], both[len(one) :])  # pyrefly: ignore[bad-argument-type]
