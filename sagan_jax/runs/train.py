"""Trains a run from a config, or resumes it where it was stopped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, overload

import jax

from sagan_jax.config import AnyExperiment, CompletionExperiment, Experiment, from_dict, to_dict
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.runs.build import training_precision
from sagan_jax.runs.callbacks import find_callbacks
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.generation import GenerationJob
from sagan_jax.runs.missing_outputs import MissingOutputs, missing_outputs
from sagan_jax.runs.own_objects import changed_sources
from sagan_jax.runs.resume import (
    check_removable,
    check_same_data,
    check_same_run,
    forget_after,
    images_read,
    remove_run,
)
from sagan_jax.runs.saved_config import callback_digests, differences, recorded_digests, saved_values
from sagan_jax.runs.session import train_from
from sagan_jax.runs.training_job import State, TrainingJob
from sagan_jax.runs.validate import check_free_space
from sagan_jax.runtime.callbacks import Callback
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.devices import require_backend
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.lock import WorkdirLock
from sagan_jax.runtime.processes import decide_in_main, is_main_process, require_same, require_shared_folder
from sagan_jax.runtime.step_profiler import read_step_range


@overload
def train(
    experiment: Experiment,
    workdir: str | Path,
    *,
    fresh: bool = False,
    trust_checkpoint: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainedGenerator: ...
@overload
def train(
    experiment: CompletionExperiment,
    workdir: str | Path,
    *,
    fresh: bool = False,
    trust_checkpoint: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainedCompleter: ...
def train(
    experiment: AnyExperiment,
    workdir: str | Path,
    *,
    fresh: bool = False,
    trust_checkpoint: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainedGenerator | TrainedCompleter:
    """Trains a run and returns its network. A run that was stopped is resumed from its newest checkpoint.

    Args:
        experiment: the config of the run.
        workdir: the folder for all files of the run: `config.json`, `environment.json`, `metrics.jsonl`,
            `tensorboard/`, `samples/`, `attention/`, `scores/`, `checkpoints/`, `best/` and `report.html`.
        fresh: remove what an earlier run left in `workdir`, and start over.
        trust_checkpoint: compare `experiment` with the config in the checkpoint of an earlier run, not with its
            `config.json`. That file is then written again.
        callbacks: further callbacks, called after those of `experiment.recording`. They are not saved in the config.

    Returns:
        The trained generator; `load_run(workdir)` returns it later. For a `CompletionExperiment` the trained
        completer; `load_completer(workdir)` returns it later.

    Raises:
        InvalidInputError: the config contradicts itself, the data, the devices or the run in `workdir`, or a callback
            cannot start. Raised before anything is written, except by callbacks that had already started.
        NonFiniteError: a loss or a gradient is not finite.
        CollapsedError: a severe sign of docs/health.md began, and the config says to stop then; the run is saved.
        StorageError: a file cannot be written, or a checkpoint cannot be read.
        BusyError: another run holds `workdir`.
        StoppedError: SIGTERM or Ctrl-C stopped the run after it had saved.
    """
    job, state = train_to_the_end(
        experiment, workdir, fresh=fresh, trust_checkpoint=trust_checkpoint, callbacks=callbacks
    )
    return job.trained(state)


def train_to_the_end(
    experiment: AnyExperiment,
    workdir: str | Path,
    *,
    fresh: bool = False,
    trust_checkpoint: bool = False,
    profile_steps: str = "",
    callbacks: Sequence[Callback] = (),
) -> tuple[TrainingJob, State]:
    """Trains as `train` does, and returns the job and its last state. A finished run compiles nothing.

    The errors are those of `train`.

    Args:
        experiment: as for `train`.
        workdir: as for `train`; with `profile_steps` it also gets `profile/`.
        fresh: as for `train`.
        trust_checkpoint: as for `train`.
        profile_steps: the first and the last step that jax's profiler traces, such as `10:15`; "" for none.
        callbacks: as for `train`.
    """
    workdir = Path(workdir)
    job_type: Any = GenerationJob if isinstance(experiment, Experiment) else CompletionJob
    job_type.check(experiment)
    profiled = read_step_range(profile_steps, total_steps=experiment.training.total_steps) if profile_steps else None
    require_backend()
    experiment = from_dict(to_dict(experiment))  # lists become tuples, as in the saved config
    called = find_callbacks(experiment.recording.callbacks, callbacks)
    with WorkdirLock(workdir) if is_main_process() else nullcontext() as lock:
        if fresh:
            check_removable(workdir, experiment)
        else:
            check_same_run(workdir, experiment, trust_checkpoint=trust_checkpoint)
        job: TrainingJob = job_type(experiment, workdir)
        fingerprint = job.source.fingerprint
        require_same({"config": json.dumps(saved_values(experiment, job.code)), "data": fingerprint})
        require_shared_folder(workdir)
        if fresh or Checkpoints(workdir / "checkpoints").latest_step is None:
            job.open_pretrained()
        if fresh:
            decide_in_main(lambda: remove_run(workdir))  # the other processes wait for it

        state = jax.eval_shape(job.initial_state)  # restoring needs only shapes, so nothing is compiled
        check_free_space(workdir, state)
        recording = experiment.recording
        keep = {"keep": recording.keep_checkpoints, "keep_every": recording.keep_every_steps}
        with Checkpoints(workdir / "checkpoints", **keep) as checkpoints:
            restored = checkpoints.restore(state)
            first_step, state, meta = restored or (0, job.warm_start(job.initial_state()), {})
            require_same({"checkpoint to go on from": str(first_step)})
            if profiled:
                profiled.require_after(first_step, workdir)
            check_same_data(workdir, meta.get("data"), fingerprint)
            missing = _missing_outputs(first_step, experiment, job, workdir)
            if is_main_process():
                for line in _summary(experiment, job, state, workdir, first_step, meta, missing):
                    print(line, flush=True)
            at_the_end = first_step >= experiment.training.total_steps
            stops = isinstance(experiment, Experiment) and experiment.evaluation.stop_on_collapse
            if not at_the_end or any(missing) or stops:  # a sign may have ended the run at its last step
                read = images_read(first_step, meta, job.images_per_step)
                state = train_from(
                    first_step, state, experiment, job, workdir, checkpoints, lock, missing, profiled, read, called
                )
            return job, state


def _missing_outputs(first_step: int, experiment: AnyExperiment, job: TrainingJob, workdir: Path) -> MissingOutputs:
    """Removes files of later steps, which will be done again, and returns the missing outputs of `first_step`."""
    if is_main_process():
        forget_after(first_step, workdir)
    if job.score_monitor:
        job.score_monitor.resume_from(first_step)
    return MissingOutputs(*decide_in_main(lambda: missing_outputs(first_step, experiment, job, workdir)))


def _summary(
    experiment: AnyExperiment,
    job: TrainingJob,
    state: State,
    workdir: Path,
    first_step: int,
    meta: Mapping[str, Any],
    missing: MissingOutputs,
) -> Iterator[str]:
    """Yields the lines that are printed before the first step."""
    training, precision = experiment.training, training_precision(experiment)
    yield f"{experiment.name}: {job.source.description}"
    yield (
        f"{job.parameter_counts(state)}; "
        f"{training.batch_size} images a batch over {jax.device_count()} {jax.devices()[0].device_kind} device(s), "
        f"in {precision}"
    )
    yield from job.remarks()
    if any(missing):
        yield f"step {first_step} was saved, but the run was ended before its {missing}: doing that first"
    if first_step >= training.total_steps:
        rest = "" if any(missing) else ": nothing to do"
        given = f", beyond --total-steps {training.total_steps}," if first_step > training.total_steps else ""
        yield f"already at step {first_step}{given or f' of {training.total_steps}'} in {workdir}{rest}"
    elif first_step:
        yield f"going on from step {first_step} of {training.total_steps} in {workdir}"
        changed = differences(meta.get("environment", {}), reproducibility_info())
        if changed:
            yield f"not bit for bit the run that was stopped: {'; '.join(changed)}"
        changed = changed_sources(meta.get("sources", {}), job.code)
        if changed:
            yield f"not bit for bit the run that was stopped: the source of {', '.join(changed)} has changed"
        changed = changed_sources(recorded_digests(workdir), callback_digests(experiment))
        if changed:
            yield f"the source of {', '.join(changed)} has changed; results do not depend on callbacks"
        earlier = meta.get("precision", precision)
        if earlier != precision:
            yield f"trained so far in {earlier}; now in {precision}, so not bit for bit the run that was stopped"
        yield from _changed_batches(experiment, meta, images_read(first_step, meta, job.images_per_step))
        before = meta.get("experiment", {}).get("training", {}).get("total_steps")
        falls = isinstance(experiment, CompletionExperiment) or experiment.training.schedule == "linear"
        if falls and before != training.total_steps:
            yield f"the learning rate now follows the schedule of {training.total_steps} steps, not of {before}"
    else:
        yield f"{training.total_steps} steps, into {workdir}"


def _changed_batches(experiment: AnyExperiment, meta: Mapping[str, Any], read: int) -> Iterator[str]:
    """Yields a line if a run is resumed with another batch size or number of accumulation steps.

    Args:
        experiment: the current config of the run.
        meta: the metadata of the checkpoint.
        read: the number of images that the run has read.
    """
    before, training = meta.get("experiment", {}).get("training", {}), experiment.training
    names = {"batch_size": "images a batch", "accumulation_steps": "accumulation steps"}
    changed = [
        f"{getattr(training, name)} {words}, not {before[name]}"
        for name, words in names.items()
        if before.get(name, getattr(training, name, None)) != getattr(training, name, None)
    ]
    if changed:
        yield f"from now on {' and '.join(changed)}; the order of images continues after the {read:,} that were read"
