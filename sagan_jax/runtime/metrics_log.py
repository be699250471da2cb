"""The metrics of a run: `metrics.jsonl` and TensorBoard, written and read."""

import contextlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]

from sagan_jax.errors import StorageError
from sagan_jax.runtime.files import disk_errors, write_atomically
from sagan_jax.runtime.image_files import save_png


def _kept_lines(content: bytes, last_step: int) -> bytes:
    """Returns the lines that can be read and whose step is not above `last_step`, each with its end of line."""
    kept = []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["step"] <= last_step:
                kept.append(line + b"\n")
    return b"".join(kept)


class MetricsWriter:
    """Writes the metrics and pictures of a run, as a context manager; where there are processes, in the first only.

        with MetricsWriter(workdir, first_step=0) as recorder:
            recorder.scalars(100, {"generator/loss": 0.5})
            recorder.image("samples", 1000, grid)

    `metrics.jsonl` gets one JSON object a line, on disk when the call returns; `tensorboard/` the same.
    What an interrupted run wrote after the step it is resumed from is taken away on opening, and so is a last line
    that was torn: steps never go back.

    Args:
        workdir: made if it is not there.
        first_step: the step that the state is at: 0 at the start, the restored step after a stop.

    Raises:
        StorageError: from any method, when the disk refused.
    """

    def __init__(self, workdir: str | Path, *, first_step: int) -> None:
        self._workdir = Path(workdir)
        path = self._metrics_path = self._workdir / "metrics.jsonl"
        with disk_errors(path):
            self._workdir.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
        kept = _kept_lines(content, first_step)
        if kept != content:
            write_atomically(path, kept)
        folder = self._workdir / "tensorboard"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            # Not `SummaryWriter`: its thread dies of a full disk unheard, and the run then waits for it for ever.
            # Its names differ by the second only, and it empties a file that is there: hence the suffix.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        # Tells TensorBoard to forget the steps that will be done again.
        self._write_event(first_step + 1, session_log=SessionLog(status=SessionLog.START))
        with disk_errors(path):
            self._metrics = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with disk_errors(self._workdir), contextlib.closing(self._events):
                self._metrics.close()
        except StorageError:
            # After another error that one is to be heard; each call has flushed what it wrote.
            if error is None:
                raise

    def _write_event(self, step: int, **content: Any) -> None:
        with disk_errors(self._workdir / "tensorboard"):
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
            self._events.flush()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends the values of a step; what is not finite becomes null in the JSON and is left out of TensorBoard.

        Args:
            step: above the steps before.
            values: numbers, or arrays of one, by name such as `generator/loss`.

        Raises:
            StorageError: when the disk refused.
        """
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        line = {"step": int(step), **{name: finite.get(name) for name in numbers}}
        with disk_errors(self._metrics_path):
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics.flush()
        points = [Summary.Value(tag=name, simple_value=number) for name, number in finite.items()]
        self._write_event(int(step), summary=Summary(value=points))

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Writes `samples/<name>-<step>.png`, the step in eight digits, and the same to TensorBoard.

        Args:
            name: the stem of the file.
            step: the step of the state that drew it.
            image: `[H, W, C]` uint8, C 1 or 3.

        Raises:
            InvalidInputError: for another dtype or shape.
            StorageError: when the disk refused.
        """
        save_png(self._workdir / "samples" / f"{name}-{step:08d}.png", image)
        self._write_event(int(step), summary=summary.image(name, image, dataformats="HWC"))
