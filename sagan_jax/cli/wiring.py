"""From a config to objects: the Python that the commands are made of."""

import json
import math
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax.config import Experiment, Networks, from_dict, to_dict
from sagan_jax.data import ImageSource, open_source, training_batches
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.sampling import Samples, TrainedGenerator
from sagan_jax.functional import HINGE, NON_SATURATING, WASSERSTEIN, spectral_normalize_tree
from sagan_jax.models.layers import attention_parameters, residual_parameters, residual_width
from sagan_jax.models.sagan import (
    DISCRIMINATOR_WIDTHS,
    GENERATOR_WIDTHS,
    Discriminator,
    Generator,
    discriminator_resolutions,
    generator_resolutions,
)
from sagan_jax.training.adversarial import (
    GUARDED,
    AdversarialState,
    Batch,
    Game,
    initial_state,
    step,
)
from sagan_jax.training.checkpoints import Checkpoints
from sagan_jax.training.loop import Action, run_loop
from sagan_jax.training.optimizers import two_time_scale
from sagan_jax.training.parallel import ParallelStep
from sagan_jax.training.recording import Progress, Recorder, write_run_files
from sagan_jax.views.figures import image_grid

_LOSSES = {"hinge": HINGE, "non_saturating": NON_SATURATING, "wasserstein": WASSERSTEIN}

# What a run may change when it is taken up again: how long and how often, not what.
_FREE = ("name", "recording", "training.total_steps", "training.driver")


def build_networks(networks: Networks) -> tuple[Generator, Discriminator]:
    """Returns the two modules that a config describes."""
    shared: dict[str, Any] = {
        "resolution": networks.resolution,
        "num_classes": networks.num_classes,
        "base_channels": networks.base_channels,
        "attention": networks.attention,
        "norm_epsilon": networks.norm_epsilon,
        "norm_decay": networks.norm_decay,
    }
    generator = Generator(
        **shared,
        image_channels=networks.image_channels,
        attention_resolutions=networks.generator_attention_resolutions,
        final_norm_decay=networks.final_norm_decay,
        conditional_gain=networks.conditional_gain,
    )
    discriminator = Discriminator(
        **shared,
        attention_resolutions=networks.discriminator_attention_resolutions,
        shortcut=networks.discriminator_shortcut,
        norm=networks.discriminator_norm,
    )
    return generator, discriminator


def build_game(experiment: Experiment) -> Game:
    """Returns the fixed part of the training that a config describes."""
    networks, training = experiment.networks, experiment.training
    generator, discriminator = build_networks(networks)
    return Game(
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
        spectral_epsilon=networks.spectral_epsilon,
        differentiate_vectors=training.differentiate_spectral_vectors,
        average_decay=training.ema_decay,
        average_start_step=training.ema_start_step,
        global_moments=training.moments == "global",
    )


def train(experiment: Experiment, workdir: str | Path, *, fresh: bool = False) -> TrainedGenerator:
    """Trains, from the newest checkpoint in `workdir` if there is one, and returns the generator at the end.

    Args:
        experiment: what to train, on what and for how long.
        workdir: gets `config.json`, `environment.json`, `metrics.jsonl`, `tensorboard/`, `samples/` and
            `checkpoints/`.
        fresh: throws away what an earlier run left in `workdir`.

    Returns:
        The trained generator; `load_run(workdir)` gives the same later.

    Raises:
        InvalidInputError: before anything is written, when the config contradicts itself, the data, the devices or
            the run in `workdir`.
        NonFiniteError: when a loss or a gradient is no longer a number.
        StorageError: when the disk refuses.
    """
    workdir = Path(workdir)
    _check_config(experiment)
    networks, training, recording = experiment.networks, experiment.training, experiment.recording
    source = _open_data(experiment)
    if fresh:
        _remove_run(workdir)
    _check_same_run(workdir, experiment)

    game = build_game(experiment)
    state = initial_state(game, training.seed, (networks.resolution, networks.resolution, networks.image_channels))
    with Checkpoints(workdir / "checkpoints", keep=recording.keep_checkpoints) as checkpoints:
        restored = checkpoints.restore(state)
        first_step = 0
        if restored is not None:
            first_step, state, _ = restored
        for line in _summary(experiment, source, state, workdir, first_step):
            print(line, flush=True)
        if first_step >= training.total_steps:
            return _trained(game, state)

        write_run_files(workdir, to_dict(experiment))
        parallel = ParallelStep(partial(step, game), driver=training.driver)
        batches = training_batches(
            source,
            batch_size=training.batch_size,
            discriminator_steps=training.discriminator_steps,
            seed=training.seed,
            first_step=first_step,
            total_steps=training.total_steps,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with (
            Recorder(workdir, first_step=first_step) as recorder,
            Progress(training.total_steps, first_step) as progress,
        ):
            clock = _Clock(first_step, training.batch_size * training.discriminator_steps)

            def log(done: int, metrics: dict[str, float]) -> None:
                speed = clock.images_per_second(done)
                recorder.scalars(done, metrics | {"images_per_second": speed})
                progress.update(done, metrics, speed)

            def save(done: int, state: AdversarialState) -> None:
                checkpoints.save(done, state, {"experiment": to_dict(experiment)})

            def draw(done: int, state: AdversarialState) -> None:
                recorder.image("samples", done, sample_grid(_trained(game, state)))

            state = run_loop(
                parallel,
                parallel.replicate(state),
                map(Batch._make, batches),
                first_step=first_step,
                total_steps=training.total_steps,
                guarded=GUARDED,
                log_every_steps=recording.log_every_steps,
                log=log,
                actions=[
                    Action(recording.save_every_steps, save),
                    Action(recording.sample_every_steps, draw),
                ],
            )
            return _trained(game, state)


def load_run(workdir: str | Path) -> TrainedGenerator:
    """Returns the generator of the newest checkpoint of a run, its moving average where the run keeps one.

    Args:
        workdir: of a run that has saved.

    Raises:
        InvalidInputError: when there is no run, or no whole checkpoint in it.
    """
    workdir = Path(workdir)
    experiment = _saved_experiment(workdir)
    if experiment is None:
        raise InvalidInputError(f"There is no run in {str(workdir)!r}: it has no config.json. Is the path right?")
    networks = experiment.networks
    game = build_game(experiment)
    shape = (networks.resolution, networks.resolution, networks.image_channels)
    template = jax.eval_shape(lambda: initial_state(game, experiment.training.seed, shape))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(template)
    if restored is None:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} has no checkpoint yet: it was stopped before the first save."
        )
    return _trained(game, restored[1])


