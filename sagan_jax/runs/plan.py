"""What an experiment would need on devices that need not be there: memory, operations, collectives and time."""

import dataclasses
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
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
from sagan_jax.training import adversarial, completion
from sagan_jax.training.flops import program_flops
from sagan_jax.training.precision import default_precision

Notify = Callable[[str], None]

SHARES = (0.15, 0.30, 0.45)
"""Of the published peak, where the compiler does not tell how long a step takes."""

_SAY_EVERY_SECONDS = 60.0
# What these folders hold decides the program of a step.
_SOURCES = ("functional", "models", "training")
_CHANGE_NO_PROGRAM = ("total_steps", "seed", "driver", "init_from")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an experiment would need on some devices. What is not known is None.

    Attributes:
        experiment: its name.
        devices: their name, such as `v5e:2x4`.
        device_kind: of one of them.
        device_count: how many there are.
        precision: of the step.
        batch_size: images a step over all devices.
        accumulation_steps: microbatches of a batch.
        images_per_step: real images that a step reads, over all devices.
        total_steps: of the run.
        flops: operations of a step on one device, by `step_flops`.
        memory_limit: bytes of memory of one device.
        peak: its published rate in this precision, in operations a second.
        program: what the compiler says of a step; None where no compiler is at hand.
        largest_batch: the largest batch that fits, to within an eighth; None where nobody asked.
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
        """The time of a step by what it is based on: the compiler's estimate where plausible, or shares of the peak."""
        if self.peak is None:
            return {}
        fastest = self.flops / self.peak
        told = self.program.seconds if self.program else None
        if told is not None and fastest <= told < math.inf:  # some programs get a negative one
            return {"XLA's estimate": told}
        return {f"{share:.0%}": fastest / share for share in SHARES}

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON types, with what follows from it."""
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
    """Yields what an experiment would need on each of the named devices. Compiling can take minutes for each.

    What a compiler said is kept in `plans` in the cache folder, by all that decides it.

    Args:
        experiment: a config. Its images are not opened.
        targets: TPU slices such as `v5e:2x4`, or GPUs such as `h200:8`. Defaults to the devices that jax sees.
        find_largest_batch: also find the largest batch that fits, which compiles several programs.
        notify: receives lines of progress.

    Raises:
        InvalidInputError: the config is not possible on such devices, or there are no such devices.
    """
    experiment = from_dict(to_dict(experiment))
    check_saved_config(experiment)
    require_backend()
    opened = [open_target(name) for name in targets] or [open_target()]
    for target in opened:  # before any of them is compiled for
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
            f"--largest-batch needs devices with a known memory and a compiler for them; {target.name} has not both. "
            f"Name a TPU slice with --topology."
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
    """Returns what was found of a step, from the cache where it is there."""
    folder = cache_folder("auto", "plans")
    path = folder and folder / f"{_key(experiment, target)}.json"
    if path:
        try:
            values = read_json(path)
            program = values["program"]
            return _Found(float(values["flops"]), program and program_from_dict(program))
        except (OSError, SaganError, TypeError, ValueError, KeyError):
            pass  # absent, damaged, or of another version: it is found anew
    found = _find(experiment, target, notify)
    if path:
        content = {"flops": found.flops, "program": found.program and program_to_dict(found.program)}
        try:
            write_atomically(path, json.dumps(content).encode())
        except StorageError as error:
            notify(f"warning: what was compiled is not kept for the next plan: {one_line(error)}")
    return found


def _find(experiment: AnyExperiment, target: Target, notify: Notify) -> _Found:
    batch_size = experiment.training.batch_size
    whole = experiment
    if isinstance(experiment, Experiment):  # of microbatches, which are a loop, one would be counted
        whole = _with_training(experiment, accumulation_steps=1)
    flops = program_flops(*_abstract_step(whole, batch_size // target.count))
    if target.devices is None:
        return _Found(flops, None)
    step, state, batch = _abstract_step(experiment, batch_size)
    activity = f"{target.name}: compiling a step of {batch_size:,} images"
    with _said(activity, notify):
        traced = ParallelStep(step, driver="shard_map", devices=target.devices).trace(state, batch)
        return _Found(flops, compile_program(traced))


def _abstract_step(experiment: AnyExperiment, batch_size: int) -> tuple[Callable[..., Any], Any, Any]:
    """Returns a step with the shapes of its state and of its batch."""
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
    """Returns the step of a completion, which holds the weights of a perceptual term as constants of the program."""
    constants = perceptual_variables(experiment)

    def step(state: Any, batch: Any, *, axis_name: str | None = None) -> Any:
        return completion.step(task, state, batch, *constants, axis_name=axis_name)

    return step


@contextmanager
def _said(activity: str, notify: Notify) -> Iterator[None]:
    """Says what is done, and again from time to time for as long as it lasts."""
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
    """Returns a name for all that decides the program of a step."""
    values = to_dict(experiment)
    training = {name: value for name, value in values["training"].items() if name not in _CHANGE_NO_PROGRAM}
    decides = {
        "task": type(experiment).__name__,
        "networks": values["networks"],
        "own": source_digests(experiment),
        "training": training,
        "devices": [target.name, target.platform, target.kind, target.count],
        "versions": {name: _version(name) for name in ("jax", "jaxlib", "libtpu", "flax", "optax")},
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "sources": _digest_of_sources(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _digest_of_sources() -> str:
    package = Path(sagan_jax.__file__).parent
    files = [path for folder in _SOURCES for path in sorted((package / folder).glob("*.py"))]
    files += [package / "runtime" / name for name in ("devices.py", "collectives.py", "compiled_programs.py")]
    files += [package / "runs" / name for name in ("build.py", "families.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
