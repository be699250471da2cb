"""Builds the objects that a config describes: tasks, trained networks and image sources."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import optax

from sagan_jax import functional
from sagan_jax.config import AnyExperiment, CompletionExperiment, CompletionTraining, Experiment, LossName, Training
from sagan_jax.data import ImageSource, open_source
from sagan_jax.data.columns import ColumnNames
from sagan_jax.data.decoding import Decoding
from sagan_jax.data.layouts import is_split
from sagan_jax.data.sources import can_skip, fitting_columns
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.models.completion import WIDTHS, CompletionNetwork
from sagan_jax.models.perceptual import Lite0Activations
from sagan_jax.models.sagan import Discriminator
from sagan_jax.runs.attention_kinds import check_attention_layer, find_attention
from sagan_jax.runs.contracts import check_contracts
from sagan_jax.runs.families import build_networks
from sagan_jax.runs.own_objects import own_augmentation, own_loss, own_optimizers
from sagan_jax.training.adversarial import AdversarialState, AdversarialTask
from sagan_jax.training.completion import CompletionState, CompletionTask
from sagan_jax.training.optimizers import Optimizers, muon, scheduled_rate, two_time_scale
from sagan_jax.training.precision import Precision, default_precision

_SHOWN_CLASSES = 10  # class names in one line
_LOSSES: dict[Any, functional.AdversarialLoss] = {
    name: getattr(functional, name.upper()) for name in get_args(LossName)
}


def build_adversarial_task(experiment: Experiment) -> AdversarialTask:
    """Returns the task of the adversarial training that a config describes: networks, loss and optimisers.

    Raises:
        InvalidInputError: an object of a user is not found, or breaks its contract.
    """
    networks, training = experiment.networks, experiment.training
    generator, discriminator = build_networks(networks)
    task = AdversarialTask(
        generator,
        discriminator,
        _adam(training) if training.optimizer == "adam" else own_optimizers(training.optimizer),
        latent_size=networks.latent_size,
        num_classes=networks.num_classes,
        loss=_LOSSES.get(training.loss) or own_loss(training.loss),
        r1=training.r1,
        r2=training.r2,
        spectral_norm=networks.spectral_norm,
        spectral_evaluation=networks.spectral_evaluation,
        spectral_epsilon=networks.spectral_epsilon,
        differentiate_vectors=training.differentiate_spectral_vectors,
        orthogonal_strength=training.orthogonal_strength,
        accumulation_steps=training.accumulation_steps,
        shared_draws=training.shared_draws,
        augmentation=own_augmentation(training.augmentation),
        flips=training.flips,
        average_decay=training.ema_decay,
        average_start_step=training.ema_start_step,
        global_moments=training.moments == "global",
        precision=training_precision(experiment),
    )
    own_augmentations = [one for one in task.augmentation if not isinstance(one, str)]
    if networks.modules or training.loss not in _LOSSES or own_augmentations or training.optimizer != "adam":
        check_contracts(task, image_shape(experiment))
    return task


def build_completion_task(experiment: CompletionExperiment) -> CompletionTask:
    """Returns the task of the completion training that a config describes: networks, loss weights and optimisers.

    Raises:
        InvalidInputError: a layer of a user is not found, or breaks its contract.
    """
    networks, training = experiment.networks, experiment.training
    attention, places = str(networks.attention), networks.attention_resolutions
    check_attention_layer(attention, "--attention", {size: networks.base_channels * WIDTHS[size] for size in places})
    adversarial = training.adversarial_weight > 0
    return CompletionTask(
        CompletionNetwork(
            networks.resolution,
            networks.image_channels,
            networks.base_channels,
            networks.latent_size,
            networks.attention_resolutions,
            find_attention(attention),
            networks.blocks,
            networks.skips,
        ),
        _completion_optimizer(training),
        reconstruction=training.reconstruction,
        visible_weight=training.visible_weight,
        kl_weight=training.kl_weight,
        kl_warmup_steps=training.kl_warmup_steps,
        free_bits=training.free_bits,
        discriminator=Discriminator(
            networks.resolution, 0, networks.discriminator_base_channels, attention_resolutions=()
        )
        if adversarial
        else None,
        discriminator_optimizer=_critic_optimizer(training.discriminator_learning_rate) if adversarial else None,
        adversarial_weight=training.adversarial_weight,
        perceptual=Lite0Activations() if training.perceptual_weight > 0 else None,
        perceptual_weight=training.perceptual_weight,
        average_decay=training.ema_decay,
        precision=training_precision(experiment),
    )


def _adam(training: Training) -> Optimizers:
    """Returns the Adam optimisers with the learning rates of a config."""
    falls_until = training.total_steps if training.schedule == "linear" else 0
    return _scheduled_adam(
        training.generator_learning_rate,
        training.discriminator_learning_rate,
        training.adam_beta1,
        training.adam_beta2,
        training.adam_epsilon,
        training.warmup_steps,
        falls_until,
        training.discriminator_steps if training.warmup_steps or falls_until else 1,
    )


# Within one process, equal configs get equal tasks, and therefore share traced and compiled functions.
@cache
def _scheduled_adam(
    generator_rate: float,
    discriminator_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    warmup_steps: int,
    falls_until: int,
    discriminator_steps: int,
) -> Optimizers:
    moves = {"warmup_steps": warmup_steps, "falls_until": falls_until}
    return two_time_scale(
        generator_learning_rate=scheduled_rate(generator_rate, **moves),
        discriminator_learning_rate=scheduled_rate(discriminator_rate, **moves, updates_per_step=discriminator_steps),
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
    )


def training_precision(experiment: AnyExperiment) -> Precision:
    """Returns the precision that a run trains in on this machine."""
    named = experiment.training.precision
    return default_precision(jax.default_backend()) if named == "auto" else named


@cache
def _completion_optimizer(training: CompletionTraining) -> optax.GradientTransformation:
    """Returns the network's optimiser. Its learning rate warms up, then decays along a cosine to 1% of its peak."""
    highest, warmup = training.learning_rate, min(training.warmup_steps, training.total_steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, highest, warmup, training.total_steps, 0.01 * highest)
    if training.optimizer == "muon":
        return muon(rate, beta1=training.adam_beta1, beta2=training.adam_beta2)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b1=training.adam_beta1, b2=training.adam_beta2))


