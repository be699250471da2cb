"""The callback that writes what a run records for TensorBoard."""

import contextlib
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]

from sagan_jax.runtime.callbacks import Callback, HowEnded, RunStart
from sagan_jax.runtime.files import disk_errors


class TensorBoard(Callback):
    """Writes metrics and images as events to `tensorboard/` in the workdir. They are on disk when a method returns.

    A resumed run makes TensorBoard discard the steps that are repeated. If somebody removes the file during the run, a
    new file is started, with a line on stderr.
    """

    def start(self, run: RunStart) -> None:
        """Opens a file of events.

        Raises:
            StorageError: when the file cannot be written; the other methods raise it too.
        """
        self._folder = run.workdir / "tensorboard"
        self._open()
        self._write(run.first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values that are finite."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        points = [Summary.Value(tag=name, simple_value=value) for name, value in finite.items()]
        self._write(step, summary=Summary(value=points))

    def images(self, name: str, step: int, image: np.ndarray) -> None:
        """Writes the image."""
        self._write(step, summary=summary.image(name, image, dataformats="HWC"))

    def end(self, how: HowEnded, message: str) -> None:
        """Closes the file."""
        # If the file was removed and no new one could be started, it is closed already.
        with disk_errors(self._folder), contextlib.suppress(ValueError):
            self._events.close()

    def _open(self) -> None:
        # Not `SummaryWriter`: on a full disk its thread ends silently, and the run then waits for it forever.
        # `EventsWriter` names a file by the second, and empties an existing file. The suffix makes the name unique.
        suffix = f".{time.time_ns()}"
        with disk_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(self._folder / "events"), suffix)
            self._path: Path = next(path for path in self._folder.iterdir() if path.name.endswith(suffix))

    def _write(self, step: int, **content: Any) -> None:
        with disk_errors(self._folder):
            if not self._path.exists():
                line = f"warning: {self._path} was removed while the run wrote it; a new file is started."
                print(line, file=sys.stderr, flush=True)
                self._events.close()
                self._open()
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
            self._events.flush()
