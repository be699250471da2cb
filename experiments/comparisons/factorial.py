"""Two-level factorial designs: all combinations of k factors, or a half fraction of them."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

Cells = Mapping[tuple[int, ...], Sequence[float]]
"""The values of the runs at each combination of levels; a level is -1 or 1."""
MOST_SUMS = 1_000_000
DIGITS = 12
"""Sums that agree to this many digits of the largest value are ties: the last bits depend on the order of values."""
DRAWS = 99_999


def half_sign(cells: Cells) -> int:
    """Returns 0 for a full design, and for a half fraction the sign of its defining relation, the product of levels.

    Raises:
        ValueError: the combinations are neither all nor such a half, or a combination has no run.
    """
    factors = len(next(iter(cells)))
    if any(len(levels) != factors or not set(levels) <= {-1, 1} for levels in cells):
        raise ValueError("A factorial design needs a level of -1 or 1 for each factor.")
    if not all(map(len, cells.values())):
        raise ValueError("A factorial design needs a run at each of its combinations.")
    if len(cells) == 2**factors:
        return 0
    products = {math.prod(levels) for levels in cells}
    if factors < 3 or len(cells) != 2 ** (factors - 1) or len(products) != 1:
        raise ValueError(
            f"A factorial design of {factors} factors needs all {2**factors} combinations, or the half in which the "
            f"product of all levels is the same; got {len(cells)} combinations."
        )
    return products.pop()


def effect(cells: Cells, factors: Sequence[int]) -> float:
    """Returns the effect of some factors: the mean where the product of their levels is 1, minus that where it is -1.

    One factor gives a main effect; two give their interaction. All combinations have the same weight, whatever their
    number of runs.

    >>> effect({(-1,): [1.0, 3.0], (1,): [5.0]}, [0])
    3.0
    """
    signs = [math.prod(levels[factor] for factor in factors) for levels in cells]
    return 2 * float(np.mean([sign * np.mean(values) for sign, values in zip(signs, cells.values(), strict=True)]))


def standard_error(cells: Cells) -> float | None:
    """Returns the standard error of every effect, from the variance within combinations; None without repetitions."""
    freedom = sum(len(values) - 1 for values in cells.values())
    if freedom == 0:
        return None
    pooled = sum(np.var(values) * len(values) for values in cells.values()) / freedom
    return float(2 / len(cells) * math.sqrt(pooled * sum(1 / len(values) for values in cells.values())))


def main_effect_p(cells: Cells, factor: int) -> float:
    """Returns the two-sided p of a main effect.

    In a full design, runs are permuted between the two levels of the factor within each combination of the other
    factors. This test is exact. Up to `MOST_SUMS` groupings are enumerated. Otherwise `DRAWS` are drawn at random, and
    the observed grouping is added. In a half fraction no two combinations differ in only one factor. There the
    residuals of the other main effects are permuted (Freedman and Lane, 1983), which is approximate.
    """
    return _residual_p(cells, factor) if half_sign(cells) else _stratified_p(cells, factor)


def _stratified_p(cells: Cells, factor: int) -> float:
    strata, observed = [], 0.0
    for levels, values in cells.items():
        if levels[factor] == 1:
            low = list(cells[*levels[:factor], -1, *levels[factor + 1 :]])
            strata.append(_differences(list(values), low))
            observed += float(np.mean(values) - np.mean(low))
    scale = max(max(map(abs, values)) for values in cells.values()) or 1.0
    bound = np.round(abs(observed) / scale, DIGITS)
    if math.prod(map(len, strata)) <= MOST_SUMS:
        sums = np.zeros(1)
        for differences in strata:
            sums = np.add.outer(sums, differences).ravel()
        return float(np.mean(np.round(abs(sums) / scale, DIGITS) >= bound))
    rng = np.random.default_rng(0)
    sums = sum(rng.choice(differences, DRAWS) for differences in strata)
    return float((1 + np.sum(np.round(abs(sums) / scale, DIGITS) >= bound)) / (1 + DRAWS))


def _differences(high: list[float], low: list[float]) -> np.ndarray:
    """Returns the difference of means for every split of the values into groups of these sizes."""
    values = np.array([*high, *low], np.float64)
    chosen = np.array(list(combinations(range(len(values)), len(high))))
    of_high = values[chosen].sum(axis=1)
    return of_high / len(high) - (values.sum() - of_high) / len(low)


def _residual_p(cells: Cells, factor: int) -> float:
    levels = np.array([of for of, values in cells.items() for _ in values], np.float64)
    values = np.concatenate([np.array(of, np.float64) for of in cells.values()])
    model = np.column_stack([np.ones(len(levels)), levels])
    others = np.delete(model, factor + 1, axis=1)
    residuals = values - others @ np.linalg.lstsq(others, values)[0]
    weights = np.linalg.pinv(model)[factor + 1]
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(residuals, (DRAWS, 1)), axis=1) @ weights
    scale = abs(values).max() or 1.0
    bound = np.round(abs(weights @ residuals) / scale, DIGITS)
    return float((1 + np.sum(np.round(abs(drawn) / scale, DIGITS) >= bound)) / (1 + DRAWS))


def alias(cells: Cells, factors: Sequence[int]) -> tuple[int, list[int]] | None:
    """Returns the alias of an effect in a half fraction, with its sign; None in a full design.

    >>> half = {(-1, -1, 1): [0.0], (1, -1, -1): [0.0], (-1, 1, -1): [0.0], (1, 1, 1): [0.0]}
    >>> alias(half, [0, 1])  # the interaction of the first two is the main effect of the third
    (1, [2])
    """
    sign = half_sign(cells)
    return (sign, [factor for factor in range(len(next(iter(cells)))) if factor not in factors]) if sign else None
