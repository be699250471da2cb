"""The search for the settings of each row: the same search for all rows, on seeds that are not reported."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from comparisons.outcomes import COLLAPSED, Results, outcomes
from comparisons.tables import is_lower_better, known
from sagan_jax.config import AnyExperiment, Table


def with_setting(experiment: AnyExperiment, fields: Mapping[str, object]) -> AnyExperiment:
    """Returns an experiment with some fields of its `training` replaced."""
    training = dataclasses.replace(experiment.training, **fields)  # pyrefly: ignore[bad-argument-type]
    return dataclasses.replace(experiment, training=training)  # pyrefly: ignore[bad-argument-type]


def trial(row: str, setting: str) -> str:
    """Returns the name of the row for a setting in the table of the search."""
    return f"{row}, {setting}"


def search_table(table: Table) -> Table:
    """Returns the search as a separate table, with a row for each combination of row and setting."""
    search = table.search
    assert search
    length = {"total_steps": search.total_steps} if search.total_steps else {}
    rows = {
        trial(row, setting): with_setting(experiment, {**fields, **length})
        for row, experiment in table.rows.items()
        for setting, fields in search.settings.items()
    }
    return dataclasses.replace(
        table,
        rows=rows,
        seeds=search.seeds,
        baselines={},
        search=None,
        factors={},
        strips=(),
        tested=(search.by,),
        ranked="",
    )


def choices(table: Table, found: Results) -> dict[str, str]:
    """Returns the chosen setting of each row whose search is finished.

    Args:
        table: a table with a search.
        found: the finished runs of its `search_table`.
    """
    search = table.search
    assert search
    trials = search_table(table)

    def rank(row: str, setting: str) -> tuple[float, float]:
        name = trial(row, setting)
        scores = known(outcomes(trials, found, name, search.by))
        sign = 1 if is_lower_better(table, search.by) else -1
        mean = sign * float(np.mean(scores)) if scores else np.inf
        return sum(known(outcomes(trials, found, name, COLLAPSED))), mean

    finished = [
        row
        for row in table.rows
        if all(len(found.get(trial(row, setting), ())) == len(search.seeds) for setting in search.settings)
    ]
    return {row: min(search.settings, key=lambda setting: rank(row, setting)) for row in finished}


def chosen_table(table: Table, chosen: Mapping[str, str]) -> Table:
    """Returns the table with the chosen settings of its rows; rows without a choice are unchanged."""
    search = table.search
    assert search
    rows = {
        row: with_setting(experiment, search.settings[chosen[row]]) if row in chosen else experiment
        for row, experiment in table.rows.items()
    }
    return dataclasses.replace(table, rows=rows, search=None)
