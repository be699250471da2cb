"""From a config to objects: the Python that the commands are made of."""

from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from sagan_jax.cli.checks import (
    require_experiment,
)
from sagan_jax.cli.families import build_networks
from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.data import ImageSource, open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.attention import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional import HINGE, NON_SATURATING, WASSERSTEIN
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.training.adversarial import (
    AdversarialState,
    AdversarialTask,
    initial_state,
)
from sagan_jax.training.optimizers import two_time_scale
from sagan_jax.views.figures import class_rows

_LOSSES = {"hinge": HINGE, "non_saturating": NON_SATURATING, "wasserstein": WASSERSTEIN}


def build_adversarial_task(experiment: Experiment) -> AdversarialTask:
    """Returns the fixed part of the training that a config describes."""
    networks, training = experiment.networks, experiment.training
    generator, discriminator = build_networks(networks)
    return AdversarialTask(
        generator,
        discriminator,
        two_time_scale(
            generator_learning_rate=training.generator_learning_rate,
            discriminator_learning_rate=training.discriminator_learning_rate,
            beta1=training.adam_beta1,
            beta2=training.adam_beta2,
            epsilon=training.adam_epsilon,
        ),
        latent_size=networks.latent_size,
        num_classes=networks.num_classes,
        loss=_LOSSES[training.loss],
        spectral_norm=networks.spectral_norm,
        spectral_evaluation=networks.spectral_evaluation,
        spectral_epsilon=networks.spectral_epsilon,
        differentiate_vectors=training.differentiate_spectral_vectors,
        orthogonal_strength=training.orthogonal_strength,
        accumulation_steps=training.accumulation_steps,
        augmentation=training.augmentation,
        average_decay=training.ema_decay,
        average_start_step=training.ema_start_step,
        global_moments=training.moments == "global",
    )


def open_images(experiment: AnyExperiment, held_out: bool = False) -> ImageSource:
    """Returns the images to train on, or those kept from it, whatever their labels."""
    data, networks = experiment.data, experiment.networks
    wanted_source, flag = (data.held_out, "--held-out") if held_out else (data.source, "--source")
    if not wanted_source:
        raise InvalidInputError(
            f"{experiment.name} needs images: give {flag} a folder or zip of class folders, .parquet or .npz."
        )
    return open_source(
        wanted_source,
        resolution=networks.resolution,
        image_channels=networks.image_channels,
        skip_unreadable=data.skip_unreadable,
        cache=data.cache,
    )


def open_data(experiment: Experiment, held_out: bool = False) -> ImageSource:
    """Returns the images to train on, or those kept from it; their classes agree with the networks."""
    source, networks = open_images(experiment, held_out), experiment.networks
    wanted_source = experiment.data.held_out if held_out else experiment.data.source
    found, wanted = source.num_classes, networks.num_classes
    if wanted and not found:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {wanted_source!r} has no labels: put the images "
            f"into class folders, or train with --num-classes 0."
        )
    if wanted and found != wanted:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {wanted_source!r} has {found} classes: "
            f"give --num-classes {found}."
        )
    return source


CheckpointName = Literal["newest", "best"]
ABSENT = "absent"
"""What a checkpoint notes of a discriminator that is none, as of weights that came without one."""


def load_run(workdir: str | Path, *, checkpoint: CheckpointName = "newest", raw: bool = False) -> TrainedGenerator:
    """Returns the generator of a checkpoint of a run, its moving average where the run keeps one.

    Args:
        workdir: of a run that has saved.
        checkpoint: the newest one, or the one with the best score of a run that was scored while it trained.
        raw: the weights as trained, even where there is a moving average.

    Raises:
        InvalidInputError: when there is no run, or no whole checkpoint in it.
    """
    game, state, _ = load_state(Path(workdir), checkpoint)
    return trained_generator(game, state, raw)


def load_networks(
    workdir: str | Path, *, checkpoint: CheckpointName = "newest"
) -> tuple[TrainedGenerator, TrainedDiscriminator | None]:
    """Returns the generator of a checkpoint of a run, and its discriminator; None where weights came without one.

    Args:
        workdir: of a run that has saved.
        checkpoint: the newest one, or the one with the best score of a run that was scored while it trained.

    Raises:
        InvalidInputError: when there is no run, or no whole checkpoint in it.
    """
    game, state, meta = load_state(Path(workdir), checkpoint)
    alone = meta.get("discriminator") == ABSENT
    return trained_generator(game, state), None if alone else trained_discriminator(game, state)


def trained_discriminator(game: AdversarialTask, state: AdversarialState) -> TrainedDiscriminator:
    """Returns D as it looks at images, spectrally normalised once.

    Args:
        game: of the run.
        state: on any device.
    """
    state = jax.device_get(state)
    network = state.discriminator
    variables = {"params": game.evaluation_params(network.params, network.spectral), "batch_stats": network.batch_stats}
    return TrainedDiscriminator(game.discriminator, variables, game.num_classes, int(state.step))


def load_state(
    workdir: Path, checkpoint: CheckpointName = "newest"
) -> tuple[AdversarialTask, AdversarialState, dict[str, Any]]:
    """Returns what a run plays, its state at a checkpoint, and what was noted with it.

    Raises:
        InvalidInputError: when there is no run, or no whole checkpoint in it.
    """
    experiment = require_experiment(workdir)
    networks = experiment.networks
    game = build_adversarial_task(experiment)
    shape = (networks.resolution, networks.resolution, networks.image_channels)
    template = jax.eval_shape(lambda: initial_state(game, experiment.training.seed, shape))
    with Checkpoints(workdir / ("best" if checkpoint == "best" else "checkpoints")) as checkpoints:
        restored = checkpoints.restore(template)
    if restored is None:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} has no best checkpoint: it was not scored while it trained (--protocols)."
            if checkpoint == "best"
            else f"The run in {str(workdir)!r} has no checkpoint yet: it was stopped before the first save."
        )
    return game, restored[1], restored[2]


def trained_generator(game: AdversarialTask, state: AdversarialState, raw: bool = False) -> TrainedGenerator:
    """Returns G as it samples, spectrally normalised once; the moving average where there is one.

    Args:
        game: of the run.
        state: on any device.
        raw: the weights as trained, even where there is a moving average.
    """
    state = jax.device_get(state)
    params, statistics = state.generator.params, state.generator.batch_stats
    averaged = bool(state.average) and not raw
    if averaged:
        params, statistics = state.average["params"], state.average["batch_stats"]
    return TrainedGenerator(
        game.generator,
        {"params": game.evaluation_params(params, state.generator.spectral), "batch_stats": statistics},
        game.latent_size,
        game.num_classes,
        int(state.step),
        averaged,
    )


def sample_grid(generator: TrainedGenerator, *, columns: int = 10) -> np.ndarray:
    """Returns a picture of samples from fixed latents: a row for each of the first ten classes, or ten rows."""
    rows = min(10, generator.num_classes) if generator.num_classes else 10
    labels = range(rows) if generator.num_classes else None
    return class_rows(*generator.generate(rows * columns, labels=labels), columns=columns)
