"""The outcomes of a table's finished runs: scores, and which runs collapsed."""

from collections.abc import Mapping
from typing import Any

from comparisons.survival import collapse_step
from sagan_jax.config import Table

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By row and seed: `values` by the name of a score, and `curves` by the name of a metric.

A run that diverged has no values, and its step as `diverged_at`.
"""
COLLAPSED = "collapsed"
"""The name of an outcome of each run: 1 if it collapsed, else 0."""


def collapsed_at(table: Table, result: Mapping[str, Any]) -> int | None:
    """Returns the first step at which a run collapsed or diverged, or None if it did neither."""
    begun = None
    if table.collapse:
        begun = collapse_step(result["curves"].get(table.collapse.curve, ()), table.collapse.below)
    return result.get("diverged_at") if begun is None else begun


def outcomes(table: Table, found: Results, row: str, score: str) -> list[float | None]:
    """Returns a score of each run of a row.

    It is None if the run collapsed, if the score is a share of a count of 0, or if the result does not have the score.
    """
    runs = found.get(row, {}).values()
    if score == COLLAPSED:
        return [float(collapsed_at(table, run) is not None) for run in runs]
    counted = table.share_of.get(score)
    return [
        None
        if collapsed_at(table, run) is not None or (counted is not None and not run["values"].get(counted))
        else run["values"].get(score)
        for run in runs
    ]


def runs_left(table: Table, found: Results) -> int:
    """Returns how many runs of a table are not finished."""
    return sum(seed not in found.get(row, {}) for row in table.rows for seed in table.seeds)


def measured_scores(table: Table, found: Results) -> list[str]:
    """Returns the columns: the scores of a table, except those that no run with scores has."""
    runs = [run["values"] for of_row in found.values() for run in of_row.values() if run["values"]]
    return [score for score in table.scores if not runs or any(score in values for values in runs)]


def tested_scores(table: Table) -> tuple[str, ...]:
    """Returns the scores of the family of tests."""
    return table.tested or tuple(table.scores)[:1]


def families(table: Table) -> list[list[tuple[str, str, str]]]:
    """Returns the planned comparisons of a table, as row, baseline and score: the main family, then the secondary one.

    A family without comparisons is left out.
    """
    planned = [(row, baseline, score) for row, baseline in table.baselines.items() for score in tested_scores(table)]
    main, other = ([one for one in planned if (one[0] in table.secondary) == second] for second in (False, True))
    return [family for family in (main, other) if family]
