"""Plans an experiment on devices that need not be present: memory, operations, collectives and time of a step."""

import dataclasses
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import sagan_jax
from sagan_jax.config import AnyExperiment, CompletionExperiment, Experiment, from_dict, to_dict
from sagan_jax.errors import InvalidInputError, SaganError, StorageError, one_line
from sagan_jax.runs.build import build_adversarial_task, build_completion_task, image_shape
from sagan_jax.runs.completion import perceptual_variables
from sagan_jax.runs.largest_batch import largest_batch
from sagan_jax.runs.plan_targets import Target, open_target
from sagan_jax.runs.saved_config import source_digests
from sagan_jax.runs.validate import check_saved_config, check_shares
from sagan_jax.runtime.cache_folders import cache_folder
from sagan_jax.runtime.compiled_programs import CompiledProgram, compile_program, program_from_dict, program_to_dict
from sagan_jax.runtime.devices import ParallelStep, require_backend
from sagan_jax.runtime.files import read_json, write_atomically
from sagan_jax.runtime.gpu_topologies import assembler_needed
from sagan_jax.runtime.packages import installed_version
from sagan_jax.training import adversarial, completion
from sagan_jax.training.flops import program_flops
from sagan_jax.training.precision import default_precision

Notify = Callable[[str], None]

SHARES = (0.15, 0.30, 0.45)
"""Assumed shares of the published peak, if the compiler gives no estimate of the time of a step."""

