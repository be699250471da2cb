"""Shared parts of the tables that ask whether the loss of R3GAN is a better baseline."""

from dataclasses import replace

from sagan_jax.config import Collapse, Experiment, Recording, Search, Table, Training

HINGE = "hinge, spectral norm"
R3GAN_RATE = 2e-4
"""The learning rate of both networks in R3GAN."""


def search(training: Training, total_steps: int) -> Search:
    """Returns the search among three pairs of rates: R3GAN's, an experiment's own, and its G's rate for both networks.

    Args:
        training: of the experiment.
        total_steps: of each run of the search; 0 for as many as the experiment has.
    """
    of_g, of_d = training.generator_learning_rate, training.discriminator_learning_rate
    return Search(
        settings={
            f"rates {generator:g} and {discriminator:g}": {
                "generator_learning_rate": generator,
                "discriminator_learning_rate": discriminator,
            }
            for generator, discriminator in ((R3GAN_RATE, R3GAN_RATE), (of_g, of_g), (of_g, of_d))
        },
        seeds=(100,),
        by="fd5k_train_lite0",
        total_steps=total_steps,
    )


def rows(experiment: Experiment, strength: float) -> dict[str, Experiment]:
    """Returns the rows: the loss of an experiment, and R3GAN's loss with and without spectral norm in both networks.

    Args:
        experiment: an experiment with the hinge loss, and with spectral norm in both networks.
        strength: of both gradient penalties.
    """
    recording = Recording(log_every_steps=50, sample_every_steps=250, save_every_steps=500, keep_checkpoints=1)
    experiment = replace(experiment, recording=recording)
    # Set explicitly, so that a GPU, which trains in TF32 by default, answers the same question.
    experiment = replace(experiment, training=replace(experiment.training, precision="float32"))
    training = replace(experiment.training, loss="relativistic", r1=strength, r2=strength)
    relativistic = replace(experiment, training=training)
    return {
        HINGE: experiment,
        "R3GAN's loss, spectral norm": relativistic,
        "R3GAN's loss, no spectral norm": replace(
            relativistic, networks=replace(experiment.networks, spectral_norm="none")
        ),
    }


def table_of(made: dict[str, Experiment], seeds: tuple[int, ...], search_steps: int = 0) -> Table:
    """Returns the table of some rows.

    Args:
        made: the rows, as `rows` returns them.
        seeds: of each row.
        search_steps: of each run of the search; 0 for as many as the rows have.
    """
    scores = {"fd5k_train_lite0": "FD, lite0", "kd5k_train_lite0": "KD, lite0"}
    return Table(
        rows=made,
        seeds=seeds,
        scores=scores,
        baselines={row: HINGE for row in made if row != HINGE},
        curves=("health/diversity", "discriminator/loss"),
        protocols=tuple(scores),
        tested=("fd5k_train_lite0", "collapsed"),
        lower_is_better=tuple(scores),
        collapse=Collapse("health/diversity", below=0.1),
        search=search(made[HINGE].training, search_steps),
    )
