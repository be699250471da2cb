"""Does the worst cell of `survival_digits` lose its discriminator often enough to ask what saves it?

Asked before the runs. SAGAN's paper says that two learning rates make one update of D enough. On CIFAR-10 at width 64 a
run with one update and two rates lost its D within 5,000 steps, and StudioGAN's recipe trained well: five updates,
equal rates, beta1 0.5. `survival_digits` asks which of the three differences matters. It can tell nothing if no run is
lost. So the worst cell runs alone first.

The rule: unless at least 2 of the 8 runs are lost, stop here and report. Then `survival_digits` is not run.

The worst cell has one update of D, and a D whose rate is four times G's. The lost run had one update too, and a D with
twice G's rate. Its beta1 is 0.5. The lost run had 0, but here 0 is `digits_32` itself, which drew digits in all six
runs that docs/precision.md reports. And momentum keeps a player going where the other has already turned. In a game of
two that is a known cause of instability (Gidel et al., "Negative momentum for improved game dynamics", 2019). Where
this reasoning fails, the pilot may stop a question that another cell would have answered. The report must say so.

A run is lost at the first severe sign of docs/health.md, which ends it (`stop_on_collapse`): the logits of real and
generated images are inseparable, G's gradient is below 2% of its largest median, or the variety of the images is gone.
The limits were set before this question, on two runs at width 64. One had lost its D and raised the first of these
signs as soon as there was a window, at step 3,000. The other trained and raised no severe one. Logits are judged over
500 steps, because in the lost run their difference in one batch is noise around 0. So no loss is told before step 500.
Images are drawn every 500 steps, since a G that has hardly begun has little variety too.

A run that was not ended is lost too if the norm of G's gradient ends below 0.2: a D that has become even passes no
gradient on to G. In the run that trained this norm is 19 to 54. In the lost run it is 4 at step 500, below 0.09 for
good from step 3,500, and below 0.04 from step 5,000. A look at the first 150 steps of `digits_32` showed 4 to 10 after
step 50. So 0.2 is 2 to 5% of what is healthy here.

No settings were searched, for any row. The seeds, 100 to 107, are not those of `survival_digits`. So a cell that is
chosen here for its losses is not counted by them there. `classifier_accuracy` is the share of 1,000 images that a small
classifier of digits calls what was asked for. The classifier is trained before the first score, and is then kept.

    python experiments/run_table.py survival_digits_pilot --out runs/survival_digits_pilot
"""

from comparisons.lost_discriminator import CURVES, LOST, digits, named, recipe
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment

WORST = (1, "1:4 rates", 0.5)
"""Updates of D, rates and beta1."""


def table() -> Table:
    """Returns 8 runs of 4 minutes on a free CPU core, or up to 8 minutes on one of two busy cores."""
    experiment = load_experiment("digits_32")
    assert isinstance(experiment, Experiment)
    updates, rates, beta1 = WORST
    worst = recipe(digits(experiment, "survival_digits_pilot"), rates, updates, beta1)
    return Table(
        rows={named(updates, rates, beta1): worst},
        seeds=tuple(range(100, 108)),
        scores={"classifier_accuracy": "called what was asked for"},
        baselines={},
        curves=CURVES,
        protocols=("classifier_accuracy",),
        tested=("collapsed",),
        collapse=LOST,
    )
