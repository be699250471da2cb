"""What the tables have in common that ask whether a recipe keeps its discriminator."""

from dataclasses import replace

from sagan_jax.config import Collapse, Experiment, Recording

LOST = Collapse("generator/gradient_norm", below=0.2)
"""The sign of a lost D: it has become even, so G's gradient is gone. Why 0.2 stands in `survival_digits_pilot`."""

RATIOS = {"equal rates": 1, "1:4 rates": 4}
"""D's learning rate in units of G's, which is the same in all rows."""

CURVES = (LOST.curve, "discriminator/loss", "health/diversity")
"""What is drawn and kept: the sign, D's loss, which is 2 for a D that says nothing, and the variety of the images."""


def recipe(experiment: Experiment, rates: str, updates: int = 1, beta1: float = 0.0) -> Experiment:
    """Returns an experiment with other rates, other updates of D before each of G, and another beta1 of Adam.

    Args:
        experiment: its G keeps its rate.
        rates: a name in `RATIOS`.
        updates: of D.
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
    """Returns `digits_32` as the tables of digits train it: 1,500 steps, and logged often enough to say when.

    Args:
        experiment: `digits_32`.
        name: of the table.
    """
    recording = Recording(log_every_steps=50, sample_every_steps=100, save_every_steps=500, keep_checkpoints=1)
    # Named, so that the table is the same question on a GPU, which trains in TF32 otherwise.
    training = replace(experiment.training, total_steps=1500, precision="float32")
    return replace(experiment, name=name, recording=recording, training=training)
