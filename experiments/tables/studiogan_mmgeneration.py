"""Which of the differences between StudioGAN's SAGAN and mmgeneration's matter, in small networks on CIFAR-10?

Asked before the runs. On ImageNet, StudioGAN's SAGAN has FID 51.82. Of mmgeneration's two runs with as many steps, the
one that keeps StudioGAN's settings has 34.78, and the other one 12.83. The latter differs in many settings at once.
Four of these differences are separated here; Adam's epsilon, which its file does not list as a change, joins that of
the norms. At the lower level a factor is mmgeneration's, at the higher one StudioGAN's:

- normalised gains: the class gains are maps that are never normalised (`free_map`), or normalised ones (`map`)
- orthogonal: the kernels start by Xavier's rule, or orthogonal
- large epsilons: 1e-5 in the norms and 1e-8 in Adam, or 1e-4 and 1e-6
- flips: none, or half of the real images are mirrored

The design is a half of all combinations, 2^(4-1): eight rows, in which the product of all levels is positive. A row
says which factors are StudioGAN's. Each main effect compares 12 runs with 12. In such a half every two-factor
interaction is the same contrast as that of the other two factors. The table prints these alias pairs. A main effect is
the same contrast as the interaction of the other three factors, which is assumed to be small.

Analysis. Main effects of `fd5k_train_lite0`, a distance, so lower is better: 4 tests, corrected by Holm. The share of
collapsed runs is a column. In a half design no two rows differ in one factor alone. So the driver permutes the
residuals of the other main effects, which is approximate (`experiments/comparisons/factorial.py`). No row is compared
with another: three runs against three cannot show a difference. A run collapsed as in `r3gan_cifar10`: at the end, 200
images of the moving average vary less than a tenth as much as real ones of a class.

All else is the same in all rows, that of `cifar10_32` at width 8 and 2,000 steps: two rates, epsilon 1e-12 of spectral
norm, and the score of the moving average of G with stored statistics. So the other changes of mmgeneration are not
tested: its moving average, its epsilon of spectral norm, and moments of each device alone. There are 10 classes, and
the norms of G have 32 channels, where the bound of a normalised gain is 0.18. So a large effect of the normalised gains
would speak against the hypothesis of `norm_budget`, which asks for many classes.

    python experiments/run_table.py studiogan_mmgeneration --jobs 2 --pin --out runs/studiogan_mmgeneration

The floor is what 5,000 real test images score: 4.02 (`docs/results.md`, with its command). Afterwards the first run of
each row is scored with raw weights, and with statistics of the batch and standing ones:

    sagan-jax evaluate --workdir RUN --protocol fd5k_train_lite0_raw fd5k_train_lite0_batch fd5k_train_lite0_standing

Costs by `r3gan_cifar10`, whose runs with the hinge loss are as large: 21 minutes a run, two at a time on two CPU cores.
That is 4.2 hours for 24 runs, once 18 minutes for real images, and the three other scores of 8 runs. Nothing is tested
before all are made.

Result, written after the runs: no main effect has a p below 0.05 after Holm's correction. The discriminator of one run
failed, which the rule for collapse does not count. In all 8 first runs, raw weights score best (`docs/norm_budget.md`).
"""

from dataclasses import replace
from itertools import product
from typing import Any

from sagan_jax.config import Collapse, Experiment, Recording, Table
from sagan_jax.runs.experiments import load_experiment

NETWORKS: dict[str, dict[str, Any]] = {
    "normalised gains": {"conditional_gain": "map"},
    "orthogonal": {"initializer": "orthogonal"},
    "large epsilons": {"norm_epsilon": 1e-4},
    "flips": {},
}
TRAINING: dict[str, dict[str, Any]] = {"large epsilons": {"adam_epsilon": 1e-6}, "flips": {"flips": True}}
"""What StudioGAN's level of each factor sets, in the networks and in the training."""
MMGENERATION, STUDIOGAN = "mmgeneration", "StudioGAN"


def table() -> Table:
    """Returns 24 runs of about 21 minutes, two at a time on two CPU cores."""
    rows = {}
    for levels in product((False, True), repeat=len(NETWORKS)):
        if sum(levels) % 2 == 0:  # the half in which the product of all levels is positive
            high = [factor for factor, level in zip(NETWORKS, levels, strict=True) if level]
            rows[name_of(high)] = experiment(high)
    scores = {"fd5k_train_lite0": "FD, lite0", "kd5k_train_lite0": "KD, lite0"}
    return Table(
        rows=rows,
        seeds=(0, 1, 2),
        scores=scores,
        baselines={},
        curves=("health/diversity", "discriminator/loss"),
        protocols=tuple(scores),
        tested=("fd5k_train_lite0",),
        lower_is_better=tuple(scores),
        collapse=Collapse("health/diversity", below=0.1),
        factors={
            factor: tuple(row for row in rows if row == STUDIOGAN or factor in row.split(" and "))
            for factor in NETWORKS
        },
    )


def name_of(high: list[str]) -> str:
    """Returns the name of the row that has StudioGAN's level in some factors."""
    return {0: MMGENERATION, len(NETWORKS): STUDIOGAN}.get(len(high), " and ".join(high))


def experiment(high: list[str]) -> Experiment:
    """Returns a run with StudioGAN's level in some factors and mmgeneration's in the others."""
    cifar10 = load_experiment("cifar10_32")
    assert isinstance(cifar10, Experiment)
    networks: dict[str, Any] = {"base_channels": 8, "conditional_gain": "free_map"}
    # Named, so that the table is the same question on a GPU, which trains in TF32 otherwise.
    training: dict[str, Any] = {"total_steps": 2000, "precision": "float32"}
    for factor in high:
        networks |= NETWORKS[factor]
        training |= TRAINING.get(factor, {})
    return replace(
        cifar10,
        name="studiogan_mmgeneration",
        networks=replace(cifar10.networks, **networks),
        training=replace(cifar10.training, **training),
        recording=Recording(log_every_steps=50, sample_every_steps=250, save_every_steps=500, keep_checkpoints=1),
    )
