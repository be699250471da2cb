"""The table of the long-range benchmark: the results of our layers, and one more layer below them."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from sagan_jax.evaluation.permutation import MOST_GROUPINGS, difference_p
from sagan_jax.runs.long_range import VERSION, Trial
from sagan_jax.runtime.files import read_json

RECORDED = Path(__file__).with_name(f"{VERSION}.json")
"""The results of the layers of this package. `experiments/benchmarks/record_long_range.py` writes this file."""
BASELINE = "none"


def recorded_rows() -> dict[str, list[Trial]]:
    """Returns the trials of the layers of this package, one per seed, in the order of the table."""
    rows = read_json(RECORDED)["rows"]
    return {row: [Trial(**trial) for trial in trials] for row, trials in rows.items()}


def beside_ours(attention: str, trials: Sequence[Trial], *, tested: bool = True) -> str:
    """Returns the table, in Markdown: our layers, and below them one more.

    Args:
        attention: the name of the layer.
        trials: one for each seed.
        tested: whether the layer is tested. Early looks raise the rate of false findings, so test after the last seed.
    """
    rows = {**recorded_rows(), f"**{attention}**": list(trials)}
    heads = ["layer", "beyond reach", "0.9 at step", "follow the rule", "beyond chance", "same hue", "by chance"]
    heads += ["two clear blobs", "collapsed", "seeds", "p beyond chance against none, not corrected"]
    baseline = rows.get(BASELINE, [])
    untested = {BASELINE} if tested else {BASELINE, f"**{attention}**"}
    lines = [[row, *_cells(found, [] if row in untested else baseline)] for row, found in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *lines])


def _cells(trials: Sequence[Trial], baseline: Sequence[Trial]) -> list[str]:
    def scores(name: str) -> list[float]:
        return [trial.scores[name] for trial in trials if trial.scores and name in trial.scores]

    def counted(values: Sequence[float]) -> str:  # adds the number of seeds, if some have no value
        return spread(values) + (f" ({len(values)})" if 0 < len(values) < len(trials) else "")

    gans = [trial for trial in trials if trial.collapsed is not None]
    beyond = [trial.beyond_reach for trial in trials if trial.beyond_reach is not None]
    collapsed = f"{sum(bool(trial.collapsed) for trial in gans)} of {len(gans)}" if gans else "–"
    diverged = sum(trial.probe_diverged for trial in trials)
    reached = counted(beyond) + (f", {diverged} diverged" if diverged else "")
    columns = [counted(scores(name)) for name in ("follows_rule", "beyond_chance", "hue", "hue_chance", "parts")]
    learned = [str(trial.learned_at or "never") for trial in trials if trial.beyond_reach is not None]
    return [reached, ", ".join(learned) or "–", *columns, collapsed, str(len(trials)), _p(gans, baseline)]


def _p(gans: Sequence[Trial], baseline: Sequence[Trial]) -> str:
    """Returns p of an exact permutation test of the share beyond chance, not corrected; collapsed runs rank worst."""
    one, other = (
        [trial.scores["beyond_chance"] if trial.scores else None for trial in group if trial.collapsed is not None]
        for group in (gans, baseline)
    )
    if min(len(one), len(other)) < 2 or math.comb(len(one) + len(other), len(one)) > MOST_GROUPINGS:
        return "–"
    return f"{difference_p(one, other, lower_is_better=False):.2g}"


def spread(values: Sequence[float]) -> str:
    """Returns the mean over seeds, and the range.

    >>> spread([0.25, 0.75]), spread([0.5]), spread([])
    ('0.500 (0.250 to 0.750)', '0.500', '–')
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"
