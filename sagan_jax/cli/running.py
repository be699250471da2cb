"""A run of any task: from a config to a trained network, saved, recorded, scored and taken up again."""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import jax

from sagan_jax.cli.checks import check_room, check_same_data, check_same_run, differences
from sagan_jax.cli.completing import Completion
from sagan_jax.cli.generation import Generation
from sagan_jax.cli.report import write_report
from sagan_jax.cli.scoring import ScoreMonitor
from sagan_jax.config import AnyExperiment, Experiment, from_dict, to_dict
from sagan_jax.data import ImageSource
from sagan_jax.errors import CollapsedError, NonFiniteError, StoppedError, StorageError, one_line
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.runtime.environment import reproducibility_info, write_run_files
from sagan_jax.runtime.lock import WorkdirLock
from sagan_jax.runtime.loop import Action, run_loop
from sagan_jax.runtime.metrics_log import MetricsWriter
from sagan_jax.runtime.processes import is_first, require_same, require_shared
from sagan_jax.runtime.progress import TrainingProgress
from sagan_jax.runtime.signals import StopSignals


class Task(Protocol):
    """What a run does with its data: the part of it that differs between generating images and completing them.

    Attributes:
        source: what it trains on.
        watch: measures scores while it trains; None where none are asked for.
        guarded: the metrics that end a run when they are not finite.
        images_per_step: real images that a step takes, over all devices.
    """

    source: ImageSource
    watch: ScoreMonitor | None
    guarded: Sequence[str]
    images_per_step: int

    def initial_state(self) -> Any:
        """Returns the state of a run that nothing was saved of yet, as a checkpoint's template too."""

    def begin(self, state: Any) -> Any:
        """Returns the state before the first step of a run that starts now."""

    def step(self, state: Any, batch: Any, *, axis_name: str | None = None) -> tuple[Any, dict[str, Any]]:
        """Returns the state after one step and what was measured."""

    def batches(self, first_step: int) -> Iterator[Any]:
        """Returns this process's share of the data of each step to come."""

    def draw(self, state: Any, done: int, recorder: MetricsWriter, workdir: Path) -> None:
        """Draws what the networks make at this step, and records it."""

    def trained(self, state: Any, raw: bool = False) -> Any:
        """Returns what a run returns: its network, ready to use."""

    def parameters(self, state: Any) -> str:
        """Returns how many parameters each network has, for a person."""

    def remarks(self) -> Iterator[str]:
        """Yields what else a person wants to know before the first step."""


