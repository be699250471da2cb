"""A table of runs in Markdown: means, comparisons, ranks, survival, and factors."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from comparisons import factorial
from comparisons.families import holm
from comparisons.intervals import bootstrap, wilson
from comparisons.outcomes import (
    COLLAPSED,
    Results,
    collapsed_at,
    families,
    measured_scores,
    outcomes,
    runs_left,
    tested_scores,
)
from comparisons.ranking import rank_interval, rank_shares
from comparisons.survival import kaplan_meier
from sagan_jax.config import Table
from sagan_jax.evaluation.permutation import difference_p, worst_ranks


def line(cells: Sequence[str]) -> str:
    """Returns a line of a Markdown table.

    >>> line(["row", "2"])
    '| row | 2 |'
    """
    return "| " + " | ".join(cells) + " |"


def with_head(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, lines)]) + "\n"


def decimals(*values: float) -> int:
    """Returns how many decimals show numbers that are compared: two or more digits of the largest.

    >>> decimals(512.3), decimals(-24.6, 0.001), decimals(0.0), decimals(-0.0349, 0.001)
    (1, 2, 2, 4)
    """
    largest = max(map(abs, values))
    if largest >= 100:
        return 1
    return 2 if largest >= 0.1 or not largest else 2 - math.floor(math.log10(largest))


def estimate(*groups: Sequence[float], sign: str = "") -> str:
    """Returns a mean, or a difference of two, with its bootstrap interval.

    >>> estimate([1.0, 1.0]), estimate([0.0349]), estimate([3.0], [1.0], sign="+"), estimate([])
    ('1.00 [1.00, 1.00]', '0.0349', '+2.00', '–')
    """
    if not all(groups):
        return "–"
    value = float(np.mean(groups[0])) - (float(np.mean(groups[1])) if len(groups) > 1 else 0.0)
    bounds = bootstrap(*groups)
    digits = decimals(value, *bounds or ())
    shown = f"{value:{sign}.{digits}f}"
    return f"{shown} [{bounds[0]:{sign}.{digits}f}, {bounds[1]:{sign}.{digits}f}]" if bounds else shown


def share(count: int, total: int) -> str:
    """Returns a share of runs with Wilson's interval.

    >>> share(0, 20)
    '0 of 20 [0.00, 0.16]'
    """
    low, high = wilson(count, total)
    return f"{count} of {total} [{low:.2f}, {high:.2f}]"


def known(values: Sequence[float | None]) -> list[float]:
    """Returns the values that are not None."""
    return [value for value in values if value is not None]


def p_text(p: float | None) -> str:
    """Returns a p value with two digits.

    >>> p_text(0.0001554), p_text(1.0), p_text(None)
    ('0.00016', '1', '–')
    """
    return "–" if p is None else f"{p:.2g}"


def means(table: Table, found: Results, parameters: Mapping[str, int]) -> str:
    """Returns the mean of each score over the runs of each row, the number of collapsed runs, and the parameters.

    If some runs collapsed or have no such value, the number of runs in the mean follows in brackets. A score that no
    run has gets no column.
    """
    scores = measured_scores(table, found)
    diverged = any("diverged_at" in run for runs in found.values() for run in runs.values())
    counted = table.collapse is not None or diverged
    head = ["row", *(table.scores[score] for score in scores), *([COLLAPSED] if counted else []), "parameters", "seeds"]
    lines = []
    for row in table.rows:
        runs, cells = len(found.get(row, ())), [row]
        for score in scores:
            values = known(outcomes(table, found, row, score))
            cells.append(estimate(values) + (f" ({len(values)})" if 0 < len(values) < runs else ""))
        if counted:
            cells.append(share(round(sum(known(outcomes(table, found, row, COLLAPSED)))), runs) if runs else "–")
        lines.append([*cells, f"{parameters[row]:,}", str(runs)])
    return with_head(head, lines)


def comparisons(table: Table, found: Results) -> str:
    """Returns each family of tests: each difference from a baseline, its exact p, and p after Holm's correction.

    If a run of either row has no value, the difference is that of the mean ranks, which are tested. A higher rank is
    better, and such runs have the lowest. Nothing is tested before all runs are finished.
    """
    parts = []
    for number, stated in enumerate(families(table)):
        lines = []
        for (row, baseline, score), (p, q) in zip(stated, p_values(table, found, stated), strict=True):
            groups = [outcomes(table, found, one, score) for one in (row, baseline)]
            ranks = min(map(len, groups)) > 1 and None in groups[0] + groups[1]
            if ranks:
                shown = rank_difference(*groups, lower_is_better=is_lower_better(table, score))
            else:
                shown = estimate(*map(known, groups), sign="+")
            cells = [f"{row} − {baseline}", heading(table, score), shown]
            cells += ["ranks" if ranks else "means", f"{len(groups[0])} and {len(groups[1])}", p_text(p), p_text(q)]
            lines.append(cells)
        name = "secondary comparison" if number else "comparison"
        parts.append(
            with_head([name, "of", "difference", "test of", "seeds", "p", f"p, Holm over {len(stated)}"], lines)
        )
    if left := runs_left(table, found):
        parts.append(f"Runs left: {left}. p is given when all runs are finished.\n")
    return "\n".join(parts)


def rank_difference(one: Sequence[float | None], other: Sequence[float | None], *, lower_is_better: bool) -> str:
    """Returns the difference of the mean ranks of two groups, from the worst on. A run without a value ranks worst.

    >>> rank_difference([None, None, 9.0], [7.0, 8.0], lower_is_better=False)
    '-0.8 ranks'
    """
    ranks = worst_ranks([*one, *other], lower_is_better=lower_is_better)
    return f"{np.mean(ranks[: len(one)]) - np.mean(ranks[len(one) :]):+.1f} ranks"


def p_values(
    table: Table, found: Results, stated: Sequence[tuple[str, str, str]]
) -> list[tuple[float | None, float | None]]:
    """Returns the exact p of each comparison of a family, and p after Holm's correction.

    Both are None until all runs of the table are finished, because early looks raise the rate of false findings. They
    are also None with one seed.
    """
    if runs_left(table, found) or len(table.seeds) < 2:
        return [(None, None)] * len(stated)
    exact = [
        difference_p(
            *(outcomes(table, found, one, score) for one in (row, baseline)),
            lower_is_better=is_lower_better(table, score),
        )
        for row, baseline, score in stated
    ]
    return list(zip(exact, holm(exact), strict=True))


def is_lower_better(table: Table, score: str) -> bool:
    """Returns whether a lower score is better. This includes the rate of collapse."""
    return score == COLLAPSED or score in table.lower_is_better


def heading(table: Table, score: str) -> str:
    """Returns the heading of a score in the table."""
    return table.scores.get(score, score)


def survival(table: Table, found: Results) -> str:
    """Returns the Kaplan-Meier estimate of the share of surviving runs, at quarters of the longest row.

    Beyond the last observed step of a row, the share is unknown unless all runs have collapsed.
    """
    longest = max(row.training.total_steps for row in table.rows.values())
    steps = [longest * quarter // 4 for quarter in (1, 2, 3, 4)]
    lines = []
    for row, experiment in table.rows.items():
        ends = [collapsed_at(table, run) for run in found.get(row, {}).values()]
        if not ends:
            continue
        lasted = [experiment.training.total_steps if end is None else end for end in ends]
        shares = kaplan_meier(lasted, [end is not None for end in ends], steps)
        cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in shares]
        unknown = [step > max(lasted) and value > 0 for step, (value, _, _) in zip(steps, shares, strict=True)]
        lines.append([row, *("–" if no else cell for cell, no in zip(cells, unknown, strict=True))])
    return with_head(["not collapsed at step", *map(str, steps)], lines)


def ranking(table: Table, found: Results) -> str:
    """Returns the ranks of the rows by the mean of a score, best first, with their variation under resampling.

    Rows with fewer than two runs are left out.
    """
    values = {row: outcomes(table, found, row, table.ranked) for row in table.rows}
    values = {row: of_row for row, of_row in values.items() if len(of_row) > 1}
    if len(values) < 2:
        return "Ranks: fewer than two rows have two runs yet.\n"
    shares = rank_shares(list(values.values()), lower_is_better=is_lower_better(table, table.ranked))
    ranked = sorted((rank_interval(of_row), row, of_row[0]) for row, of_row in zip(values, shares, strict=True))
    lines = [[row, f"{mean:.1f} [{low:g}, {high:g}]", f"{first:.0%}"] for (mean, low, high), row, first in ranked]
    return with_head([f"rank by {heading(table, table.ranked)}", "mean rank", "first"], lines)


def factor_tables(table: Table, found: Results) -> str:
    """Returns main effects and two-way interactions of each tested score, or how many runs are missing for them."""
    names, scores = list(table.factors), tested_scores(table)
    if left := runs_left(table, found):
        return f"Runs left: {left}. The effects of {', '.join(names)} are given when all runs are finished.\n"
    designs = []
    for score in scores:
        values = {row: outcomes(table, found, row, score) for row in table.rows}
        ranked = None in [value for of_row in values.values() for value in of_row]
        title = f"{heading(table, score)}{', in ranks from the worst on' if ranked else ''}"
        designs.append((title, _cells(table, values, lower_is_better=is_lower_better(table, score))))
    exact = [factorial.main_effect_p(cells, factor) for _, cells in designs for factor in range(len(names))]
    tested = iter(zip(exact, holm(exact), strict=True))  # one family
    return "\n".join(
        _main_effects(cells, names, title, [next(tested) for _ in names], len(exact))
        + "\n"
        + _interactions(cells, names, title)
        for title, cells in designs
    )


def _cells(table: Table, values: Mapping[str, list[float | None]], *, lower_is_better: bool) -> factorial.Cells:
    """Returns the values by levels; if a run has no value, the ranks of all values instead."""
    joined, levels = [value for of_row in values.values() for value in of_row], levels_of(table)
    numbers = iter(worst_ranks(joined, lower_is_better=lower_is_better) if None in joined else known(joined))
    return {levels[row]: [next(numbers) for _ in of_row] for row, of_row in values.items()}


def levels_of(table: Table) -> dict[str, tuple[int, ...]]:
    """Returns the level of each factor, -1 or 1, in each row of a factorial table.

    Raises:
        ValueError: a factor names an unknown row, two rows have the same levels, or the rows are not such a design.
    """
    for factor, high in table.factors.items():
        if unknown := [row for row in high if row not in table.rows]:
            raise ValueError(f"The factor {factor!r} needs rows of the table; got {unknown[0]!r}.")
    levels = {row: tuple(1 if row in high else -1 for high in table.factors.values()) for row in table.rows}
    rows = {of_row: row for row, of_row in levels.items()}
    for row, of_row in levels.items():
        if rows[of_row] != row:
            raise ValueError(
                f"Each row of a factorial table needs its own levels; {row!r} and {rows[of_row]!r} have the same."
            )
    factorial.half_sign(dict.fromkeys(rows, (0.0,)))
    return levels


def _effect_text(cells: factorial.Cells, factors: Sequence[int]) -> str:
    effect, error = factorial.effect(cells, factors), factorial.standard_error(cells)
    digits = decimals(effect, error or 0.0)
    return f"{effect:+.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _main_effects(
    cells: factorial.Cells, names: Sequence[str], title: str, tested: Sequence[tuple[float, float]], tests: int
) -> str:
    lines = [
        [name, _effect_text(cells, [factor]), p_text(p), p_text(q)]
        for (factor, name), (p, q) in zip(enumerate(names), tested, strict=True)
    ]
    return with_head([f"main effect on {title}", "± standard error", "p", f"p, Holm over {tests}"], lines)


def _interactions(cells: factorial.Cells, names: Sequence[str], title: str) -> str:
    lines = []

    def say(factors: Sequence[int]) -> str:
        return " × ".join(names[factor] for factor in factors)

    for pair in combinations(range(len(names)), 2):
        other = factorial.alias(cells, pair)
        same_as = f"{'−' if other[0] < 0 else ''}{say(other[1])}" if other else "none"
        lines.append([say(pair), _effect_text(cells, pair), same_as])
    return with_head([f"interaction on {title}", "± standard error", "alias"], lines)


def whole(table: Table, found: Results, parameters: Mapping[str, int]) -> str:
    """Returns all parts of a table."""
    parts = [means(table, found, parameters)]
    parts += [comparisons(table, found)] if table.baselines else []
    parts += [ranking(table, found)] if table.ranked else []
    parts += [survival(table, found)] if table.collapse and any(found.values()) else []
    parts += [factor_tables(table, found)] if table.factors else []
    return "\n".join(parts)
