"""What a number of runs can show, said before they run."""

import math

from comparisons.permutation import permutation_p, smallest_p

POWER = 0.8


def attained_level(one: int, other: int, level: float) -> float:
    """Returns the largest p of two such groups that is not above a level; 0 where there is none.

    >>> attained_level(4, 4, 0.05) == 2 / 70, attained_level(3, 3, 0.05)
    (True, 0.0)
    """
    least = smallest_p(one, other)
    return least * math.floor(level / least * (1 + 1e-12))


def smallest_effect(one: int, other: int, level: float) -> float | None:
    """Returns the difference, in standard deviations, that is found at a level in four of five experiments.

    That is the power of Student's test at the level that the permutation test attains; on normal values the two have
    nearly the same.

    Returns:
        The difference, or None where no p of such groups is as low as the level.

    Examples:
        >>> smallest_effect(3, 3, 0.05)
    """
    attained = attained_level(one, other, level)
    if attained == 0 or min(one, other) < 2:
        return None
    from statsmodels.stats.power import TTestIndPower  # takes a second

    return float(TTestIndPower().solve_power(None, nobs1=one, alpha=attained, power=POWER, ratio=other / one))


def smallest_count(one: int, other: int, level: float) -> int | None:
    """Returns how many runs of a row need to collapse for a p at or below a level, where none of the baseline does.

    >>> smallest_count(8, 8, 0.05), smallest_count(3, 3, 0.05)
    (5, None)
    """
    if min(one, other) < 2:
        return None
    counts = range(1, one + 1)
    found = (count for count in counts if permutation_p([1.0] * count + [0.0] * (one - count), [0.0] * other) <= level)
    return next(found, None)
