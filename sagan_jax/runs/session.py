"""Trains from a state to the last step, and saves, draws, scores and reports in between."""

import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from sagan_jax.config import AnyExperiment, Experiment, to_dict
from sagan_jax.errors import CollapsedError, NonFiniteError, StoppedError, StorageError, one_line
from sagan_jax.runs.build import training_precision
from sagan_jax.runs.callbacks import CallbackCalls, NamedCallback
from sagan_jax.runs.health_watch import HealthWatch, observed_intervals
from sagan_jax.runs.memory_advice import COMPILING, memory_advice
from sagan_jax.runs.missing_outputs import MissingOutputs
from sagan_jax.runs.report import write_report
from sagan_jax.runs.saved_config import saved_values
from sagan_jax.runs.training_job import State, TrainingJob
from sagan_jax.runtime.callbacks import RunStart
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.devices import ParallelStep, Step
from sagan_jax.runtime.environment import RUN_FILES, reproducibility_info, write_run_files
from sagan_jax.runtime.lock import WorkdirLock
from sagan_jax.runtime.loop import PeriodicAction, run_loop
from sagan_jax.runtime.memory import memory_errors
from sagan_jax.runtime.metrics_log import MetricsWriter
from sagan_jax.runtime.processes import is_main_process
from sagan_jax.runtime.progress import TrainingProgress
from sagan_jax.runtime.removals import RemovalWatch
from sagan_jax.runtime.signals import StopSignals
from sagan_jax.runtime.step_profiler import StepProfiler, StepRange

_REPORT_SECONDS = 20.0  # between two reports of a run without scores; a report takes about a third of a second


def train_from(
    first_step: int,
    state: State,
    experiment: AnyExperiment,
    job: TrainingJob,
    workdir: Path,
    checkpoints: Checkpoints,
    lock: WorkdirLock | None,
    missing: MissingOutputs,
    profiled: StepRange | None = None,
    first_image: int | None = None,
    callbacks: Sequence[NamedCallback] = (),
) -> State:
    """Trains to the last step and returns the state. Missing outputs of the first step are written first.

    Args:
        first_step: number of steps already done.
        state: the state after these steps.
        experiment: the config of the run.
        job: the training job.
        workdir: the folder for all files. `config.json` and `environment.json` are written after callbacks started.
        checkpoints: the checkpoints of the run.
        lock: the lock of the workdir; None in a process that does not hold it.
        missing: the missing outputs of `first_step`. At the last step, only these are written.
        profiled: the steps that jax's profiler traces, or None.
        first_image: number of images that the steps already done have read. Defaults to that of the current batch size.
        callbacks: the callbacks that receive metrics, images and scores.

    Raises:
        InvalidInputError: a callback failed to start.
        StoppedError: a signal ended the run; the state is saved. Also raised for a signal after the last step.
        NonFiniteError: a loss or a gradient is not finite.
        CollapsedError: a severe sign of `sagan_jax.runs.health` began, and the config says to stop then; the state is
            saved.
        StorageError: a file cannot be written.
    """
    total_steps = experiment.training.total_steps
    start = RunStart(experiment.name, workdir, saved_values(experiment, job.code), first_step, total_steps)
    with (
        StopSignals() as stop,  # until the first step nothing needs saving, so a signal ends the command at once
        CallbackCalls(callbacks, start) if is_main_process() else nullcontext() as calls,
    ):
        if first_step < total_steps and is_main_process():
            write_run_files(workdir, start.config, resumed=first_step > 0)
        with (
            MetricsWriter(workdir, first_step=first_step, callback=calls)
            if is_main_process()
            else nullcontext() as writer,
            TrainingProgress(total_steps, first_step) if is_main_process() else nullcontext() as progress,
        ):
            clock = _Throughput(first_step, job.images_per_step)
            watch = _health_watch(experiment, job, workdir, first_step, progress)
            images = _ImagesRead(first_step, job.images_per_step, first_image)
            of_run = experiment, job, workdir, checkpoints, lock
            session = _Session(*of_run, writer, progress, clock, stop, watch, profiled, images, calls)
            try:
                with memory_errors(lambda: memory_advice(experiment, stop.activity)):
                    done, state = session.run(first_step, state, missing)
            except (NonFiniteError, CollapsedError) as error:
                with suppress(StorageError):  # the error that ended the run is the one to report
                    session.report(f"ended: {one_line(error)}")
                raise
            finished = done >= total_steps
            session.report("finished" if finished else f"stopped by {stop.signal.name}")
            if calls:
                calls.end("finished" if finished else "stopped", "" if finished else stop.signal.name)
    if done < total_steps or stop.heard_one:  # after the last step too, so that a program with several runs stops
        raise _stopped_error(stop.signal, done, first_step, total_steps)
    return state


