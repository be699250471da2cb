"""A dry run: opens, checks and compiles everything, but trains no step and writes nothing."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from sagan_jax.config import AnyExperiment, Experiment, from_dict, to_dict
from sagan_jax.runs.callbacks import find_callbacks
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.generation import GenerationJob
from sagan_jax.runs.resume import check_removable, check_same_data, check_same_run
from sagan_jax.runs.training_job import State, TrainingJob
from sagan_jax.runs.validate import check_free_space
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.devices import ParallelStep, StepMemory, require_backend
from sagan_jax.runtime.processes import is_main_process
from sagan_jax.runtime.step_profiler import read_step_range


def dry_run(
    experiment: AnyExperiment,
    workdir: Path,
    *,
    fresh: bool = False,
    trust_checkpoint: bool = False,
    profile_steps: str = "",
) -> None:
    """Prints what `train` would do with the same arguments, and the memory that a step needs on each device.

    Decoded images are cached as in a run.

    Args:
        experiment: as for `train`.
        workdir: as for `train`; it is neither created nor changed.
        fresh: as for `train`.
        trust_checkpoint: as for `train`.
        profile_steps: as for `train_to_the_end`; it is only checked.

    Raises:
        InvalidInputError: as from `train`.
        StorageError: the disk has no room for a save, or a checkpoint cannot be read.
    """
    for line in _lines(experiment, workdir, fresh, trust_checkpoint, profile_steps):
        if is_main_process():
            print(line, flush=True)


def _lines(
    experiment: AnyExperiment, workdir: Path, fresh: bool, trust_checkpoint: bool, profile_steps: str
) -> Iterator[str]:
    job_type: Any = GenerationJob if isinstance(experiment, Experiment) else CompletionJob
    job_type.check(experiment)
    profiled = read_step_range(profile_steps, total_steps=experiment.training.total_steps) if profile_steps else None
    require_backend()
    experiment = from_dict(to_dict(experiment))  # lists become tuples, as in the saved config
    find_callbacks(experiment.recording.callbacks)
    if fresh:
        check_removable(workdir, experiment)
    else:
        check_same_run(workdir, experiment, trust_checkpoint=trust_checkpoint)
    job: TrainingJob = job_type(experiment, workdir)
    state = jax.eval_shape(job.initial_state)
    check_free_space(_existing(workdir), state)
    step = 0 if fresh else _newest_step(workdir, job, state)
    if not step:
        job.open_pretrained()
    if profiled:
        profiled.require_after(step, workdir)
    training, devices = experiment.training, f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    yield f"{experiment.name}: {job.source.description}"
    yield f"{job.parameter_counts(state)}; {training.batch_size} images a batch over {devices}"
    yield from job.remarks()
    yield f"steps {step} to {training.total_steps}, into {workdir}"
    if step < training.total_steps:
        yield "compiling a step .."
        parallel = ParallelStep(job.step, job.constants, driver=training.driver)
        yield _memory(parallel.memory(state, next(job.batches(step))))
    yield "dry run: no step was done and nothing written"


def _newest_step(workdir: Path, job: TrainingJob, state: State) -> int:
    """Returns the step of the newest whole checkpoint, or 0."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(state)
    if restored is None:
        return 0
    step, _, meta = restored
    check_same_data(workdir, meta.get("data"), job.source.fingerprint)
    return step


def _existing(path: Path) -> Path:
    """Returns the first folder that exists, of `path` and those above it."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _memory(memory: StepMemory | None) -> str:
    if memory is None:
        return "jax does not report the memory of a step on this device"
    parts = f"{_size(memory.state_and_batch)} for state and batch, {_size(memory.temporary)} for temporaries"
    return f"memory of a step on each device, as compiled: {_size(memory.peak)} ({parts})"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{math.ceil(num_bytes / 1e5) / 10:,} MB"
