"""Two processes of two devices each against one process of four, on the same global batch."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax._src.distributed import global_state  # its barrier is no collective; it has no public name

from sagan_jax.data import training_batches
from sagan_jax.runtime.devices import ParallelStep
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step
from sagan_jax.training.optimizers import Optimizers
from support.networks import SmallDiscriminator, SmallGenerator
from support.processes import free_port
from support.sources import NoiseImages

DRIVERS = ("pmap", "shard_map")

SIZE = 4
# Plain descent of rate 1: parameters move by their gradients, which Adam's division would hide. Both networks share
# batch moments.
TASK = AdversarialTask(
    SmallGenerator((SIZE, SIZE, 3), num_features=8, attention=True),
    SmallDiscriminator(),
    Optimizers(optax.sgd(1.0), optax.sgd(1.0)),
    latent_size=6,
    num_classes=5,
)


def meet(place):
    """Waits for the other process. A collective gives up after 30 s, and compiling takes longer on a busy machine."""
    if jax.process_count() > 1:
        global_state.client.wait_at_barrier(place, 400_000)


def one_step(driver):
    """Returns the leaves after a step on this process's share of the batch of 8, the metrics, and what was read."""
    source = NoiseImages(101, SIZE)
    (batch,) = training_batches(
        source,
        batch_size=8,
        discriminator_steps=2,
        seed=3,
        first_step=5,
        total_steps=6,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    state = initial_state(TASK, 3, (SIZE, SIZE, 3))
    away = jax.tree.map(lambda leaf: leaf + 0.25 if leaf.ndim == 0 and leaf.dtype == jnp.float32 else leaf, state)
    run = ParallelStep(partial(step, TASK), driver=driver)
    meet(f"{driver}: initial state")
    replicated = run.replicate(away)
    for number in range(jax.process_count()):
        if number == jax.process_index():
            run.memory(replicated, Batch(*batch))  # compiles the step, which the next process finds in the cache
        meet(f"{driver}: compiled by {number}")
    moved, metrics = run(replicated, Batch(*batch))
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path((moved, metrics))[0]
    }
    return leaves, sorted(source.read - {0})  # image 0 is also read for its size


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory):
    """The folder where each of two processes saved its step by each driver."""
    folder = tmp_path_factory.mktemp("two")
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, address, str(folder)]
    both = [subprocess.Popen([*command, str(number)], env=environment) for number in range(2)]
    assert [process.wait(400) for process in both] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def taken_by_one():
    """The step of one process, by one driver. On the devices of one process, both drivers give the same bits."""
    return one_step("shard_map")


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
def test_two_processes_take_the_step_of_one_and_each_reads_its_share(driver, saved_by_two, taken_by_one):
    expected, everything = taken_by_one
    read = []
    for number in range(2):
        with np.load(saved_by_two / f"{driver}-{number}.npz") as saved:
            read.append(set(saved["read"].tolist()))
            scale = max(np.abs(leaf).max() for name, leaf in expected.items() if ".params" in name)
            for name, leaf in expected.items():
                np.testing.assert_allclose(saved[name], leaf, rtol=1e-4, atol=1e-5 * scale, err_msg=name)
    assert read[0] | read[1] == set(everything)
    assert not read[0] & read[1]


if __name__ == "__main__":
    coordinator, folder, number = sys.argv[1:]
    jax.distributed.initialize(coordinator, num_processes=2, process_id=int(number))
    for chosen in DRIVERS:
        found, indices = one_step(chosen)
        np.savez(Path(folder) / f"{chosen}-{number}.npz", read=indices, **found)
