"""Do spectral norm in G and two learning rates keep a small SAGAN from collapsing? Figure 3 of the paper, on digits.

Asked before the runs. The figure compares three baselines without attention, each with one update of D: spectral norm
in D alone at equal rates, in both networks at equal rates, and in both with two rates. The paper says that the first
collapses very early, that the second gets worse after many steps, and that the third does neither.

Networks, batch and steps are those of `survival_digits`, without attention: width 8, 1,500 steps, G's rate 5e-4, D's
rate 5e-4 or 2e-3, beta1 0. Eight seeds a row. The paper speaks of collapsed images, so the sign is their variety alone:
`health/diversity`, measured every 100 steps, ends below 0.1. This is the limit of `variety_gone` in docs/health.md. No
sign ends a run. G's gradient and D's loss are drawn beside it.

The analysis: Kaplan and Meier's estimate with intervals for each row, and a test of the share of collapsed runs: does
spectral norm in both networks save runs that it does not save in D alone? The paper predicts it. The comparison of two
rates with equal rates is secondary: the decline of the second row came after 160,000 steps of batch 256, and these runs
are too short to show it. No settings were searched, for any row.

The pilot is `survival_figure3_pilot`: the first row, with other seeds. Unless at least 2 of its 8 runs collapse, there
is next to nothing that the other rows could save, and this table is not run. With 2 to 4 collapsed runs in the first
row, the test cannot reach its level: it takes 5 of 8 against none of 8. The pilot lost none, so this table was not
run: see docs/when_training_fails.md.

    python experiments/run_table.py survival_figure3_pilot --out runs/figure3_pilot
    python experiments/run_table.py survival_figure3 --out runs/figure3
"""

from comparisons.lost_discriminator import digits, figure3, figure3_table
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 24 runs, each of about 5 minutes on one core."""
    experiment = load_experiment("digits_32")
    assert isinstance(experiment, Experiment)
    rows = figure3(digits(experiment, "survival_figure3"))
    return figure3_table(rows, "classifier_accuracy", "called what was asked for")
