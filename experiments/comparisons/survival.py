"""Survival analysis of runs: the steps at which they collapse."""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats

from comparisons.intervals import wilson


def collapse_step(curve: Sequence[tuple[int, float]], below: float) -> int | None:
    """Returns the step from which a curve stays below a limit to its end, or None for a run that did not collapse.

    A curve that rises above the limit again has not collapsed.

    Examples:
        >>> collapse_step([(1, 0.9), (2, 0.0), (3, 0.8), (4, 0.0), (5, 0.0)], 0.1)
        4
    """
    begun = None
    for step, value in curve:
        if value >= below:
            begun = None
        elif begun is None:
            begun = step
    return begun


def kaplan_meier(
    lasted: Sequence[int], collapsed: Sequence[bool], steps: Sequence[int]
) -> list[tuple[float, float, float]]:
    """Returns the share of runs that survive each of some steps, with its 95% interval.

    The intervals come from Greenwood's variance of log(-log S). If all or no runs have collapsed, that variance does
    not exist, and Wilson's interval for the runs observed until then is used.

    Args:
        lasted: the step at which each run collapsed, or the last step at which it was observed.
        collapsed: True where `lasted` is the step of a collapse.
        steps: the steps of interest.

    Returns:
        Share, lower and upper bound for each step.

    Raises:
        ValueError: there is no run.
    """
    if not len(lasted):
        raise ValueError("kaplan_meier needs a run.")
    watched = np.array(lasted)
    curve = stats.ecdf(stats.CensoredData.right_censored(watched, ~np.array(collapsed, bool))).sf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # the variance does not exist where the share is 0 or 1
        bounds = curve.confidence_interval(0.95, method="log-log")
    found = []
    for step in steps:
        share = float(curve.evaluate(step))
        if 0 < share < 1:
            low, high = float(bounds.low.evaluate(step)), float(bounds.high.evaluate(step))
        else:
            known = int(sum((watched >= step) | np.array(collapsed, bool)))
            low, high = wilson(round(share * known), known) if known else (0.0, 1.0)
        found.append((share, low, high))
    return found