def _stopped_error(by: signal.Signals, done: int, first_step: int, total_steps: int) -> StoppedError:
    """Returns the error for a signal that ended the run, or that arrived after the last step."""
    if done >= total_steps:
        return StoppedError(f"stopped by {by.name} after step {done}, the last one: the run is finished.", by.value)
    saved = f"after step {done}, which is saved" if done > first_step else f"at step {done}, before the next one"
    return StoppedError(f"stopped by {by.name} {saved}; the same command resumes from there.", by.value)


@dataclasses.dataclass(frozen=True)
class _ImagesRead:
    """Counts the images that a run has read. Earlier sessions may have had another batch size."""

    first_step: int
    per_step: int
    at_first_step: int | None

    def after(self, done: int) -> int:
        before = self.first_step * self.per_step if self.at_first_step is None else self.at_first_step
        return before + (done - self.first_step) * self.per_step


@dataclasses.dataclass(frozen=True)
class _Session:
    """A run in progress, with the actions between its steps. Only the first process writes files and prints."""

    experiment: AnyExperiment
    job: TrainingJob
    workdir: Path
    checkpoints: Checkpoints
    lock: WorkdirLock | None
    writer: MetricsWriter | None
    progress: TrainingProgress | None
    throughput: "_Throughput"
    stop: StopSignals = dataclasses.field(default_factory=StopSignals)
    health: HealthWatch | None = None
    profiled: StepRange | None = None
    images: _ImagesRead = _ImagesRead(0, 0, 0)
    calls: CallbackCalls | None = None
    pause: "Pause" = dataclasses.field(default_factory=lambda: Pause(_REPORT_SECONDS))

    def run(self, first_step: int, state: State, missing: MissingOutputs) -> tuple[int, State]:
        """Runs the session, and returns the number of steps done and the state after them."""
        total_steps = self.experiment.training.total_steps
        parallel = ParallelStep(self.job.step, self.job.constants, driver=self.experiment.training.driver)
        done, state = first_step, parallel.replicate(state)
        self.replace_removed_files()  # the first call only records what exists
        self.write_missing(first_step, state, missing)
        if first_step < total_steps and not self.collapsed:
            done, state = self.train(first_step, state, parallel)
        if self.health and self.health.collapsed:
            raise CollapsedError(
                f"The run has collapsed: {self.health.collapsed}. It is saved after step {done}; "
                f"--no-stop-on-collapse continues it."
            )
        return done, state

    def train(self, first_step: int, state: State, parallel: ParallelStep) -> tuple[int, State]:
        """Trains until the last step or a stop, and returns the number of steps done and the state after them."""
        self.doing(COMPILING)
        with self.profiler(parallel.run, first_step) as step:
            return run_loop(
                step,
                state,
                self.job.batches(first_step, self.images.after(first_step)),
                place=parallel.shard,
                first_step=first_step,
                total_steps=self.experiment.training.total_steps,
                finite_metrics=self.job.finite_metrics,
                log_every_steps=self.experiment.recording.log_every_steps,
                log=self.log,
                actions=self.actions(),
                stopped=lambda done: self.stop.should_stop(done) or self.collapsed,
                started=self.started,
            )

    def profiler(self, step: Step, first_step: int) -> AbstractContextManager[Step]:
        """Returns the step. In the first process of a run with --profile-steps, a profiler wraps it."""
        if not (self.profiled and self.progress):
            return nullcontext(step)
        return StepProfiler(step, self.profiled, self.workdir / "profile", first_step=first_step, say=self.progress.say)

    @property
    def collapsed(self) -> bool:
        return self.health is not None and self.health.collapsed is not None

    def doing(self, activity: str) -> None:
        """Sets the activity that the progress display and the message of a signal show until the next step."""
        self.stop.activity = activity
        if self.progress:
            self.progress.doing(activity)

    def started(self, step: int) -> None:
        self.stop.activity = ""
        if self.progress:
            self.progress.advance(step)

    def actions(self) -> list[PeriodicAction]:
        recording = self.experiment.recording
        save_and_draw = [
            PeriodicAction(recording.save_every_steps, self.save, on_stop=True),
            PeriodicAction(recording.sample_every_steps, self.draw),
        ]
        if not self.job.score_monitor:
            return [*save_and_draw, PeriodicAction(recording.sample_every_steps, self.report_now_and_then)]
        assert isinstance(self.experiment, Experiment)  # completion runs are not scored while they train
        every = self.experiment.evaluation.evaluate_every_steps
        return [*save_and_draw, PeriodicAction(every, self.evaluate), PeriodicAction(every, self.report_on_the_way)]

    def log(self, done: int, metrics: dict[str, float]) -> None:
        self.replace_removed_files()
        speed = self.throughput.images_per_second(done)
        if self.progress:
            self.progress.update(done, metrics, speed)
        self.record(done, metrics | {"images_per_second": speed})

    def record(self, done: int, metrics: dict[str, float]) -> None:
        """Writes metrics, with the signs of health that they show. All processes observe; the first one writes."""
        signs = self.health.observe(done, metrics) if self.health else {}
        if self.writer:
            self.writer.scalars(done, metrics | signs)

    def replace_removed_files(self) -> None:
        """Warns of files that were removed from the workdir since the last call. Writes those of `RUN_FILES` again.

        Raises:
            StorageError: the workdir itself is gone.
        """
        if not self.lock:
            return
        self.lock.require_held()
        for name in self.removals.removed():
            if name in RUN_FILES:
                write_run_files(self.workdir, saved_values(self.experiment, self.job.code), resumed=True)
            what = "written again" if name in RUN_FILES else "started again with the next results"
            print(
                f"warning: {self.workdir / name} was removed while the run used it, and is {what}.",
                file=sys.stderr,
                flush=True,
            )

    def save(self, done: int, state: State) -> None:
        self.doing(f"saving step {done}")
        if self.lock:
            self.lock.require_held()
        self.checkpoints.save(done, state, self.meta(done))

    def write_missing(self, done: int, state: State, missing: MissingOutputs) -> None:
        """Writes the missing outputs of a step, in the order of `actions`."""
        if missing.drawing:
            self.draw(done, state)
        if missing.scores:
            self.evaluate(done, state)
        if missing.report:
            self.report_on_the_way(done, state)

    def draw(self, done: int, state: State) -> None:
        self.doing(f"drawing samples of step {done}")
        if self.writer:
            self.job.draw(state, done, self.writer, self.workdir)
        variety = self.job.variety(state) if self.health else {}
        if variety:
            self.record(done, variety)

    def evaluate(self, done: int, state: State) -> None:
        monitor = self.job.score_monitor
        assert monitor
        self.doing(f"scoring step {done}")
        values = monitor.measure(done, lambda raw: self.job.trained(state, raw))
        self.record(done, values)
        if self.calls:
            self.calls.scores(done, {name: values[f"score/{name}"] for name in monitor.names})
        monitor.keep_best(done, state, self.meta(done))

    def report(self, status: str) -> None:
        self.doing("writing the report")
        if self.lock:  # the process that holds the workdir
            self.lock.require_held()
            write_report(self.workdir, status=status)

    def report_on_the_way(self, done: int, state: State) -> None:
        del state
        if done < self.experiment.training.total_steps:  # the last report says that the run is finished
            self.report("training")

    def report_now_and_then(self, done: int, state: State) -> None:
        """Writes an intermediate report, unless the previous one is less than `_REPORT_SECONDS` old."""
        if self.pause.is_over():
            self.report_on_the_way(done, state)

    @cached_property
    def removals(self) -> RemovalWatch:
        """Watches the files of the run. Other code watches `metrics.jsonl`, `tensorboard/` and `best/`."""
        return RemovalWatch(self.workdir, (*RUN_FILES, "samples", "attention", "scores", "checkpoints"))

    def meta(self, done: int) -> dict[str, Any]:
        """Returns the metadata that is saved with the state after a step."""
        return self.constant_meta | {"images_read": self.images.after(done)}

    @cached_property
    def constant_meta(self) -> dict[str, Any]:
        return {
            "experiment": to_dict(self.experiment),
            "environment": reproducibility_info(),
            "data": self.job.source.fingerprint,
            "class_names": self.job.source.class_names,
            "sources": dict(self.job.code),
            "precision": training_precision(self.experiment),
        }


def _health_watch(
    experiment: AnyExperiment, job: TrainingJob, workdir: Path, first_step: int, progress: TrainingProgress | None
) -> HealthWatch | None:
    """Returns the watch of a run, which has observed the earlier steps; None for a task without signs."""
    if not (job.health and isinstance(experiment, Experiment)):
        return None
    watch = HealthWatch(
        job.health,
        observed_intervals(experiment),
        progress.say if progress else lambda line: None,
        stop_on_collapse=experiment.evaluation.stop_on_collapse,
    )
    watch.resume_from(workdir, first_step)
    return watch


class Pause:
    """A pause of some seconds. It begins now, and begins again each time `is_over` returns True."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._start = seconds, clock, clock()

    def is_over(self) -> bool:
        """Returns whether the pause is over, and if so begins the next one."""
        now = self._clock()
        over = now - self._start >= self._seconds
        if over:
            self._start = now
        return over


class _Throughput:
    """Images per second since the last call; the first call includes compilation."""

    def __init__(self, first_step: int, images_per_step: int) -> None:
        self._step, self._time, self._images = first_step, time.perf_counter(), images_per_step

    def images_per_second(self, step: int) -> float:
        now = time.perf_counter()
        speed = (step - self._step) * self._images / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return speed
