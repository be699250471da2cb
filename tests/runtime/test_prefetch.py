"""How long devices wait for data, on a clock that the test moves."""

import threading

import pytest

from sagan_jax.runtime.prefetch import PrefetchedBatches


class Clock:
    """A clock that only the test moves. `noted` is set when the thread that watches the devices has read it."""

    def __init__(self):
        self.seconds = 0.0
        self.noted = threading.Event()
        self._owner = threading.current_thread()

    def __call__(self):
        seconds = self.seconds
        if threading.current_thread() is not self._owner:
            self.noted.set()
        return seconds


class Running:
    """The result of a step that the devices compute until the test lets them finish."""

    def __init__(self, clock):
        self._clock, self._over = clock, threading.Event()

    def block_until_ready(self):
        assert self._over.wait(30)
        return self

    def finish(self):
        self._over.set()
        assert self._clock.noted.wait(30)


def share_after(device_seconds, data_seconds, interval=20.0):
    """Returns the share of an interval that devices wait. The step takes `device_seconds`, the data `data_seconds`."""
    clock = Clock()
    running = Running(clock)

    def batches():
        yield "first"
        events = [(data_seconds, lambda: None)]
        if device_seconds <= data_seconds:
            events.insert(0, (device_seconds, running.finish))
        for seconds, happens in events:
            clock.seconds = seconds
            happens()
        yield "second"

    with PrefetchedBatches(batches(), clock=clock) as prefetched:
        assert prefetched.take() == "first"
        prefetched.fetch(running)
        if device_seconds > data_seconds:
            clock.seconds = device_seconds
            running.finish()
        assert prefetched.take() == "second"
        clock.seconds = interval
        return prefetched.waited_share()


def test_devices_wait_from_their_last_step_until_the_data_come():
    assert share_after(device_seconds=4.0, data_seconds=9.0) == (9.0 - 4.0) / 20.0


def test_data_that_come_while_the_devices_work_cost_nothing():
    assert share_after(device_seconds=9.0, data_seconds=4.0) == 0.0


def test_first_batch_does_not_count():
    clock = Clock()

    def batches():
        clock.seconds = 7.0
        yield "first"

    with PrefetchedBatches(batches(), clock=clock) as prefetched:
        prefetched.take()
        assert prefetched.waited_share() == 0.0


def test_share_is_that_of_the_time_since_the_last_one():
    clock = Clock()
    running = Running(clock)

    def batches():
        yield "first"
        running.finish()
        clock.seconds = 2.0
        yield "second"

    with PrefetchedBatches(batches(), clock=clock) as prefetched:
        prefetched.take()
        prefetched.fetch(running)
        clock.seconds = 8.0
        assert prefetched.waited_share() == 0.25
        clock.seconds = 12.0
        assert prefetched.waited_share() == 0.0


@pytest.mark.parametrize("fails", ["batches", "place"])
def test_error_comes_when_the_batch_is_taken_and_again(fails):
    def batches():
        yield "first"
        if fails == "batches":
            raise KeyError("no image")
        yield "second"

    def place(batch):
        if batch == "second":
            raise KeyError("no room")
        return batch

    with PrefetchedBatches(batches(), place) as prefetched:
        assert prefetched.take() == "first"
        prefetched.fetch()
        for _ in range(2):
            with pytest.raises(KeyError):
                prefetched.take()


def test_thread_ends_with_the_loop():
    with PrefetchedBatches([]) as prefetched:
        thread = prefetched._devices._thread
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()


def test_step_that_failed_on_the_devices_ends_nothing_here():
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("out of memory")

    with PrefetchedBatches([1, 2, 3]) as prefetched:
        prefetched.take()
        prefetched.fetch(Failed())
        assert prefetched.take() == 2
        prefetched.fetch(Failed())
        assert prefetched.take() == 3
