"""Does the first baseline of Figure 3 collapse often enough on digits to ask what saves it?

Asked before the runs. The baseline is the first row of `survival_figure3`: spectral norm in D alone, at equal rates.
The rule: unless at least 2 of its 8 runs collapse, stop here and report. Then `survival_figure3` is not run.

The sign of a collapse is that of `survival_figure3`. No settings were searched. The seeds, 100 to 107, are not those of
`survival_figure3`. So a row that is chosen here for its collapses is not counted by them there.

    python experiments/run_table.py survival_figure3_pilot --out runs/figure3_pilot
"""

from dataclasses import replace

from comparisons.lost_discriminator import digits, figure3, figure3_table
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 8 runs, each of about 5 minutes on one core."""
    experiment = load_experiment("digits_32")
    assert isinstance(experiment, Experiment)
    whole = figure3_table(
        figure3(digits(experiment, "survival_figure3_pilot")), "classifier_accuracy", "called what was asked for"
    )
    first = next(iter(whole.rows))
    return replace(whole, rows={first: whole.rows[first]}, seeds=tuple(range(100, 108)), baselines={}, secondary=())
