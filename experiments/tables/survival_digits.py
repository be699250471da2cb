"""Does SAGAN's recipe keep its discriminator, and which part of it decides that? On digits, at width 8.

Asked before the runs. SAGAN's paper says that two learning rates make one update of D enough. StudioGAN trains SAGAN on
CIFAR-10 with five updates, equal rates and beta1 0.5. Which of the three keeps D alive? All eight combinations run with
eight seeds: 64 runs. Everything else is that of `digits_32`: its networks, batch, beta2 0.9 and G's rate of 5e-4. D's
rate is 5e-4 (equal rates) or 2e-3 (1:4 rates).

The outcome is the number of steps until a run is lost: the first severe sign of docs/health.md ends it, or the norm of
G's gradient ends below 0.2. The reasons stand in `survival_digits_pilot`. The pilot runs first. Unless it loses at
least 2 of its 8 runs, this table is not run. It lost none, so this table was not run.

The analysis: Kaplan and Meier's estimate with intervals for each row, and the main effect of each of the three on the
share of lost runs, which are three tests with Holm's correction. Interactions are stated and not tested. So is the
paper's claim, which is about the rows with one update alone: their intervals show it.

The predictions. The paper's: with one update, fewer runs are lost with 1:4 rates than with equal ones. Ours, from one
lost run and one good run at full width: fewer with five updates than with one; and fewer with beta1 0 than with 0.5,
since momentum keeps a player going where the other has turned. One that fails is reported like one that holds.

No settings were searched, for any row. `classifier_accuracy` is the share of 1,000 images that a small classifier of
digits calls what was asked for.

    python experiments/run_table.py survival_digits --out runs/survival_digits
"""

from itertools import product

from comparisons.lost_discriminator import CURVES, LOST, RATIOS, SEEDS, digits, named, recipe
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 64 runs, of which those with five updates take most of the time. How long was not measured."""
    experiment = load_experiment("digits_32")
    assert isinstance(experiment, Experiment)
    base = digits(experiment, "survival_digits")
    cells = {named(*cell): cell for cell in product((1, 5), RATIOS, (0.0, 0.5))}
    return Table(
        rows={row: recipe(base, rates, updates, beta1) for row, (updates, rates, beta1) in cells.items()},
        seeds=SEEDS,
        scores={"classifier_accuracy": "called what was asked for"},
        baselines={},
        curves=CURVES,
        protocols=("classifier_accuracy",),
        tested=("collapsed",),
        collapse=LOST,
        factors={
            "five updates": tuple(row for row, (updates, _, _) in cells.items() if updates == 5),
            "1:4 rates": tuple(row for row, (_, rates, _) in cells.items() if rates == "1:4 rates"),
            "beta1 0.5": tuple(row for row, (_, _, beta1) in cells.items() if beta1 == 0.5),
        },
    )
