"""95% intervals for shares, means and differences of means."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 9_999


def wilson(count: int, total: int) -> tuple[float, float]:
    """Returns Wilson's interval (1927) for a share, without continuity correction.

    >>> [round(bound, 4) for bound in wilson(0, 20)]
    [0.0, 0.1611]
    """
    low, high = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def bootstrap(*groups: Sequence[float]) -> tuple[float, float] | None:
    """Returns the percentile bootstrap interval for the mean of a group, or for the difference of two means.

    It is the same at each call. With a handful of runs it is too narrow, so decisions use a test, not the interval.

    Args:
        groups: one or two groups, with one value per run. The mean of the second is subtracted.

    Returns:
        The bounds, or None if a group has fewer than two runs.

    Examples:
        >>> bootstrap([2.0, 2.0, 2.0])
        (2.0, 2.0)
    """
    if min(map(len, groups)) < 2:
        return None

    def statistic(*samples: np.ndarray, axis: int) -> np.ndarray:
        means = [sample.mean(axis) for sample in samples]
        return means[0] - means[1] if len(means) == 2 else means[0]

    samples = tuple(np.array(group, np.float64) for group in groups)
    found = stats.bootstrap(
        samples, statistic, vectorized=True, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