def sample_grid(generator: TrainedGenerator, *, columns: int = 10) -> np.ndarray:
    """Returns a picture of samples from fixed latents: a row for each of the first ten classes, or ten rows."""
    rows = min(10, generator.num_classes) if generator.num_classes else 10
    labels = range(rows) if generator.num_classes else None
    samples = generator.generate(rows * columns, labels=labels)
    return class_rows(samples, columns=columns)


def class_rows(samples: Samples, *, columns: int | None = None) -> np.ndarray:
    """Returns the samples as one picture `[H, W, C]` uint8 in which each row is one class, where the counts allow."""
    order = np.argsort(samples.labels, kind="stable")
    _, counts = np.unique(samples.labels, return_counts=True)
    if columns is None:
        equal = len(counts) > 1 and counts.min() == counts.max()
        columns = int(counts[0]) if equal else math.ceil(math.sqrt(len(order)))
    return image_grid(samples.images[order], columns)


class _Clock:
    """Images a second since the last look; the first look holds the compilation."""

    def __init__(self, first_step: int, images_per_step: int) -> None:
        self._step, self._time, self._images = first_step, time.perf_counter(), images_per_step

    def images_per_second(self, step: int) -> float:
        now = time.perf_counter()
        speed = (step - self._step) * self._images / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return speed


def _trained(game: Game, state: AdversarialState) -> TrainedGenerator:
    """Returns G as it samples: normalised once from the stored u, the moving average where there is one."""
    state = jax.device_get(state)
    params, statistics = state.generator.params, state.generator.batch_stats
    if state.average:
        params, statistics = state.average["params"], state.average["batch_stats"]
    params, _, _ = spectral_normalize_tree(params, state.generator.spectral, epsilon=game.spectral_epsilon)
    return TrainedGenerator(
        game.generator,
        {"params": params, "batch_stats": statistics},
        game.latent_size,
        game.num_classes,
        int(state.step),
    )


