"""From a config to objects: the Python that the commands are made of."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax.cli.checks import (
    check_config,
    check_room,
    check_same_data,
    check_same_run,
    differences,
    saved_experiment,
)
from sagan_jax.config import Experiment, Networks, from_dict, to_dict
from sagan_jax.data import ImageSource, open_source, training_batches
from sagan_jax.errors import InvalidInputError, StoppedError
from sagan_jax.evaluation.sampling import TrainedGenerator
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
from sagan_jax.training.interruption import StopRequest
from sagan_jax.training.lock import WorkdirLock
from sagan_jax.training.loop import Action, run_loop
from sagan_jax.training.optimizers import two_time_scale
from sagan_jax.training.parallel import ParallelStep
from sagan_jax.training.processes import is_first, require_same, require_shared
from sagan_jax.training.recording import Progress, Recorder, what_decides_the_bits, write_run_files
from sagan_jax.views.figures import class_rows

_LOSSES = {"hinge": HINGE, "non_saturating": NON_SATURATING, "wasserstein": WASSERSTEIN}


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
        spectral_norm=networks.spectral_norm,
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
        BusyError: when another run holds `workdir`.
        StoppedError: when SIGTERM or Ctrl-C ended the run, after it saved.
    """
    workdir = Path(workdir)
    check_config(experiment)
    experiment = from_dict(to_dict(experiment))  # lists become tuples, as the saved config will have them
    networks, training, recording = experiment.networks, experiment.training, experiment.recording
    with WorkdirLock(workdir) if is_first() else nullcontext() as lock, StopRequest() as stop:
        if not fresh:
            check_same_run(workdir, experiment)
        source = _open_data(experiment)
        require_same({"config": json.dumps(to_dict(experiment)), "data": source.fingerprint})
        require_shared(workdir)
        if fresh and is_first():
            _remove_run(workdir)

        game = build_game(experiment)
        state = initial_state(game, training.seed, (networks.resolution, networks.resolution, networks.image_channels))
        check_room(workdir, state)
        with Checkpoints(workdir / "checkpoints", keep=recording.keep_checkpoints) as checkpoints:
            first_step, state, meta = checkpoints.restore(state) or (0, state, {})
            check_same_data(workdir, meta.get("data"), source.fingerprint)
            if is_first():
                for line in _summary(experiment, source, state, workdir, first_step, meta):
                    print(line, flush=True)
            if first_step < training.total_steps:
                if is_first():
                    write_run_files(workdir, to_dict(experiment))
                state = _train_from(experiment, game, source, state, first_step, workdir, checkpoints, lock, stop)
            return _trained(game, state)


def _train_from(
    experiment: Experiment,
    game: Game,
    source: ImageSource,
    state: AdversarialState,
    first_step: int,
    workdir: Path,
    checkpoints: Checkpoints,
    lock: WorkdirLock | None,
    stop: StopRequest,
) -> AdversarialState:
    """Returns the state at the end of the run, everything on the way saved, recorded and shown."""
    training, recording = experiment.training, experiment.recording
    meta = {
        "experiment": to_dict(experiment),
        "environment": what_decides_the_bits(),
        "data": source.fingerprint,
    }
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
    clock = _Clock(first_step, training.batch_size * training.discriminator_steps)
    with (
        Recorder(workdir, first_step=first_step) if is_first() else nullcontext() as recorder,
        Progress(training.total_steps, first_step) if is_first() else nullcontext() as progress,
    ):

        def log(done: int, metrics: dict[str, float]) -> None:
            speed = clock.images_per_second(done)
            if recorder and progress:
                recorder.scalars(done, metrics | {"images_per_second": speed})
                progress.update(done, metrics, speed)

        def save(done: int, state: AdversarialState) -> None:
            if lock:
                lock.require_held()
            checkpoints.save(done, state, meta)

        def draw(done: int, state: AdversarialState) -> None:
            if recorder:
                recorder.image("samples", done, sample_grid(_trained(game, state)))

        done, state = run_loop(
            parallel,
            parallel.replicate(state),
            map(Batch._make, batches),
            first_step=first_step,
            total_steps=training.total_steps,
            guarded=GUARDED,
            log_every_steps=recording.log_every_steps,
            log=log,
            actions=[
                Action(recording.save_every_steps, save, when_stopped=True),
                Action(recording.sample_every_steps, draw),
            ],
            stopped=stop.reached,
        )
    if done < training.total_steps:
        saved = f"after step {done}, which is saved" if done > first_step else f"at step {done}, before the next one"
        raise StoppedError(
            f"stopped by {stop.signal.name} {saved}; the same command goes on from there.", stop.signal.value
        )
    return state


