"""Many devices against one, and the two drivers against each other, on four virtual devices of the CPU."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.models.sagan import Discriminator, Generator
from sagan_jax.runtime.collectives import traced_collectives
from sagan_jax.runtime.devices import ParallelStep, backend_error, require_backend
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step
from sagan_jax.training.optimizers import Optimizers
from support.assertions import same_bits
from support.devices import several_devices
from support.networks import SmallDiscriminator, SmallGenerator

DEVICES = 4
DRIVERS = ("pmap", "shard_map")


DESCENT = Optimizers(optax.sgd(1.0), optax.sgd(1.0))
SMALL = AdversarialTask(SmallGenerator(), SmallDiscriminator(), DESCENT, latent_size=6, num_classes=5)


def parallel_step(function, driver, devices=DEVICES):
    return ParallelStep(function, driver=driver, devices=several_devices(devices))


def shards_agree(tree):
    """Tells whether every device holds the same bits. A driver returns those of the first device without a check."""
    return all(
        len({np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}) == 1
        and len(leaf.addressable_shards) == DEVICES
        for leaf in jax.tree.leaves(tree)
    )


# Drivers, with steps that compile in no time.


def sums(state, batch, *, axis_name):
    """Adds up the rows of each update, and keeps all rows in the order of the devices."""
    total = jax.lax.psum(jnp.sum(batch["rows"], axis=1), axis_name)
    order = jax.lax.all_gather(batch["rows"], axis_name, axis=1, tiled=True)
    return {"total": state["total"] + total, "order": order}, {"devices": jax.lax.axis_size(axis_name)}


def small_state():
    return {"total": jnp.zeros(3), "order": jnp.zeros((3, 8))}


def small_batch():
    return {"rows": np.arange(24, dtype=np.float32).reshape(3, 8)}


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_hands_every_row_to_one_device_and_keeps_updates_apart(driver):
    runner = parallel_step(sums, driver)
    state, metrics = runner(runner.replicate(small_state()), small_batch())
    assert state["total"].tolist() == [28.0, 92.0, 156.0]
    assert state["order"].tolist() == small_batch()["rows"].tolist()
    assert int(metrics["devices"]) == DEVICES


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_hands_the_constants_to_every_step_whole(driver):
    def scaled(state, batch, weights, offset, *, axis_name):
        rows = jax.lax.psum(jnp.sum(batch["rows"] * weights["scale"]), axis_name)
        return {"total": state["total"] + rows + offset}, {"size": weights["scale"].size}

    constants = ({"scale": np.full((3, 1), 2.0, np.float32)}, np.float32(0.5))
    runner = ParallelStep(scaled, constants, driver=driver, devices=several_devices(DEVICES))
    state = runner.replicate({"total": jnp.zeros(())})
    placed = runner.shard(small_batch())
    for done in (1, 2):  # the constants outlive the step, and are not moved again
        with jax.transfer_guard("disallow"):
            state, metrics = runner.run(state, placed)
        assert float(state["total"]) == done * (2 * 276 + 0.5)
    assert int(metrics["size"]) == 3
    assert runner.memory(state, small_batch()).state_and_batch >= 4 + 3 * 4 + 4
    if driver == "shard_map":
        traced = runner.trace(*jax.eval_shape(lambda *trees: trees, state, small_batch()))
        assert traced.out_info[0]["total"].shape == ()


@pytest.mark.parametrize("driver", DRIVERS)
def test_step_is_traced_once_for_equal_arguments_and_again_for_others(driver):
    traced = []

    def shifted(shift, state, batch, *, axis_name):
        traced.append(shift)
        return state + shift, {}

    def shifted_by_one(shifts, state, batch, *, axis_name):
        return state + shifts[0], {}

    runner = parallel_step(partial(shifted_by_one, [7]), driver)  # a list is not hashable, but is accepted
    assert float(runner(runner.replicate(jnp.float32(0)), small_batch())[0]) == 7
    # Equal numbers of different types are equal keys but different objects, like the tasks of two runs.
    ends = [
        float(runner(runner.replicate(jnp.float32(0)), small_batch())[0])
        for shift in (3, 3.0, 5)
        for runner in [parallel_step(partial(shifted, shift), driver)]
    ]
    assert ends == [3, 3, 5]
    assert traced == [3, 5]


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_uses_the_devices_it_is_given(driver):
    runner = parallel_step(sums, driver, devices=2)
    state, metrics = runner(runner.replicate(small_state()), small_batch())
    assert int(metrics["devices"]) == 2
    assert state["total"].devices() == set(several_devices(2))


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_returns_the_state_replicated_without_a_device_axis(driver):
    runner = parallel_step(sums, driver)
    state, _ = runner(runner.replicate(small_state()), small_batch())
    assert {name: leaf.shape for name, leaf in state.items()} == {"total": (3,), "order": (3, 8)}
    assert all(leaf.sharding.is_fully_replicated for leaf in state.values())


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_takes_over_the_buffers_of_the_state(driver):
    runner = parallel_step(sums, driver)
    state = runner.replicate(small_state())
    runner(state, small_batch())
    assert state["total"].is_deleted()


@pytest.mark.parametrize("driver", DRIVERS)
def test_replicate_leaves_its_argument_alive(driver):
    runner = parallel_step(sums, driver)
    given = small_state()
    runner(runner.replicate(given), small_batch())
    assert given["total"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("driver", DRIVERS)
def test_batch_that_is_placed_ahead_lies_on_its_devices_and_is_not_moved_again(driver):
    runner = parallel_step(sums, driver)
    placed = runner.shard(small_batch())
    assert isinstance(placed["rows"], jax.Array)
    lies_on = {shard.device: np.asarray(shard.data).ravel().tolist() for shard in placed["rows"].addressable_shards}
    rows = small_batch()["rows"]
    assert lies_on == {
        device: rows[:, 2 * index : 2 * index + 2].ravel().tolist()
        for index, device in enumerate(several_devices(DEVICES))
    }
    state = runner.replicate(small_state())
    with jax.transfer_guard("disallow"):
        state, _ = runner.run(state, placed)
    same_bits(jax.device_get(state), jax.device_get(runner(runner.replicate(small_state()), small_batch())[0]))


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_refuses_rows_that_do_not_divide_by_the_devices(driver):
    runner = parallel_step(sums, driver)
    batch = {"rows": np.zeros((3, 6), np.float32)}
    with pytest.raises(InvalidInputError, match=r"multiple of 4 images.*4 devices share it; got 6\b"):
        runner(runner.replicate(small_state()), batch)


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver_refuses_leaves_of_unequal_rows(driver):
    runner = parallel_step(sums, driver)
    batch = small_batch() | {"labels": np.zeros((3, 4), np.int32)}
    with pytest.raises(InvalidInputError, match="got 4 and 8"):
        runner(runner.replicate(small_state()), batch)


# The backend.

UNABLE = RuntimeError(
    "Unable to initialize backend 'tpu': INTERNAL: Failed to open libtpu.so. (set JAX_PLATFORMS='' to choose one)"
)
LOST = RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.")


@pytest.fixture
def no_devices(monkeypatch):
    def plant(error):
        def fail():
            raise error

        monkeypatch.setattr(jax, "devices", fail)
        return error

    return plant


@pytest.mark.parametrize(
    ("error", "reason"), [(AssertionError(), r"such device\."), (UNABLE, r"\(INTERNAL: Failed to open libtpu.so\)\.")]
)
def test_backend_that_is_absent_is_named_in_one_line(error, reason, no_devices):
    no_devices(error)
    with pytest.raises(InvalidInputError, match=rf"^no '.*cpu' backend here: JAX_PLATFORMS .*{reason}") as raised:
        require_backend()
    assert "\n" not in str(raised.value)


def test_backend_that_is_there_is_no_error():
    require_backend()


def test_loss_of_another_process_is_not_called_an_absent_backend(no_devices):
    no_devices(LOST)
    with pytest.raises(RuntimeError, match=r"^DEADLINE_EXCEEDED"):
        require_backend()


def test_error_of_the_backend_is_told_from_others(no_devices):
    assert backend_error(AssertionError()) is None  # the backend is there: it was another assertion
    no_devices(UNABLE)
    assert isinstance(backend_error(UNABLE), InvalidInputError)
    assert isinstance(backend_error(AssertionError()), InvalidInputError)
    assert backend_error(ValueError("no such file")) is None
    assert backend_error(AssertionError("with a message")) is None


# The adversarial step.


class Run(NamedTuple):
    first: object
    second: object
    metrics: object
    traces: list[int]
    agree: list[bool]


@pytest.fixture(scope="module")
def start():
    return initial_state(SMALL, 3, (4, 4, 2))


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(5)
    images = numbers.uniform(-1, 1, (2, 8, 4, 4, 2)).astype(np.float32)
    return Batch(images, numbers.integers(0, 5, (2, 8)).astype(np.int32))


def two_steps(driver, start, batch):
    traces = []

    def counted(state, batch, *, axis_name):
        traces.append(1)
        return step(SMALL, state, batch, axis_name=axis_name)

    runner = parallel_step(counted, driver)
    state, _ = runner(runner.replicate(start), batch)
    first, counts, agree = jax.device_get(state), [len(traces)], [shards_agree(state)]
    state, metrics = runner(state, batch)
    agree.append(shards_agree((state, metrics)))
    return Run(first, jax.device_get(state), jax.device_get(metrics), [*counts, len(traces)], agree)


@pytest.fixture(scope="module")
def runs(start, batch):
    return {driver: two_steps(driver, start, batch) for driver in DRIVERS}


@pytest.mark.slow
def test_drivers_give_the_same_bits(runs):
    pmap, shard_map = runs["pmap"], runs["shard_map"]
    assert same_bits(pmap[:3], shard_map[:3])  # first, second and metrics


@pytest.mark.parametrize("driver", DRIVERS)
def test_second_step_is_not_traced_again(driver, runs):
    assert runs[driver].traces[1] == runs[driver].traces[0]


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_device_holds_the_same_state(driver, runs):
    assert runs[driver].agree == [True, True]


@pytest.fixture(scope="module")
def local(start, batch):
    runner = parallel_step(partial(step, dataclasses.replace(SMALL, global_moments=False)), "pmap")
    state, _ = runner(runner.replicate(start), batch)
    return jax.device_get(state), shards_agree(state)


def test_running_moments_of_devices_apart_are_averaged(local, runs):
    # The norm sees features that depend on no moments. A mean of means of equal parts is the mean of all.
    apart, together = (state.generator.batch_stats["norm"] for state in (local[0], runs["pmap"].first))
    np.testing.assert_allclose(apart["mean"], together["mean"], rtol=1e-4, atol=1e-6)
    assert local[1]


def test_variances_of_devices_apart_miss_the_spread_between_them(local, runs):
    apart, together = (state.generator.batch_stats["norm"] for state in (local[0], runs["pmap"].first))
    missed = together["variance"] - apart["variance"]
    assert missed.min() > 0
    assert missed.max() > 1e-4


def test_moments_take_one_collective_for_each_norm_and_pass_and_one_for_its_gradient(start, batch):
    """G and D have one norm each. Each of D's two updates passes G once and D twice. G's update passes each once."""

    def counts(task):
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (start, batch))
        traced = parallel_step(partial(step, task), "shard_map").trace(*shapes)
        return {found.kind: found.count for found in traced_collectives(traced.jaxpr)}

    together, apart = counts(SMALL), counts(dataclasses.replace(SMALL, global_moments=False))
    assert together["all-gather"] == 2 * (1 + 2) + (1 + 1)
    assert together["all-reduce"] - apart["all-reduce"] == 2 * 2 + (1 + 1)
    assert "all-gather" not in apart


# The real networks in float64. D has batch norm here, so that it too must share its moments.


class RoundingGenerator(Generator):
    """Takes latents on a grid: they are drawn in float32, whose last bit differs from one compilation to another."""

    def __call__(self, latents, labels, *, train):
        return super().__call__(jnp.round(latents * 64) / 64, labels, train=train)


class Exact(NamedTuple):
    start: object
    one: object
    many: object


@pytest.fixture(scope="module")
def exact():
    """One step from the same state: on one device, and on four with the same global batch."""
    sizes = {"resolution": 32, "num_classes": 5, "base_channels": 1, "attention_resolutions": (16,), "norm_decay": 0.9}
    generator = RoundingGenerator(**sizes, final_norm_decay=0.8)
    task = AdversarialTask(generator, Discriminator(**sizes, norm="batch"), DESCENT, latent_size=6, num_classes=5)
    numbers = np.random.default_rng(6)
    shapes = jax.eval_shape(lambda: initial_state(task, 0, (32, 32, 3)))
    state = jax.tree.map(
        lambda leaf: (
            0.3 + 0.2 * numbers.normal(size=leaf.shape) if leaf.dtype == jnp.float32 else np.ones((), leaf.dtype)
        ),
        shapes,
    )
    images = numbers.uniform(-1, 1, (1, 8, 32, 32, 3))
    batch = Batch(images, numbers.integers(0, 5, (1, 8)).astype(np.int32))
    with jax.enable_x64(True):
        one = jax.jit(partial(step, task), compiler_options={"xla_backend_optimization_level": 0})(state, batch)
        runner = parallel_step(partial(step, task), "pmap")
        many = runner(runner.replicate(state), batch)
        return Exact(state, *map(jax.device_get, (one, many)))


def relative_distance(first, second):
    """Returns the largest difference relative to the largest entry of all. A gradient that is 0 has no scale itself."""
    first, second = jax.tree.leaves(first), jax.tree.leaves(second)
    assert {leaf.dtype for leaf in first + second} == {np.dtype(np.float64)}
    largest = max(np.abs(leaf).max() for leaf in second)
    return max(np.abs(one - other).max() for one, other in zip(first, second, strict=True)) / largest


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_gradients_on_four_devices_are_those_on_one(name, exact):
    def gradients(end):
        return jax.tree.map(np.subtract, getattr(exact.start, name).params, getattr(end[0], name).params)

    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients(exact.one))) > 0.01
    assert relative_distance(gradients(exact.many), gradients(exact.one)) < 1e-12


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_running_moments_on_four_devices_are_those_on_one(name, exact):
    one, many = (getattr(end[0], name).batch_stats for end in (exact.one, exact.many))
    assert relative_distance(many, one) < 1e-12


@pytest.mark.slow
@pytest.mark.one_jax
def test_metrics_on_four_devices_are_those_on_one(exact):
    assert exact.one[1].keys() == exact.many[1].keys()
    for name, value in exact.one[1].items():
        np.testing.assert_allclose(exact.many[1][name], value, rtol=1e-11, err_msg=name)


# The memory of a step.


@pytest.mark.parametrize("driver", DRIVERS)
def test_memory_of_a_step_counts_state_batch_and_what_is_computed(driver):
    """Numbers of 4 bytes: a donated state of 1,000, a quarter of a batch of 8 rows, and 250 x 1,000 products."""

    def step(state, batch, *, axis_name):
        products = jnp.sort(jnp.outer(jax.lax.pmean(batch.sum(), axis_name) + state[:250], state), axis=0)
        return jnp.sort(products, axis=1)[0], {}

    memory = parallel_step(step, driver).memory(
        jax.ShapeDtypeStruct((1000,), jnp.float32), np.ones((1, 8, 6), "float32")
    )
    assert 4 * (1000 + 2 * 6) <= memory.state_and_batch <= 4 * (2 * 1000 + 2 * 6) + 64
    assert 4 * 250 * 1000 <= memory.temporary <= 4 * 4 * 250 * 1000
    assert memory.peak == memory.state_and_batch + memory.temporary
