"""Measures the time of a step for each row of a table. Rows take turns, so other work on the machine slows all equally.

    taskset -c 0 python experiments/benchmarks/step_speed.py attention_buys

The runs must train generators, not complete images. It prints a line for each row: the median over rounds of the
milliseconds per step, and the median of the ratio to the first row in the same round.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from sagan_jax.cli.main import explained
from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.training.adversarial import Batch, initial_state, step

sys.path.append(str(Path(__file__).parents[1]))
from run_table import load_table


def stepper(experiment: AnyExperiment) -> Callable[[], float]:
    """Returns a function that takes the next step of a run on random images, and returns its seconds.

    Raises:
        InvalidInputError: the run trains no generator.
    """
    if not isinstance(experiment, Experiment):
        raise InvalidInputError("The runs of the table need to train generators; they complete images.")
    task, networks, training = build_adversarial_task(experiment), experiment.networks, experiment.training
    shape = (networks.resolution, networks.resolution, networks.image_channels)
    rows = (training.discriminator_steps, training.batch_size)
    images = jax.random.uniform(jax.random.key(0), (*rows, *shape), minval=-1)
    batch = Batch(images, jnp.zeros(rows, jnp.int32))
    compiled = jax.jit(partial(step, task)).lower(initial_state(task, 0, shape), batch).compile()
    state = initial_state(task, 0, shape)

    def take() -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        return time.perf_counter() - start

    return take


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="the name of a file in experiments/tables")
    parser.add_argument("--rounds", type=int, default=30, help="steps of each")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        raise InvalidInputError(f"--rounds needs at least 1; got {given.rounds}.")
    steppers = {row: stepper(experiment) for row, experiment in load_table(given.table).rows.items()}
    for take in steppers.values():
        take()  # the first step also allocates memory
    rounds = [[take() for take in steppers.values()] for _ in range(given.rounds)]
    print("| row | ms a step | times the first |\n|---|---|---|")
    for row, times in zip(steppers, zip(*rounds, strict=True), strict=True):
        ratio = statistics.median(time / first for time, (first, *_) in zip(times, rounds, strict=True))
        print(f"| {row} | {1000 * statistics.median(times):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "step_speed"))
