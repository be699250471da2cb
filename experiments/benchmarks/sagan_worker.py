"""The worker of `step_vs_studiogan.py` and `scaling.py`: our training step. See `worker.py`.

XLA counts the operations before optimisation, because on a GPU the count of the compiled step misses library calls.
Bytes and memory are those of the compiled step. Bytes are reported only on a CPU, for the same reason.
"""

import argparse
import dataclasses
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from worker import Work, read_work, serve

from sagan_jax.config import Experiment, Networks, Training, from_dict
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step
from sagan_jax.training.flops import step_flops

Take = Callable[[], Any]
"""takes a step, and returns the arrays to wait for"""


def training_of(batch: int, precision: str) -> Training:
    """Returns the training config with a precision; exits with a message if the package cannot choose a precision."""
    if "precision" in {field.name for field in dataclasses.fields(Training)}:
        return from_dict({"batch_size": batch, "precision": precision}, Training)
    if precision != "float32":
        sys.exit(f"this version of sagan_jax has no training.precision, so there is no {precision!r}")
    return Training(batch_size=batch)


def experiment_of(work: Work, precision: str) -> Experiment:
    """Returns the experiment of a `Work`: the paper's SAGAN at that size."""
    networks = Networks(
        resolution=work.resolution,  # pyrefly: ignore[bad-argument-type]
        num_classes=work.classes,
        base_channels=work.width,
        latent_size=work.latent,
        generator_attention_resolutions=(work.attention,),
        discriminator_attention_resolutions=(work.attention,),
    )
    return Experiment(networks=networks, training=training_of(work.batch, precision))


def random_batch(work: Work) -> Batch:
    """Returns random images in place of real ones, all of one class."""
    shape = (1, work.batch, work.resolution, work.resolution, 3)
    return Batch(jax.random.uniform(jax.random.key(0), shape, minval=-1), jnp.zeros((1, work.batch), jnp.int32))


def alone(task: AdversarialTask, work: Work) -> tuple[Take, dict[str, Any]]:
    """Returns a step on one device, and facts about its program."""
    state, batch = initial_state(task, 0, (work.resolution, work.resolution, 3)), random_batch(work)
    compiled = jax.jit(partial(step, task), donate_argnums=0).lower(state, batch).compile()
    memory, facts = compiled.memory_analysis(), {}
    # XLA counts the body of a loop once, so there is no count of a program with a loop.
    has_loop = " while(" in (compiled.as_text() or "")
    if jax.default_backend() == "cpu" and not has_loop and (cost := compiled.cost_analysis()):
        facts = {"compiled_flops": cost["flops"], "bytes_accessed": cost["bytes accessed"]}

    def take() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return take, {"temporary_bytes": memory.temp_size_in_bytes if memory else None, **facts}


def shared(task: AdversarialTask, work: Work, devices: int) -> tuple[Take, dict[str, Any]]:
    """Returns a step whose batch several devices share, and facts about the program of each device."""
    batch = jax.tree.map(jax.device_get, random_batch(work))
    parallel = ParallelStep(partial(step, task), devices=jax.devices()[:devices])
    first = initial_state(task, 0, (work.resolution, work.resolution, 3))
    state = parallel.replicate(first)
    memory = parallel.memory(state, batch)

    def take() -> Any:
        nonlocal state
        state, metrics = parallel(state, batch)
        return metrics

    return take, {"temporary_bytes": memory.temporary if memory else None}


def product(kind: Any) -> float:
    """Returns the GFLOP/s of a product of two square matrices with a float32 result."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    one, other = (jax.random.normal(jax.random.key(number), (size, size), kind) for number in range(2))
    multiply = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))

    def once() -> float:
        start = time.perf_counter()
        multiply(one, other).block_until_ready()
        return time.perf_counter() - start

    once()  # compiles
    return 2e-9 * size**3 / min(once() for _ in range(6))


def main() -> None:
    """Takes the first step, and then serves requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--devices", type=int, default=0, help="devices that share each batch; 0: one, without a map")
    work, given = read_work(parser, sys.argv[1:])
    task = build_adversarial_task(experiment_of(work, given.precision))
    start = time.perf_counter()
    take, facts = shared(task, work, given.devices) if given.devices else alone(task, work)
    jax.block_until_ready(take())
    compiling = time.perf_counter() - start

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready([take() for _ in range(steps)])
        return time.perf_counter() - start

    device = jax.devices()[0]
    rows = work.batch // max(1, given.devices)
    facts |= {
        "library": f"jax {jax.__version__}",
        "python": platform.python_version(),
        "device": "cpu" if device.platform == "cpu" else device.device_kind,
        "flops": step_flops(task, rows, (work.resolution, work.resolution, 3)),
        "first_step_seconds": compiling,
    }
    serve(
        facts,
        {
            "step": seconds,
            "memory": lambda: {"bytes": facts["temporary_bytes"]},
            "peak": lambda: {"float32": product(jnp.float32), "bfloat16": product(jnp.bfloat16)},
        },
    )


if __name__ == "__main__":
    main()