@cache
def _critic_optimizer(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate, b1=0.0, b2=0.9)


def image_shape(experiment: AnyExperiment) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images of a run."""
    networks = experiment.networks
    return networks.resolution, networks.resolution, networks.image_channels


def open_images(experiment: AnyExperiment, held_out: bool = False, *, decoding: Decoding = "exact") -> ImageSource:
    """Returns the training images or the held-out images of a config, without a check of their labels.

    Args:
        experiment: the config.
        held_out: whether to return the held-out images.
        decoding: as for `open_source`. Only training uses the value of the config; everything else is exact.

    Raises:
        InvalidInputError: the config names none, or they cannot be read.
    """
    data = experiment.data
    path, flag = (data.held_out, "--held-out") if held_out else (data.source, "--source")
    if not path:
        raise InvalidInputError(
            f"{experiment.name} needs images: give {flag} a folder or zip of class folders, .parquet or .npz, or a "
            f"data set of yours as file.py:NAME."
        )
    try:
        skipped = data.skip_unreadable
        columns: ColumnNames = {"label_column": data.label_column, "image_column": data.image_column}
        if held_out:  # may be of another file type than the training images
            skipped, columns = skipped if can_skip(path) else 0, fitting_columns(path, **columns)
        return open_source(
            path,
            resolution=experiment.networks.resolution,
            image_channels=experiment.networks.image_channels,
            skip_unreadable=skipped,
            cache=data.cache,
            labels=data.held_out_labels if held_out else data.labels,
            max_images=0 if held_out else data.max_images,
            decoding=decoding,
            **columns,
        )
    except InvalidInputError as error:
        if not held_out:
            raise
        raise InvalidInputError(
            f"The held-out images cannot be opened: {error} Give others with --held-out, or --held-out= for none."
        ) from error


def open_labelled_images(
    experiment: Experiment, held_out: bool = False, *, decoding: Decoding = "exact"
) -> ImageSource:
    """Returns the training images or the held-out images of a config, with as many classes as the networks have.

    Args:
        experiment: the config.
        held_out: whether to return the held-out images.
        decoding: as for `open_images`.

    Raises:
        InvalidInputError: as `open_images`, or the number of classes differs from that of the networks.
    """
    source, wanted = open_images(experiment, held_out, decoding=decoding), experiment.networks.num_classes
    path = experiment.data.held_out if held_out else experiment.data.source
    if wanted == 1 and not source.num_classes:
        return source.as_one_class()
    if wanted and not source.num_classes:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {path!r} has no labels: put the images "
            f"into class folders, give --labels a CSV file, or train with --num-classes 0."
        )
    if wanted and source.num_classes != wanted:
        shown = f" ({names})" if (names := _shown_names(source)) else ""
        hint = _split_hint(source, path)
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {path!r} has {source.num_classes} classes{shown}: "
            f"give --num-classes {source.num_classes}.{f' Or: {hint}' if hint else ''}"
        )
    return source


def balanced_by(experiment: AnyExperiment, source: ImageSource) -> np.ndarray | None:
    """Returns the labels for class-balanced sampling, or None if the config does not ask for it.

    Raises:
        InvalidInputError: the images have no labels, or are all of one class.
    """
    if experiment.data.sampling != "balanced":
        return None
    present = len(np.unique(source.labels))
    if present < 2:
        raise InvalidInputError(
            f"--sampling balanced needs images of at least 2 classes; {experiment.data.source!r} has "
            f"{present if source.num_classes else 'no labels'}. Give --sampling uniform."
        )
    return source.labels


def class_lines(source: ImageSource, path: str, num_classes: int) -> Iterator[str]:
    """Yields lines about the classes for the user: their names, and a warning if they look like dataset splits.

    Args:
        source: the images.
        path: the path of the source.
        num_classes: the number of classes of the networks.
    """
    if num_classes and (names := _shown_names(source)):
        yield f"classes: {names}"
    if hint := _split_hint(source, path):
        yield f"warning: {hint}"


def _shown_names(source: ImageSource) -> str:
    """Returns the first few class names, or "" if they are only the class numbers."""
    names = [name if name.isprintable() else repr(name) for name in source.class_names]
    if names == [str(number) for number in range(len(names))]:
        return ""
    return ", ".join(names[:_SHOWN_CLASSES]) + (", .." if len(names) > _SHOWN_CLASSES else "")


def _split_hint(source: ImageSource, path: str) -> str:
    """Returns a sentence for a source whose classes are named like splits, such as `train` and `test`; else ""."""
    names = source.class_names
    if len(names) < 2 or not all(is_split(name.lower()) for name in names):
        return ""
    train = next((name for name in names if name.lower() == "train"), names[0])
    other = next(name for name in names if name != train)
    folders = Path(path, train), Path(path, other)
    way_out = (
        f"give --source {folders[0]} and --held-out {folders[1]}"
        if all(folder.is_dir() for folder in folders)
        else "pack each into its own file, for --source and --held-out"
    )
    return f"the folders {' and '.join(names)} of {path!r} are used as classes. If they are splits, {way_out}."


def trained_generator(task: AdversarialTask, state: AdversarialState, raw: bool = False) -> TrainedGenerator:
    """Returns G, ready to sample from, with spectral norm applied. Uses the moving average if there is one.

    Args:
        task: the task of the run.
        state: the state of the run, on any device.
        raw: use the weights as trained, even where there is a moving average.
    """
    averaged = bool(state.average) and not raw
    variables = state.average if averaged else state.generator.variables
    # Only these parts are fetched, because copying the whole state of a large network takes long.
    variables, spectral, step = jax.device_get((variables, state.generator.spectral, state.step))
    return TrainedGenerator(
        task.generator,
        {"params": task.evaluation_params(variables["params"], spectral), "batch_stats": variables["batch_stats"]},
        task.latent_size,
        task.num_classes,
        int(step),
        averaged,
    )


def trained_discriminator(task: AdversarialTask, state: AdversarialState) -> TrainedDiscriminator:
    """Returns D ready to evaluate, with spectral norm applied.

    Args:
        task: the task of the run.
        state: the state of the run, on any device.
    """
    network = state.discriminator
    variables, spectral, step = jax.device_get((network.variables, network.spectral, state.step))
    variables = {
        "params": task.evaluation_params(variables["params"], spectral),
        "batch_stats": variables["batch_stats"],
    }
    return TrainedDiscriminator(task.discriminator, variables, task.num_classes, int(step))


def trained_completer(task: CompletionTask, state: CompletionState, raw: bool = False) -> TrainedCompleter:
    """Returns the completion network, ready to fill holes. Uses the moving average if there is one.

    Args:
        task: the task of the run.
        state: the state of the run, on any device.
        raw: use the weights as trained, even where there is a moving average.
    """
    averaged = bool(state.average) and not raw
    params, step = jax.device_get((state.average if averaged else state.network.params, state.step))
    return TrainedCompleter(task.network, params, int(step), averaged)
