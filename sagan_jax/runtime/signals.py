"""Stops a run by a signal: the first one lets it finish its step and save, the second one ends it at once."""

import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Listens for SIGTERM and SIGINT (Ctrl-C), as a context manager.

        with StopSignals() as stop:
            while not stop.should_stop(done):
                ...

    A thread listens, because Python's signal handlers run in the main thread, which may compile for minutes. In another
    thread than the main one, this class does nothing. The former handlers are restored at the end.

    With several processes, all stop after the same step, whichever process receives the signal. jax itself listens for
    SIGTERM then, so SIGINT is forwarded to it as SIGTERM.
    """

    def __init__(self) -> None:
        self._single_process = jax.process_count() == 1
        self._signals = (signal.SIGTERM, signal.SIGINT) if self._single_process else (signal.SIGINT,)
        self._received: signal.Signals | None = None

    @property
    def signal(self) -> signal.Signals:
        """The first signal that this process received; SIGTERM if another process received it."""
        return self._received or signal.SIGTERM

    def should_stop(self, done: int) -> bool:
        """Returns whether to stop after `done` steps. With several processes, call this after every step."""
        if self._single_process:
            return self._received is not None
        return multihost_utils.reached_preemption_sync_point(done)

    def __enter__(self) -> Self:
        self._listening = threading.current_thread() is threading.main_thread()
        if self._listening:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._thread = threading.Thread(target=self._listen, args=(self._pipe[0],), daemon=True)
            self._thread.start()
            self._former_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            # Python writes to the pipe only for signals with a Python handler.
            self._former: dict[int, Any] = {number: signal.signal(number, _do_nothing) for number in self._signals}
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
            if not self._single_process:
                os.kill(os.getpid(), signal.SIGTERM)
            print(
                f"{self._received.name}: finishing the step and saving; a second signal ends the run at once",
                file=sys.stderr,
                flush=True,
            )


def _do_nothing(number: int, frame: object) -> None:
    """Does nothing, because the listening thread handles the signal."""