_SAY_EVERY_SECONDS = 60.0
# The program of a step depends on the sources in these folders.
_SOURCES = ("functional", "models", "training")
_RUNTIME_SOURCES = ("collectives", "compiled_programs", "devices", "gpu_kernels", "hlo_text")
_VERSIONS = ("jax", "jaxlib", "libtpu", "jax-cuda13-pjrt", "jax-cuda12-pjrt", "flax", "optax")
_CHANGE_NO_PROGRAM = ("total_steps", "seed", "driver", "init_from")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The resources that an experiment needs on some devices. Unknown values are None.

    Attributes:
        experiment: the name of the experiment.
        devices: the name of the devices, such as `v5e:2x4`.
        device_kind: the kind of one device.
        device_count: the number of devices.
        precision: the precision of the step.
        batch_size: images per step, over all devices together.
        accumulation_steps: microbatches of a batch.
        images_per_step: real images that a step reads, over all devices.
        total_steps: training steps of the run.
        flops: floating-point operations of a step on one device, by `program_flops`.
        memory_limit: bytes of memory of one device that a program can use.
        peak: the published rate of one device in this precision, in operations per second.
        program: facts on the compiled step; None if no compiler is available.
        largest_batch: the largest batch that fits, to within an eighth; None if it was not requested.
    """

    experiment: str
    devices: str
    device_kind: str
    device_count: int
    precision: str
    batch_size: int
    accumulation_steps: int
    images_per_step: int
    total_steps: int
    flops: float
    memory_limit: int | None
    peak: float | None
    program: CompiledProgram | None
    largest_batch: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether a step fits the memory of a device."""
        return _fits(self.program, self.memory_limit)

    @property
    def step_seconds(self) -> dict[str, float]:
        """Estimates of the time of a step in seconds, by basis.

        The basis is the compiler's estimate if it is plausible, else each of `SHARES` of the peak. There is no estimate
        if the peak is unknown.
        """
        if self.peak is None:
            return {}
        fastest = self.flops / self.peak
        told = self.program.seconds if self.program else None
        if told is not None and fastest <= told < math.inf:  # some programs get a negative estimate
            return {"XLA's estimate": told}
        return {f"{share:.0%}": fastest / share for share in SHARES}

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON types, with the derived times and the verdict on memory."""
        times = {
            basis: {
                "step_seconds": seconds,
                "hours": seconds * self.total_steps / 3600,
                "chip_hours": seconds * self.total_steps / 3600 * self.device_count,
                "input_images_per_second": self.images_per_step / seconds,
            }
            for basis, seconds in self.step_seconds.items()
        }
        memory = self.program.memory if self.program else None
        return dataclasses.asdict(self) | {"memory": memory, "fits": self.fits, "times": times}


def plans(
    experiment: AnyExperiment,
    targets: Sequence[str] = (),
    *,
    find_largest_batch: bool = False,
    notify: Notify = lambda line: None,
) -> Iterator[Plan]:
    """Yields the plan of an experiment for each of the named devices. Compiling can take minutes for each.

    Results of the compiler are cached in `plans` in the cache folder. The key covers everything that they depend on.

    Args:
        experiment: a config. Its images are not opened.
        targets: TPU slices such as `v5e:2x4`, or GPUs such as `h200:8`. Defaults to the devices that jax sees.
        find_largest_batch: also find the largest batch that fits, which compiles several programs.
        notify: receives lines of progress.

    Raises:
        InvalidInputError: the config is not possible on these devices, a name does not name devices, or a part of the
            compiler is missing.
    """
    experiment = from_dict(to_dict(experiment))
    check_saved_config(experiment)
    require_backend()
    opened = [open_target(name) for name in targets] or [open_target()]
    for target in opened:  # all, before the first compilation
        _check(experiment, target, find_largest_batch)
    for target in opened:
        yield _plan(experiment, target, find_largest_batch, notify)


def _check(experiment: AnyExperiment, target: Target, find_largest_batch: bool) -> None:
    try:
        check_shares(experiment, target.count)
    except InvalidInputError as error:
        raise InvalidInputError(f"{target.name}: {error}") from None
    if find_largest_batch and (target.devices is None or target.memory is None):
        raise InvalidInputError(
            f"--largest-batch needs devices with a known memory and a compiler; {target.name} does not have both. "
            f"Name a TPU slice with --topology, or GPUs after pip install 'sagan-jax[plan-gpu]'."
        )


def _plan(experiment: AnyExperiment, target: Target, find_largest_batch: bool, notify: Notify) -> Plan:
    training = experiment.training
    precision = default_precision(target.platform) if training.precision == "auto" else training.precision
    experiment = _with_training(experiment, precision=precision)
    found = _kept(experiment, target, notify)
    plan = Plan(
        experiment=experiment.name,
        devices=target.name,
        device_kind=target.kind,
        device_count=target.count,
        precision=precision,
        batch_size=training.batch_size,
        accumulation_steps=getattr(training, "accumulation_steps", 1),
        images_per_step=training.batch_size * getattr(training, "discriminator_steps", 1),
        total_steps=training.total_steps,
        flops=found.flops,
        memory_limit=target.memory,
        peak=target.chip.peak[precision] if target.chip else None,
        program=found.program,
    )
    if not find_largest_batch:
        return plan
    return dataclasses.replace(plan, largest_batch=_largest_batch(experiment, target, plan, notify))


def _largest_batch(experiment: AnyExperiment, target: Target, plan: Plan, notify: Notify) -> int:
    def fits(batch: int) -> bool:
        program = _kept(_with_training(experiment, batch_size=batch), target, notify).program
        answer = _fits(program, target.memory) is True
        notify(f"{target.name}: batch {batch:,} {'fits' if answer else 'does not fit'}")
        return answer

    return largest_batch(fits, plan.batch_size, plan.device_count * plan.accumulation_steps)


def _fits(program: CompiledProgram | None, limit: int | None) -> bool | None:
    if program is None:
        return None
    if program.refused:
        return False
    return None if program.memory is None or limit is None else program.memory <= limit


def _with_training(experiment: Any, **values: Any) -> Any:
    return dataclasses.replace(experiment, training=dataclasses.replace(experiment.training, **values))


class _Found(NamedTuple):
    flops: float
    program: CompiledProgram | None


def _kept(experiment: AnyExperiment, target: Target, notify: Notify) -> _Found:
    """Returns the operations and the program of a step, from the cache if possible."""
    folder = cache_folder("auto", "plans")
    path = folder and folder / f"{_key(experiment, target)}.json"
    if path:
        try:
            values = read_json(path)
            program = values["program"]
            return _Found(float(values["flops"]), program and program_from_dict(program))
        except (OSError, SaganError, TypeError, ValueError, KeyError):
            pass  # missing, damaged, or of another version: compute it again
    found = _find(experiment, target, notify)
    if path:
        content = {"flops": found.flops, "program": found.program and program_to_dict(found.program)}
        try:
            write_atomically(path, json.dumps(content).encode())
        except StorageError as error:
            notify(f"warning: the result is not cached for the next plan: {one_line(error)}")
    return found


def _find(experiment: AnyExperiment, target: Target, notify: Notify) -> _Found:
    batch_size = experiment.training.batch_size
    whole = experiment
    if isinstance(experiment, Experiment):  # microbatches are a loop, and only one pass of it would be counted
        whole = _with_training(experiment, accumulation_steps=1)
    flops = program_flops(*_abstract_step(whole, batch_size // target.count))
    if target.devices is None:
        return _Found(flops, None)
    step, state, batch = _abstract_step(experiment, batch_size)
    activity = f"{target.name}: compiling a step of {batch_size:,} images"
    with _said(activity, notify), assembler_needed():
        traced = ParallelStep(step, driver="shard_map", devices=target.devices).trace(state, batch)
        program = compile_program(traced)
    if target.platform == "gpu":  # XLA's counts leave out what libraries do, such as convolutions
        program = dataclasses.replace(program, flops=None, bytes_accessed=None, seconds=None)
    return _Found(flops, program)


def _abstract_step(experiment: AnyExperiment, batch_size: int) -> tuple[Callable[..., Any], Any, Any]:
    """Returns the function of a step, and the shapes of its state and its batch."""
    shape = image_shape(experiment)
    if isinstance(experiment, CompletionExperiment):
        task = build_completion_task(experiment)
        batch = completion.CompletionBatch(
            jax.ShapeDtypeStruct((1, batch_size, *shape), jnp.float32),
            jax.ShapeDtypeStruct((1, batch_size, *shape[:2]), jnp.bool_),
        )
        return _completion_step(experiment, task), jax.eval_shape(lambda: completion.initial_state(task, 0)), batch
    task = build_adversarial_task(experiment)
    updates = experiment.training.discriminator_steps
    batch = adversarial.Batch(
        jax.ShapeDtypeStruct((updates, batch_size, *shape), jnp.float32),
        jax.ShapeDtypeStruct((updates, batch_size), jnp.int32),
    )
    return partial(adversarial.step, task), jax.eval_shape(lambda: adversarial.initial_state(task, 0, shape)), batch


def _completion_step(experiment: CompletionExperiment, task: completion.CompletionTask) -> Callable[..., Any]:
    """Returns the step of a completion run, with the weights of the perceptual loss as constants of the program."""
    constants = perceptual_variables(experiment)

    def step(state: Any, batch: Any, *, axis_name: str | None = None) -> Any:
        return completion.step(task, state, batch, *constants, axis_name=axis_name)

    return step


@contextmanager
def _said(activity: str, notify: Notify) -> Iterator[None]:
    """Announces an activity, and repeats the announcement with the elapsed time until the activity ends."""
    done, seconds = threading.Event(), 0.0
    notify(f"{activity} (this can take minutes)")

    def go_on() -> None:
        nonlocal seconds
        while not done.wait(_SAY_EVERY_SECONDS):
            seconds += _SAY_EVERY_SECONDS
            notify(f"{activity}: {seconds:.0f} s so far")

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _key(experiment: AnyExperiment, target: Target) -> str:
    """Returns a cache key for everything that the program of a step depends on."""
    values = to_dict(experiment)
    training = {name: value for name, value in values["training"].items() if name not in _CHANGE_NO_PROGRAM}
    decides = {
        "task": type(experiment).__name__,
        "networks": values["networks"],
        "own": source_digests(experiment),
        "training": training,
        "devices": [target.name, target.platform, target.kind, target.count],
        "versions": {name: installed_version(name) or "" for name in _VERSIONS},
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "sources": _digest_of_sources(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _digest_of_sources() -> str:
    package = Path(sagan_jax.__file__).parent
    files = [path for folder in _SOURCES for path in sorted((package / folder).glob("*.py"))]
    files += [package / "runtime" / f"{name}.py" for name in _RUNTIME_SOURCES]
    files += [package / "runs" / name for name in ("build.py", "families.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
