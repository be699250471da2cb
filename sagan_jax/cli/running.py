"""A run: from a config to a trained network, saved, recorded, scored and taken up again."""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax

from sagan_jax.cli.attending import draw_looks
from sagan_jax.cli.checks import (
    check_config,
    check_room,
    check_same_data,
    check_same_run,
    check_same_sizes,
    differences,
)
from sagan_jax.cli.families import attention_places
from sagan_jax.cli.report import write_report
from sagan_jax.cli.scoring import Watch
from sagan_jax.cli.wiring import (
    ABSENT,
    build_game,
    load_state,
    open_data,
    sample_grid,
    trained_discriminator,
    trained_generator,
)
from sagan_jax.config import Experiment, Networks, Training, from_dict, to_dict
from sagan_jax.data import ImageSource, training_batches
from sagan_jax.errors import CollapsedError, NonFiniteError, StoppedError, StorageError, one_line
from sagan_jax.evaluation.attention import run_looks
from sagan_jax.evaluation.sampling import TrainedGenerator
from sagan_jax.models.layers import attention_parameters, residual_parameters, residual_width
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
from sagan_jax.training.parallel import ParallelStep
from sagan_jax.training.processes import is_first, require_same, require_shared
from sagan_jax.training.recording import Progress, Recorder, what_decides_the_bits, write_run_files
from sagan_jax.training.transfer import start_from


