"""The plan of a table in words, which is written before its first run."""

import math

from comparisons.factorial import DRAWS as DRAWS_OF_FACTORS
from comparisons.outcomes import COLLAPSED, families, tested_scores
from comparisons.power import POWER, smallest_count, smallest_effect
from comparisons.ranking import DRAWS, MOST_RUNS
from comparisons.tables import heading, is_lower_better, levels_of
from sagan_jax.config import Experiment, Table
from sagan_jax.evaluation.permutation import MOST_GROUPINGS, smallest_p

LEVEL = 0.05


def plan(table: Table) -> str:
    """Returns the question of a table, its rows and its analysis, with the statistical power of its number of runs."""
    parts = [table.question.strip(), rows_text(table), search_text(table), collapse_text(table), analysis_text(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def rows_text(table: Table) -> str:
    """Returns the rows, and the seeds of each."""
    steps = {row: experiment.training.total_steps for row, experiment in table.rows.items()}
    listed = "\n".join(f"- {row}: {count:,} steps" for row, count in steps.items())
    return f"Rows, each with the seeds {', '.join(map(str, table.seeds))}:\n{listed}"


def search_text(table: Table) -> str:
    """Returns the description of the search for settings, or "" without one."""
    search = table.search
    if search is None:
        return ""
    listed = "\n".join(
        f"- {name}: {', '.join(f'{field} {value:g}' for field, value in fields.items())}"
        for name, fields in search.settings.items()
    )
    better = "lowest" if is_lower_better(table, search.by) else "highest"
    seeds = ", ".join(map(str, search.seeds))
    length = f", for {search.total_steps:,} steps," if search.total_steps else ""
    return (
        f"Settings. Each row tries these {len(search.settings)}{length} with seeds that are not reported: {seeds}. "
        f"It takes the one with the fewest collapsed runs, and among those the {better} mean of {search.by}:\n{listed}"
    )


def collapse_text(table: Table) -> str:
    """Returns the definition of a collapsed run."""
    ways = [f"if its last {table.collapse.curve} is below {table.collapse.below:g}"] if table.collapse else []
    evaluations = [row.evaluation for row in table.rows.values() if isinstance(row, Experiment)]
    if any(evaluation.stop_on_collapse for evaluation in evaluations):
        ways.append("if a severe sign of docs/health.md ended it")
    definition = f"A run collapsed {', '.join([*ways, 'or if it diverged' if ways else 'if it diverged'])}."
    if table.collapse is None:
        return f"{definition} It has no scores then."
    return f"{definition} Its scores are not averaged; its rate is a column. Survival is estimated by Kaplan and Meier."


def analysis_text(table: Table) -> str:
    """Returns the families of tests and their power."""
    parts = [comparisons_text(table) if table.baselines else "", factors_text(table) if table.factors else ""]
    tests = "\n\n".join(part for part in parts if part) or "No row is compared with another: no test."
    return f"{tests}\n\n{ranking_text(table)}" if table.ranked else tests


def comparisons_text(table: Table) -> str:
    """Returns the families of comparisons with baselines, and their power.

    Raises:
        ValueError: the rows have more seeds than an exact test can count.
    """
    runs, (main, *secondary) = len(table.seeds), families(table)
    if math.comb(2 * runs, runs) > MOST_GROUPINGS:
        most = max(count for count in range(runs) if math.comb(2 * count, count) <= MOST_GROUPINGS)
        raise ValueError(f"A table with baselines needs at most {most} seeds, for its exact tests; got {runs}.")
    scores = ", ".join(heading(table, score) for score in tested_scores(table))
    parts = [
        f"Tests: unpaired exact permutation tests of differences of means, two-sided, of {scores}, for "
        f"{_compared(main)}. Where a run of either row has no value, both are ranked with such runs worst, and the "
        f"ranks are tested. The family, corrected by Holm: {len(main)}. {power_text(table, runs, len(main))}"
    ]
    parts += [
        f"A secondary family is corrected on its own: {_compared(family)}. Its size: {len(family)}. "
        f"{power_text(table, runs, len(family))}"
        for family in secondary
    ]
    return " ".join(parts)


def _compared(family: list[tuple[str, str, str]]) -> str:
    return ", ".join(dict.fromkeys(f"{row} against {baseline}" for row, baseline, _ in family))


def power_text(table: Table, runs: int, tests: int, least: float = 0.0) -> str:
    """Returns what so many runs against as many can show in a family of tests.

    Args:
        table: the table.
        runs: number of runs in each of two groups.
        tests: size of the family.
        least: a bound on p where not all groupings are counted.
    """
    level, least = LEVEL / tests, max(least, smallest_p(runs, runs))
    parts = [f"The least p must be at most {level:.2g}. With {runs} runs against {runs}, no p is below {least:.2g}."]
    effect, count = smallest_effect(runs, runs, level), smallest_count(runs, runs, level)
    if effect is None:
        parts.append("So no difference can survive the correction: this table can show none.")
    elif tested_scores(table) != (COLLAPSED,):
        parts.append(
            f"A difference of {effect:.1f} standard deviations passes that level in {POWER:.0%} of such experiments."
        )
    if COLLAPSED in tested_scores(table) and count is not None:
        parts.append(f"Of collapse it takes {count} of {runs} against none of {runs}.")
    return " ".join(parts)


def ranking_text(table: Table) -> str:
    """Returns how rows are ranked."""
    ways = "in all ways" if len(table.seeds) <= MOST_RUNS else f"{DRAWS:,} times at random, with seed 0"
    return (
        f"Ranks: by the mean of {heading(table, table.ranked)}. The runs of each row are drawn anew with "
        f"replacement, {ways}. The interval holds 95% of a row's ranks. If a run has no value, the means are "
        f"those of ranks of all runs, with such runs worst."
    )


def factors_text(table: Table) -> str:
    """Returns the factors, and the family of the tests of their main effects.

    Raises:
        ValueError: the rows are not a factorial design of the factors.
    """
    levels_of(table)
    listed = "\n".join(f"- {factor}: high in {', '.join(high)}" for factor, high in table.factors.items())
    scores = ", ".join(heading(table, score) for score in tested_scores(table))
    tests, half = len(table.factors) * len(tested_scores(table)), len(table.rows) * len(table.seeds) // 2
    return (
        f"Factors:\n{listed}\n\nTests: permutation tests of the main effect of each factor, two-sided, of {scores}. "
        f"Where a run has no value, all are ranked with such runs worst, and the ranks are tested. The family, "
        f"corrected by Holm: {tests}. Interactions are stated and not tested. If no other factor has an effect: "
        f"{power_text(table, half, tests, 1 / (1 + DRAWS_OF_FACTORS))}"
    )
