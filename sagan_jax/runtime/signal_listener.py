"""Listens for signals in a separate thread. Imports little of the standard library, so that commands start quickly."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType

from sagan_jax.runtime.leftovers import remove_leftovers
from sagan_jax.runtime.lost_output import drop_lost_outputs

TYPE_CHECKING = False  # not from typing: that import takes longer than the rest of a command's startup
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that ask a command to end: SIGTERM, SIGINT, and SIGHUP unless it is ignored (`nohup`)."""
    closed_terminal = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return signal.SIGTERM, signal.SIGINT, *closed_terminal


class SignalListener:
    """Listens for signals while it is open, as a context manager.

    It uses a thread, because Python's signal handlers run in the main thread, which may compile for minutes. Outside
    the main thread, this class does nothing. The former handlers are restored at the end.

    Args:
        signals: the signals to listen for.
        heard: is called in the thread with each signal.
    """

    def __init__(self, signals: Sequence[signal.Signals], heard: Callable[[signal.Signals], None]) -> None:
        self._signals, self._heard = signals, heard

    def __enter__(self) -> Self:
        self._listening = threading.current_thread() is threading.main_thread()
        if self._listening:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._former_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            # Python writes to the pipe only for signals with a Python handler.
            self._former: dict[int, Any] = {number: signal.signal(number, _do_nothing) for number in self._signals}
            # Started last, because starting a thread takes time. Signals until then wait in the pipe.
            self._thread = threading.Thread(target=self._listen, args=(self._pipe[0],), daemon=True)
            self._thread.start()
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
            if received[0] in self._signals:
                self._heard(signal.Signals(received[0]))


def end_process(number: signal.Signals, line: str) -> NoReturn:
    """Prints a line and ends the process at once, in spite of other threads, with the exit code of a signal.

    Half-written files are removed; see `leftovers`.
    """
    with contextlib.suppress(OSError):
        drop_lost_outputs()
        remove_leftovers()
        # A progress bar hides the cursor and leaves its line unfinished.
        shown = "\x1b[?25h\n" if os.isatty(2) else ""
        os.write(2, f"{shown}{line}\n".encode())  # another thread may hold the lock of sys.stderr
    os._exit(128 + number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Does nothing, because the listening thread handles the signal."""
