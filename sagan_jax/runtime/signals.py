"""Stopping a run from outside: the first signal asks it to finish its step and save, a second one ends it at once."""

import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Listens for SIGTERM and Ctrl-C, as a context manager.

        with StopSignals() as stop:
            while not stop.reached(done):
                ...

    A thread listens, because Python's own handlers wait for the main thread, which may be compiling for minutes. Off
    the main thread nothing is listened to: signals are not that thread's. What was set before is set again at the end.

    Where there are several processes, all stop after the same step, whichever was signalled: jax itself listens to
    SIGTERM there and would not hear of it from us, so Ctrl-C is handed on to it as SIGTERM.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._signals = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        self._received: signal.Signals | None = None

    @property
    def signal(self) -> signal.Signals:
        """The first that came here; SIGTERM where another process was signalled."""
        return self._received or signal.SIGTERM

    def reached(self, done: int) -> bool:
        """Tells whether to stop, `done` steps being done; with several processes, to be asked after every step."""
        return self._received is not None if self._alone else multihost_utils.reached_preemption_sync_point(done)

    def __enter__(self) -> Self:
        self._listening = threading.current_thread() is threading.main_thread()
        if self._listening:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._thread = threading.Thread(target=self._listen, args=(self._pipe[0],), daemon=True)
            self._thread.start()
            self._former_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            # Without a handler of Python's own, nothing would be written to the pipe.
            self._former: dict[int, Any] = {number: signal.signal(number, _wait) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listening:
            for number, handler in self._former.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._former_pipe)
            os.close(self._pipe[1])  # ends the thread
            self._thread.join()
            os.close(self._pipe[0])

    def _listen(self, pipe: int) -> None:
        while received := os.read(pipe, 1):
            number = received[0]
            if number not in self._signals:
                continue
            if self._received is not None:
                os._exit(128 + number)
            self._received = signal.Signals(number)
            if not self._alone:
                os.kill(os.getpid(), signal.SIGTERM)
            print(
                f"{self._received.name}: finishing the step and saving; a second signal ends the run at once",
                file=sys.stderr,
                flush=True,
            )


def _wait(number: int, frame: object) -> None:
    """Does nothing: the thread that listens has heard it."""
