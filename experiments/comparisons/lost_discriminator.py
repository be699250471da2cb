"""Shared parts of the tables that ask whether the discriminator survives training."""

from collections.abc import Mapping
from dataclasses import replace

from sagan_jax.config import Collapse, Evaluation, Experiment, Recording, Table

LOST = Collapse("generator/gradient_norm", below=0.2)
"""A lost D in a run that no sign of docs/health.md ended: G's gradient vanished. For reasons, see
`survival_digits_pilot`."""

ONE_IMAGE = Collapse("health/diversity", below=0.1)
"""A G with one image per class: two images differ less than a tenth as much as real ones, as in `variety_gone`."""

ENDED = Evaluation(stop_on_collapse=True)
"""Ends a run at the first severe sign of docs/health.md. The run then counts as lost."""

SEEDS = (0, 1, 2, 3, 4, 5, 6, 7)

RATIOS = {"equal rates": 1, "1:4 rates": 4}
"""D's learning rate in units of G's, which is the same in all rows."""

CURVES = (LOST.curve, "discriminator/loss", "health/diversity")
"""The curves that are drawn and kept: G's gradient norm, D's loss (2 for an uninformative D), and image variety."""


def recipe(experiment: Experiment, rates: str, updates: int = 1, beta1: float = 0.0) -> Experiment:
    """Returns an experiment with other learning rates, number of updates of D per update of G, and beta1 of Adam.

    Args:
        experiment: the experiment; the rate of its G stays.
        rates: a name in `RATIOS`.
        updates: number of updates of D.
        beta1: for both networks.
    """
    training = replace(
        experiment.training,
        discriminator_learning_rate=RATIOS[rates] * experiment.training.generator_learning_rate,
        discriminator_steps=updates,
        adam_beta1=beta1,
    )
    return replace(experiment, training=training)


def named(updates: int, rates: str, beta1: float | None = None) -> str:
    """Returns the name of a row.

    >>> named(1, "equal rates", 0.5), named(5, "1:4 rates")
    ('1 update, equal rates, beta1 0.5', '5 updates, 1:4 rates')
    """
    betas = "" if beta1 is None else f", beta1 {beta1:g}"
    return f"{updates} update{'s' * (updates > 1)}, {rates}{betas}"


def digits(experiment: Experiment, name: str) -> Experiment:
    """Returns `digits_32` as the tables of digits train it: 1,500 steps, ended by the first severe sign.

    Args:
        experiment: `digits_32`.
        name: of the table.
    """
    recording = Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500, keep_checkpoints=1)
    # Set explicitly, so that a GPU, which trains in TF32 by default, answers the same question.
    training = replace(experiment.training, total_steps=1500, precision="float32")
    return replace(experiment, name=name, recording=recording, training=training, evaluation=ENDED)


def cifar10(experiment: Experiment, name: str) -> Experiment:
    """Returns `cifar10_32` as the tables for a GPU train it: width 64, 5,000 steps, ended by the first severe sign.

    Args:
        experiment: `cifar10_32`. G's rate becomes that of StudioGAN.
        name: of the table.
    """
    recording = Recording(log_every_steps=100, sample_every_steps=500, save_every_steps=1000, keep_checkpoints=1)
    training = replace(experiment.training, total_steps=5000, generator_learning_rate=2e-4, precision="tensorfloat32")
    networks = replace(experiment.networks, base_channels=64)
    return replace(experiment, name=name, networks=networks, recording=recording, training=training, evaluation=ENDED)


def figure3(experiment: Experiment) -> dict[str, Experiment]:
    """Returns the rows of the paper's Figure 3, without attention and with one update of D. No sign ends these runs.

    Args:
        experiment: as `digits` or `cifar10` returns it.
    """
    networks = replace(experiment.networks, generator_attention_resolutions=(), discriminator_attention_resolutions=())
    recording = replace(experiment.recording, sample_every_steps=100)  # diversity is measured when images are drawn
    both = replace(experiment, networks=networks, recording=recording, evaluation=Evaluation())
    of_d = replace(both, networks=replace(networks, spectral_norm="discriminator"))
    return {
        "spectral norm in D, equal rates": recipe(of_d, "equal rates"),
        "in both, equal rates": recipe(both, "equal rates"),
        "in both, 1:4 rates": recipe(both, "1:4 rates"),
    }


def figure3_table(rows: Mapping[str, Experiment], protocol: str, heading: str) -> Table:
    """Returns the table of the rows of Figure 3, each compared with the one before it: two rates in a second family.

    Args:
        rows: as `figure3` returns them.
        protocol: the score.
        heading: of its column.
    """
    names = list(rows)
    return Table(
        rows=rows,
        seeds=SEEDS,
        scores={protocol: heading},
        baselines=dict(zip(names[1:], names[:-1], strict=True)),
        curves=CURVES,
        protocols=(protocol,),
        tested=("collapsed",),
        secondary=(names[2],),
        collapse=ONE_IMAGE,
    )