def train(experiment: AnyExperiment, workdir: str | Path, *, fresh: bool = False) -> Any:
    """Trains, from the newest checkpoint in `workdir` if there is one, and returns the network at the end.

    Args:
        experiment: what to train, on what and for how long.
        workdir: gets `config.json`, `environment.json`, `metrics.jsonl`, `tensorboard/`, `samples/`,
            `checkpoints/` and `report.html`.
        fresh: throws away what an earlier run left in `workdir`.

    Returns:
        The trained generator, a `TrainedGenerator`, which `load_run(workdir)` gives later; of a run that completes
        images its `TrainedCompleter`, which `load_completer(workdir)` gives.

    Raises:
        InvalidInputError: before anything is written, when the config contradicts itself, the data, the devices or
            the run in `workdir`.
        NonFiniteError: when a loss or a gradient is no longer a number.
        StorageError: when the disk refuses.
        BusyError: when another run holds `workdir`.
        StoppedError: when SIGTERM or Ctrl-C ended the run, after it saved.
    """
    workdir = Path(workdir)
    kind: Any = Generation if isinstance(experiment, Experiment) else Completion
    kind.check(experiment)
    experiment = from_dict(to_dict(experiment))  # lists become tuples, as the saved config will have them
    with WorkdirLock(workdir) if is_first() else nullcontext() as lock, StopSignals() as stop:
        if not fresh:
            check_same_run(workdir, experiment)
        task: Task = kind(experiment, workdir)
        fingerprint = task.source.fingerprint
        require_same({"config": json.dumps(to_dict(experiment)), "data": fingerprint})
        require_shared(workdir)
        if fresh and is_first():
            _remove_run(workdir)

        state = task.initial_state()
        check_room(workdir, state)
        with Checkpoints(workdir / "checkpoints", keep=experiment.recording.keep_checkpoints) as checkpoints:
            restored = checkpoints.restore(state)
            first_step, state, meta = restored or (0, task.begin(state), {})
            check_same_data(workdir, meta.get("data"), fingerprint)
            if is_first():
                for line in _summary(experiment, task, state, workdir, first_step, meta):
                    print(line, flush=True)
            if first_step < experiment.training.total_steps:
                if task.watch:
                    task.watch.go_on_from(first_step)
                if is_first():
                    write_run_files(workdir, to_dict(experiment))
                state = _train_from(first_step, state, experiment, task, workdir, checkpoints, lock, stop)
            return task.trained(state)


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run under way, and what is done with its state on the way; only the first process has a recorder."""

    experiment: AnyExperiment
    task: Task
    workdir: Path
    checkpoints: Checkpoints
    lock: WorkdirLock | None
    recorder: MetricsWriter | None
    progress: TrainingProgress | None
    clock: "_Clock"
    meta: dict[str, Any]

    def log(self, done: int, metrics: dict[str, float]) -> None:
        speed = self.clock.images_per_second(done)
        if self.recorder and self.progress:
            self.recorder.scalars(done, metrics | {"images_per_second": speed})
            self.progress.update(done, metrics, speed)

    def save(self, done: int, state: Any) -> None:
        if self.lock:
            self.lock.require_held()
        self.checkpoints.save(done, state, self.meta)

    def evaluate(self, done: int, state: Any) -> None:
        assert self.task.watch
        values = self.task.watch(done, lambda raw: self.task.trained(state, raw))
        if self.recorder:
            self.recorder.scalars(done, values)
        self.task.watch.keep_best(done, state, self.meta)

    def draw(self, done: int, state: Any) -> None:
        if self.recorder:
            self.task.draw(state, done, self.recorder, self.workdir)

    def report(self, state: str) -> None:
        if self.lock:
            self.lock.require_held()
            write_report(self.workdir, state=state)

    def report_on_the_way(self, done: int, state: Any) -> None:
        if done < self.experiment.training.total_steps:  # at the end it says that the run is finished
            self.report("training")

    def actions(self) -> list[Action]:
        recording = self.experiment.recording
        found = [
            Action(recording.save_every_steps, self.save, when_stopped=True),
            Action(recording.sample_every_steps, self.draw),
        ]
        if not self.task.watch:
            return [*found, Action(recording.sample_every_steps, self.report_on_the_way)]
        assert isinstance(self.experiment, Experiment)  # the others have no scores while they train
        every = self.experiment.evaluation.evaluate_every_steps
        return [*found, Action(every, self.evaluate), Action(every, self.report_on_the_way)]

    def steps(self, first_step: int, state: Any, stop: StopSignals) -> tuple[int, Any]:
        """Returns how many steps are done, and the state after them, everything on the way saved and shown."""
        training = self.experiment.training
        parallel = ParallelStep(self.task.step, driver=training.driver)
        if self.task.watch and self.task.watch.missed(first_step):
            self.evaluate(first_step, state)
        return run_loop(
            parallel,
            parallel.replicate(state),
            self.task.batches(first_step),
            first_step=first_step,
            total_steps=training.total_steps,
            guarded=self.task.guarded,
            log_every_steps=self.experiment.recording.log_every_steps,
            log=self.log,
            actions=self.actions(),
            stopped=stop.reached,
        )


def _train_from(
    first_step: int,
    state: Any,
    experiment: AnyExperiment,
    task: Task,
    workdir: Path,
    checkpoints: Checkpoints,
    lock: WorkdirLock | None,
    stop: StopSignals,
) -> Any:
    """Returns the state at the end of the run; raises StoppedError where a signal ended it before."""
    total_steps = experiment.training.total_steps
    meta = {
        "experiment": to_dict(experiment),
        "environment": reproducibility_info(),
        "data": task.source.fingerprint,
    }
    with (
        MetricsWriter(workdir, first_step=first_step) if is_first() else nullcontext() as recorder,
        TrainingProgress(total_steps, first_step) if is_first() else nullcontext() as progress,
    ):
        clock = _Clock(first_step, task.images_per_step)
        run = _Run(experiment, task, workdir, checkpoints, lock, recorder, progress, clock, meta)
        try:
            done, state = run.steps(first_step, state, stop)
        except (NonFiniteError, CollapsedError) as error:
            with suppress(StorageError):  # the error that ended the run is the one to be heard
                run.report(f"ended: {one_line(error)}")
            raise
        run.report("finished" if done == total_steps else f"stopped by {stop.signal.name}")
    if done < total_steps:
        saved = f"after step {done}, which is saved" if done > first_step else f"at step {done}, before the next one"
        raise StoppedError(
            f"stopped by {stop.signal.name} {saved}; the same command goes on from there.", stop.signal.value
        )
    return state


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
    experiment: AnyExperiment, task: Task, state: Any, workdir: Path, first_step: int, meta: Mapping[str, Any]
) -> Iterator[str]:
    """Yields what a person wants to know before the first step."""
    training = experiment.training
    yield f"{experiment.name}: {task.source.description}"
    yield (
        f"{task.parameters(state)}; "
        f"{training.batch_size} images a batch over {jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    )
    yield from task.remarks()
    if first_step >= training.total_steps:
        yield f"already at step {first_step} of {training.total_steps} in {workdir}: nothing to do"
    elif first_step:
        yield f"going on from step {first_step} of {training.total_steps} in {workdir}"
        changed = differences(meta.get("environment", {}), reproducibility_info())
        if changed:
            yield f"not bit for bit the run that was stopped: {'; '.join(changed)}"
    else:
        yield f"{training.total_steps} steps, into {workdir}"


def _remove_run(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for name in ("checkpoints", "best", "samples", "attention", "scores", "tensorboard"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("metrics.jsonl", "config.json", "environment.json", "report.html"):
        (workdir / name).unlink(missing_ok=True)