def load_run(workdir: str | Path) -> TrainedGenerator:
    """Returns the generator of the newest checkpoint of a run, its moving average where the run keeps one.

    Args:
        workdir: of a run that has saved.

    Raises:
        InvalidInputError: when there is no run, or no whole checkpoint in it.
    """
    workdir = Path(workdir)
    experiment = saved_experiment(workdir)
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
    return class_rows(*generator.generate(rows * columns, labels=labels), columns=columns)


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
    experiment: Experiment,
    source: ImageSource,
    state: AdversarialState,
    workdir: Path,
    first_step: int,
    meta: dict[str, Any],
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
        yield from _residual_summary(networks)
    if first_step >= training.total_steps:
        yield f"already at step {first_step} of {training.total_steps} in {workdir}: nothing to do"
    elif first_step:
        yield f"going on from step {first_step} of {training.total_steps} in {workdir}"
        changed = differences(meta.get("environment", {}), what_decides_the_bits())
        if changed:
            yield f"not bit for bit the run that was stopped: {'; '.join(changed)}"
    else:
        yield f"{training.total_steps} steps, into {workdir}"


def _residual_summary(networks: Networks) -> Iterator[str]:
    """Yields what the control of Table 1 has for parameters where attention would sit."""
    resolution = networks.resolution
    places = {
        "G": (
            networks.generator_attention_resolutions,
            dict(zip(generator_resolutions(resolution), GENERATOR_WIDTHS[resolution][1:], strict=True)),
        ),
        "D": (
            networks.discriminator_attention_resolutions,
            # The first block of a size is the one that counts, so it is written last.
            dict(zip(discriminator_resolutions(resolution)[::-1], DISCRIMINATOR_WIDTHS[resolution][::-1], strict=True)),
        ),
    }
    for network, (wanted, widths) in places.items():
        for size in wanted:
            channels = networks.base_channels * widths[size]
            width = residual_width(channels)
            yield (
                f"residual control in {network} at {size}: {channels} -> {width} -> {channels} channels, "
                f"{residual_parameters(channels, width):,} parameters for attention's "
                f"{attention_parameters(channels):,}"
            )


def _open_data(experiment: Experiment) -> ImageSource:
    """Returns the images, whose classes agree with the networks."""
    data, networks = experiment.data, experiment.networks
    if not data.source:
        raise InvalidInputError(
            f"{experiment.name} needs images: give --source a folder or zip of class folders, .parquet or .npz."
        )
    source = open_source(
        data.source,
        resolution=networks.resolution,
        image_channels=networks.image_channels,
        skip_unreadable=data.skip_unreadable,
        cache=data.cache,
    )
    found, wanted = source.num_classes, networks.num_classes
    if wanted and not found:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {data.source!r} has no labels: put the images "
            f"into class folders, or train with --num-classes 0."
        )
    if wanted and found != wanted:
        raise InvalidInputError(
            f"The networks have --num-classes {wanted}, but {data.source!r} has {found} classes: "
            f"give --num-classes {found}."
        )
    return source


def _remove_run(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for name in ("checkpoints", "samples", "tensorboard"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("metrics.jsonl", "config.json", "environment.json"):
        (workdir / name).unlink(missing_ok=True)
