"""Prefetches batches for the training loop: each is transferred to the devices while the previous step runs."""

import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import jax


class PrefetchedBatches:
    """Fetches the batches of a loop one ahead, as a context manager, and measures how long the devices wait for data.

    The devices wait if they have finished all dispatched steps before the next batch arrives. Time in which the loop
    waits while the devices still work does not count.

        with PrefetchedBatches(batches, place) as prefetched:
            batch = prefetched.take()
            state, metrics = step(state, batch)
            prefetched.fetch(metrics)  # while the step runs

    Args:
        batches: the batches, on the host.
        place: starts the transfer of a batch to the devices and returns it there. Defaults to the batch itself.
        clock: returns seconds.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        place: Callable[[Any], Any] = lambda batch: batch,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batches = iter(batches)
        self._place = place
        self._clock = clock
        self._fetched: list[Any] = []  # at most one batch
        self._error: Exception | None = None
        self._waited, self._since = 0.0, clock()
        self._devices = _Watch(clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._devices.end()

    def fetch(self, running: Any = None) -> None:
        """Waits for the next batch, and starts its transfer. An error is raised later, by `take`.

        Args:
            running: the result of the last step, on the devices that compute it. Without it, the wait does not count.
        """
        finished = None if running is None else self._devices.watch(running)
        start = self._clock()
        try:
            batch = next(self._batches)
            if finished:  # not empty if the devices have already finished
                self._waited += max(0.0, self._clock() - max(start, finished[0]))
            self._fetched.append(self._place(batch))
        except Exception as error:  # StopIteration too
            self._error = error

    def take(self) -> Any:
        """Returns the next batch, on the devices.

        Raises:
            StopIteration: there is none.
            Exception: any error of the batches.
        """
        if not self._fetched and not self._error:
            self.fetch()
        if self._error:
            raise self._error
        return self._fetched.pop()

    def waited_share(self) -> float:
        """Returns the share of the time since the last call in which the devices waited for data, in [0, 1]."""
        now = self._clock()
        share = min(1.0, self._waited / max(now - self._since, 1e-9))
        self._waited, self._since = 0.0, now
        return share


class _Watch:
    """Records the times at which the devices finish their work, in a thread that waits for them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._watched: SimpleQueue[tuple[Any, list[float]] | None] = SimpleQueue()
        # A daemon, because devices that have lost another process may never finish.
        self._thread = threading.Thread(target=self._run, name="device watch", daemon=True)
        self._thread.start()

    def watch(self, result: Any) -> list[float]:
        """Returns a list that will hold the time at which `result` is ready."""
        finished: list[float] = []
        self._watched.put((result, finished))
        return finished

    def end(self) -> None:
        """Ends the thread after the results that it watches are ready."""
        self._watched.put(None)

    def _run(self) -> None:
        while watched := self._watched.get():
            result, finished = watched
            try:
                jax.block_until_ready(result)
            except Exception:  # the loop gets the same error when it reads the result
                continue
            finally:
                del watched, result  # frees their memory
            finished.append(self._clock())
