"""Stops a run at a signal. After the first one, the run finishes its step and saves. The second ends it at once."""

import os
import signal
import sys
from signal import Signals
from types import TracebackType
from typing import Self

import jax
from jax.experimental import multihost_utils

from sagan_jax.runtime.lost_output import drop_lost_outputs
from sagan_jax.runtime.signal_listener import SignalListener, end_process, stop_signals


class StopSignals:
    """Listens for SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a closed terminal), as a context manager.

        with StopSignals() as stop:
            while not stop.should_stop(done):
                ...

    SIGHUP is not handled if it is ignored at the start, as under `nohup`. See `SignalListener` for threads.

    With several processes, all stop after the same step, whichever process receives the signal. In that case jax itself
    listens for SIGTERM, so other signals are forwarded to it as SIGTERM.

    Attributes:
        activity: what the run is doing, such as "compiling the first step". The line printed at a signal includes it.
            Empty while the run trains.
    """

    def __init__(self) -> None:
        self.activity = ""
        self._single_process = jax.process_count() == 1
        signals = stop_signals()
        if not self._single_process:
            signals = tuple(number for number in signals if number != signal.SIGTERM)
        self._listener = SignalListener(signals, self._heard)
        self._received: Signals | None = None

    @property
    def signal(self) -> Signals:
        """The first signal that this process received; SIGTERM if another process received it."""
        return self._received or signal.SIGTERM

    @property
    def heard_one(self) -> bool:
        """Whether this process received a signal."""
        return self._received is not None

    def should_stop(self, done: int) -> bool:
        """Returns whether to stop after `done` steps. With several processes, call this after every step."""
        if self._single_process:
            return self._received is not None
        return multihost_utils.reached_preemption_sync_point(done)

    def __enter__(self) -> Self:
        self._listener.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.__exit__(kind, error, traceback)

    def _heard(self, number: Signals) -> None:
        if self._received is not None:
            end_process(number, f"{number.name}: ended at once; the run can be resumed from its last checkpoint")
        self._received = number
        if not self._single_process:
            os.kill(os.getpid(), signal.SIGTERM)
        if number == signal.SIGHUP:
            drop_lost_outputs()
        first = f"still {self.activity}, then " if self.activity else ""
        print(
            f"{number.name}: {first}finishing the step and saving; a second signal ends the run at once",
            file=sys.stderr,
            flush=True,
        )