def _summary(
    experiment: Experiment, source: ImageSource, state: AdversarialState, workdir: Path, first_step: int
) -> Iterator[str]:
    """Yields what a person wants to know before the first step."""
    networks, training = experiment.networks, experiment.training

    def count(tree: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    yield f"{experiment.name}: {source.description}"
    yield (
        f"{count(state.generator.params):,} parameters in G, {count(state.discriminator.params):,} in D; "
        f"{training.batch_size} images a batch over {jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    )
    if networks.attention == "residual":
        for name, widths, sizes, wanted in (
            (
                "G",
                GENERATOR_WIDTHS[networks.resolution][1:],
                generator_resolutions(networks.resolution),
                networks.generator_attention_resolutions,
            ),
            (
                "D",
                DISCRIMINATOR_WIDTHS[networks.resolution],
                discriminator_resolutions(networks.resolution),
                networks.discriminator_attention_resolutions,
            ),
        ):
            for size in wanted:
                channels = networks.base_channels * widths[sizes.index(size)]
                width = residual_width(channels)
                yield (
                    f"residual control in {name} at {size}: {channels} -> {width} -> {channels} channels, "
                    f"{residual_parameters(channels, width):,} parameters for attention's "
                    f"{attention_parameters(channels):,}"
                )
    if first_step >= training.total_steps:
        yield f"already at step {first_step} of {training.total_steps} in {workdir}: nothing to do"
    elif first_step:
        yield f"going on from step {first_step} of {training.total_steps} in {workdir}"
    else:
        yield f"{training.total_steps} steps, into {workdir}"


def _check_config(experiment: Experiment) -> None:
    """Raises InvalidInputError for the first thing that cannot be."""
    networks, training, recording = experiment.networks, experiment.training, experiment.recording
    for flag, number in {
        "total-steps": training.total_steps,
        "batch-size": training.batch_size,
        "discriminator-steps": training.discriminator_steps,
        "base-channels": networks.base_channels,
        "latent-size": networks.latent_size,
        "log-every-steps": recording.log_every_steps,
        "sample-every-steps": recording.sample_every_steps,
        "save-every-steps": recording.save_every_steps,
        "keep-checkpoints": recording.keep_checkpoints,
    }.items():
        _require(number >= 1, f"--{flag} needs to be at least 1; got {number}.")
    for flag, rate in {
        "generator-learning-rate": training.generator_learning_rate,
        "discriminator-learning-rate": training.discriminator_learning_rate,
    }.items():
        _require(math.isfinite(rate) and rate > 0, f"--{flag} needs to be a number above 0; got {rate}.")
    for flag, share in {
        "adam-beta1": training.adam_beta1,
        "adam-beta2": training.adam_beta2,
        "ema-decay": training.ema_decay,
        "norm-decay": networks.norm_decay,
        "final-norm-decay": networks.final_norm_decay,
    }.items():
        _require(0 <= share < 1, f"--{flag} needs to be in [0, 1); got {share}.")
    _require(0 <= training.seed < 2**32, f"--seed needs to be in [0, 2**32); got {training.seed}.")
    _require(networks.num_classes >= 0, f"--num-classes needs to be at least 0; got {networks.num_classes}.")
    _require(
        networks.image_channels in (1, 3),
        f"--image-channels needs to be 3 (RGB) or 1 (grey); got {networks.image_channels}.",
    )
    _require(networks.resolution in GENERATOR_WIDTHS, f"There is no network for {networks.resolution} pixels.")
    for flag, wanted, sizes in (
        (
            "generator-attention-resolutions",
            networks.generator_attention_resolutions,
            generator_resolutions(networks.resolution),
        ),
        (
            "discriminator-attention-resolutions",
            networks.discriminator_attention_resolutions,
            discriminator_resolutions(networks.resolution),
        ),
    ):
        for size in wanted:
            _require(
                size in sizes,
                f"--{flag}: no block of the {networks.resolution}-pixel network ends at {size}; "
                f"it can be any of {', '.join(map(str, sorted(set(sizes))))}.",
            )
    devices = jax.device_count()
    _require(
        training.batch_size % devices == 0,
        f"--batch-size needs a multiple of the {devices} devices, so that each takes its part; "
        f"got {training.batch_size}.",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInputError(message)


def _open_data(experiment: Experiment) -> ImageSource:
    """Returns the images, whose classes agree with the networks."""
    networks = experiment.networks
    _require(
        bool(experiment.data.source),
        f"{experiment.name} needs images: give --source a folder or zip of class folders, or an .npz file.",
    )
    source = open_source(experiment.data.source, resolution=networks.resolution, image_channels=networks.image_channels)
    found, wanted = source.num_classes, networks.num_classes
    if wanted and not found:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {experiment.data.source!r} has no labels: put the images "
            f"into class folders, or train with --num-classes 0."
        )
    if wanted and found != wanted:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {experiment.data.source!r} has {found} classes: "
            f"give --num-classes {found}."
        )
    return source


def _saved_experiment(workdir: Path) -> Experiment | None:
    """Returns the config that a run in `workdir` was started with, or None."""
    path = workdir / "config.json"
    if not path.is_file():
        return None
    try:
        return from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{str(path)!r} is not the config of a run that this version can read: {error}"
        ) from error


def _check_same_run(workdir: Path, experiment: Experiment) -> None:
    """Raises InvalidInputError when a run in `workdir` was started with another config."""
    if workdir.exists() and not workdir.is_dir():
        raise InvalidInputError(f"--workdir needs a folder; {str(workdir)!r} is a file.")
    saved = _saved_experiment(workdir)
    if saved is None:
        return
    old, new = _flat(to_dict(saved)), _flat(to_dict(experiment))
    changed = [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(_FREE)
    ]
    if changed:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was started with another config ({'; '.join(changed)}): "
            f"give the same, another --workdir, or --fresh to start over."
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, names joined by dots."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _remove_run(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for name in ("checkpoints", "samples", "tensorboard"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("metrics.jsonl", "config.json", "environment.json"):
        (workdir / name).unlink(missing_ok=True)