def train(experiment: Experiment, workdir: str | Path, *, fresh: bool = False) -> TrainedGenerator:
    """Trains, from the newest checkpoint in `workdir` if there is one, and returns the generator at the end.

    Args:
        experiment: what to train, on what and for how long.
        workdir: gets `config.json`, `environment.json`, `metrics.jsonl`, `tensorboard/`, `samples/`,
            `checkpoints/` and `report.html`.
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
        if training.init_from:
            check_same_sizes(Path(training.init_from), networks)
        source = open_data(experiment)
        watch = Watch(experiment, workdir, source) if experiment.evaluation.protocols else None
        require_same({"config": json.dumps(to_dict(experiment)), "data": source.fingerprint})
        require_shared(workdir)
        if fresh and is_first():
            _remove_run(workdir)

        game = build_game(experiment)
        state = initial_state(game, training.seed, (networks.resolution, networks.resolution, networks.image_channels))
        check_room(workdir, state)
        with Checkpoints(workdir / "checkpoints", keep=recording.keep_checkpoints) as checkpoints:
            restored = checkpoints.restore(state)
            if restored is None and training.init_from:
                state = _start_from_networks(experiment, state)
            first_step, state, meta = restored or (0, state, {})
            check_same_data(workdir, meta.get("data"), source.fingerprint)
            if is_first():
                for line in _summary(experiment, source, state, workdir, first_step, meta):
                    print(line, flush=True)
            if first_step < training.total_steps:
                if watch:
                    watch.go_on_from(first_step)
                if is_first():
                    write_run_files(workdir, to_dict(experiment))
                state = _train_from(
                    experiment, game, source, state, first_step, workdir, checkpoints, lock, stop, watch
                )
            return trained_generator(game, state)


def _start_from_networks(experiment: Experiment, state: AdversarialState) -> AdversarialState:
    """Returns the state before the first step with the networks that the config starts from."""
    folder = Path(experiment.training.init_from)
    _, donor, meta = load_state(folder)
    state, fresh = start_from(state, donor, discriminator=meta.get("discriminator") != ABSENT)
    if is_first():
        print(f"starting from step {int(donor.step)} of {folder}", flush=True)
        for network in ("generator", "discriminator"):
            names = fresh.get(network, ["all of it"])
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                print(f"starting anew in the {network}: {', '.join(names[:3])}{more}", flush=True)
    return state


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run under way, and what is done with its state on the way; only the first process has a recorder."""

    experiment: Experiment
    game: Game
    source: ImageSource
    workdir: Path
    checkpoints: Checkpoints
    lock: WorkdirLock | None
    stop: StopRequest
    watch: Watch | None
    recorder: Recorder | None
    progress: Progress | None
    clock: "_Clock"
    meta: dict[str, Any]

    def log(self, done: int, metrics: dict[str, float]) -> None:
        speed = self.clock.images_per_second(done)
        if self.recorder and self.progress:
            self.recorder.scalars(done, metrics | {"images_per_second": speed})
            self.progress.update(done, metrics, speed)

    def save(self, done: int, state: AdversarialState) -> None:
        if self.lock:
            self.lock.require_held()
        self.checkpoints.save(done, state, self.meta)

    def evaluate(self, done: int, state: AdversarialState) -> None:
        assert self.watch
        values = self.watch(done, partial(trained_generator, self.game, state))
        if self.recorder:
            self.recorder.scalars(done, values)
        self.watch.keep_best(done, state, self.meta)

    def draw(self, done: int, state: AdversarialState) -> None:
        """Draws a grid of samples and where both networks look, and records how far and how evenly."""
        if not self.recorder:
            return
        generator = trained_generator(self.game, state)
        self.recorder.image("samples", done, sample_grid(generator))
        for looks in run_looks(generator, trained_discriminator(self.game, state), self.source):
            self.recorder.scalars(done, looks.statistics())
            draw_looks(looks, self.workdir / "attention")

    def report(self, state: str) -> None:
        if self.lock:
            self.lock.require_held()
            write_report(self.workdir, state=state)

    def report_on_the_way(self, done: int, state: AdversarialState) -> None:
        if done < self.experiment.training.total_steps:  # at the end it says that the run is finished
            self.report("training")

    def actions(self) -> list[Action]:
        recording, evaluation = self.experiment.recording, self.experiment.evaluation
        found = [
            Action(recording.save_every_steps, self.save, when_stopped=True),
            Action(recording.sample_every_steps, self.draw),
        ]
        if not self.watch:
            return [*found, Action(recording.sample_every_steps, self.report_on_the_way)]
        every = evaluation.evaluate_every_steps
        return [*found, Action(every, self.evaluate), Action(every, self.report_on_the_way)]

    def steps(self, first_step: int, state: AdversarialState) -> tuple[int, AdversarialState]:
        """Returns how many steps are done, and the state after them, everything on the way saved and shown."""
        training = self.experiment.training
        parallel = ParallelStep(partial(step, self.game), driver=training.driver)
        if self.watch and self.watch.missed(first_step):
            self.evaluate(first_step, state)
        return run_loop(
            parallel,
            parallel.replicate(state),
            _batches(training, self.source, first_step),
            first_step=first_step,
            total_steps=training.total_steps,
            guarded=GUARDED,
            log_every_steps=self.experiment.recording.log_every_steps,
            log=self.log,
            actions=self.actions(),
            stopped=self.stop.reached,
        )


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
    watch: Watch | None,
) -> AdversarialState:
    """Returns the state at the end of the run; raises StoppedError where a signal ended it before."""
    training = experiment.training
    meta = {
        "experiment": to_dict(experiment),
        "environment": what_decides_the_bits(),
        "data": source.fingerprint,
    }
    clock = _Clock(first_step, training.batch_size * training.discriminator_steps)
    with (
        Recorder(workdir, first_step=first_step) if is_first() else nullcontext() as recorder,
        Progress(training.total_steps, first_step) if is_first() else nullcontext() as progress,
    ):
        run = _Run(experiment, game, source, workdir, checkpoints, lock, stop, watch, recorder, progress, clock, meta)
        try:
            done, state = run.steps(first_step, state)
        except (NonFiniteError, CollapsedError) as error:
            with suppress(StorageError):  # the error that ended the run is the one to be heard
                run.report(f"ended: {one_line(error)}")
            raise
        run.report("finished" if done == training.total_steps else f"stopped by {stop.signal.name}")
    if done < training.total_steps:
        saved = f"after step {done}, which is saved" if done > first_step else f"at step {done}, before the next one"
        raise StoppedError(
            f"stopped by {stop.signal.name} {saved}; the same command goes on from there.", stop.signal.value
        )
    return state


def _batches(training: Training, source: ImageSource, first_step: int) -> Iterator[Batch]:
    """Returns this process's share of the data of each step to come."""
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
    return map(Batch._make, batches)


class _Clock:
    """Images a second since the last look; the first look holds the compilation."""

    def __init__(self, first_step: int, images_per_step: int) -> None:
        self._step, self._time, self._images = first_step, time.perf_counter(), images_per_step

    def images_per_second(self, step: int) -> float:
        now = time.perf_counter()
        speed = (step - self._step) * self._images / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return speed


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
    wanted = networks.generator_attention_resolutions, networks.discriminator_attention_resolutions
    for network, sizes, places in zip("GD", wanted, attention_places(networks), strict=True):
        for size in sizes:
            channels = places[size]
            width = residual_width(channels)
            yield (
                f"residual control in {network} at {size}: {channels} -> {width} -> {channels} channels, "
                f"{residual_parameters(channels, width):,} parameters for attention's "
                f"{attention_parameters(channels):,}"
            )


def _remove_run(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for name in ("checkpoints", "best", "samples", "attention", "scores", "tensorboard"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("metrics.jsonl", "config.json", "environment.json", "report.html"):
        (workdir / name).unlink(missing_ok=True)
