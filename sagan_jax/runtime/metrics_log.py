"""Writes and reads `metrics.jsonl`, the metrics of a run."""

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

import numpy as np

from sagan_jax.errors import InvalidInputError, StorageError, one_line
from sagan_jax.runtime.callbacks import Callback
from sagan_jax.runtime.files import disk_errors, open_regular, read_regular, write_atomically
from sagan_jax.runtime.image_files import encode_png

_MAX_BYTES = 50_000_000  # of a larger metrics.jsonl, only every second, third, … line is read
_MAX_WHOLE_BYTES = 2**31  # a larger metrics.jsonl is not read
_MAX_LINE_BYTES = 1_000_000
_MAX_STEP = 2**53  # smaller integers are exact as floats, and therefore in figures


class Curve(NamedTuple):
    """A metric over the steps.

    Attributes:
        steps: `[N]` int64, in the order of the file.
        values: `[N]` float64, finite.
    """

    steps: np.ndarray
    values: np.ndarray


class MetricsLog(NamedTuple):
    """The content of a `metrics.jsonl`.

    Attributes:
        curves: by the name of the metric, sorted by name; each has at least one point.
        notes: a sentence for each reason why values were left out.
    """

    curves: dict[str, Curve]
    notes: list[str]


def read_metrics(path: str | Path) -> MetricsLog:
    """Reads a `metrics.jsonl`. The file may be missing, incomplete or very long.

    Lines that are not JSON objects with an integer `step` are skipped, as are values that are not finite numbers.
    Of a file above 50 MB, only every second, third, … line is read, and every line with scores.

    Args:
        path: the file.

    Returns:
        The curves, empty if the file is missing, and notes on values that were left out.
    """
    points: dict[str, tuple[list[int], list[float]]] = {}
    broken = not_finite = 0
    try:
        with open_regular(path) as lines:
            size = os.fstat(lines.fileno()).st_size
            if size > _MAX_WHOLE_BYTES:
                raise InvalidInputError(f"it has {size:,} bytes, more than {_MAX_WHOLE_BYTES:,}")
            stride = 1 + size // _MAX_BYTES
            for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE_BYTES), b"")):
                if number % stride and b'"score/' not in line:
                    continue
                metrics = _parse_line(line)
                if metrics is None:
                    broken += 1
                    continue
                step = metrics.pop("step")
                for name, value in metrics.items():
                    if finite_number(value) is None:
                        not_finite += 1
                        continue
                    steps, values = points.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(float(value))
    except FileNotFoundError:
        return MetricsLog({}, ["There are no metrics yet."])
    except (OSError, InvalidInputError) as error:
        return MetricsLog({}, [f"metrics.jsonl could not be read: {one_line(error)}."])
    curves = {name: Curve(np.array(steps), np.array(values)) for name, (steps, values) in sorted(points.items())}
    return MetricsLog(curves, _reading_notes(broken, not_finite, stride))


def read_step(path: str | Path, step: int) -> dict[str, float]:
    """Returns the metrics of one step in a `metrics.jsonl`, by name.

    Args:
        path: the file; a missing file has no metrics.
        step: the number of completed steps.

    Returns:
        The values of all lines of the step; NaN for a value that is not a finite number.

    Raises:
        InvalidInputError: when it is not a regular file.
        StorageError: when the file cannot be read.
    """
    found: dict[str, Any] = {}
    digits = str(step).encode()
    try:
        with open_regular(path) as lines:
            for line in iter(lambda: lines.readline(_MAX_LINE_BYTES), b""):
                metrics = _parse_line(line) if digits in line else None
                if metrics and metrics.pop("step") == step:
                    found |= metrics
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}") from error
    numbers = {name: finite_number(value) for name, value in found.items()}
    return {name: math.nan if number is None else float(number) for name, number in numbers.items()}


def finite_number(value: Any) -> int | float | None:
    """Returns a number of magnitude below 1e100, which a figure can show; None for any other value, also for a bool.

    Examples:
        >>> [finite_number(value) for value in (0.5, 3, True, "3", float("nan"), None)]
        [0.5, 3, None, None, None, None]
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e100 else None


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Returns the JSON object of a line, or None if it is damaged or has no valid step."""
    try:
        metrics = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = metrics.get("step") if isinstance(metrics, dict) else None
    return metrics if type(step) is int and 0 <= step < _MAX_STEP else None


def _reading_notes(broken: int, not_finite: int, stride: int) -> list[str]:
    """Returns a sentence for each reason why values were left out of the curves."""
    notes = []
    if broken:
        notes.append(f"{broken:,} line{'s' * (broken > 1)} of metrics.jsonl could not be read.")
    if not_finite:
        are = "values are not finite numbers" if not_finite > 1 else "value is not a finite number"
        notes.append(f"metrics.jsonl: {not_finite:,} {are}, so left out.")
    if stride > 1:
        notes.append(f"metrics.jsonl is large: only one line in {stride} was read, and every line with scores.")
    return notes


def _kept_lines(content: bytes, last_step: int) -> bytes:
    """Returns the valid lines with steps up to `last_step`, each with its end of line."""
    kept = []
    for line in content.split(b"\n"):
        metrics = _parse_line(line)
        if metrics and metrics["step"] <= last_step:
            kept.append(line + b"\n")
    return b"".join(kept)


class MetricsWriter:
    """Writes the metrics and images of a run, as a context manager. Only process 0 may use it.

        with MetricsWriter(workdir, first_step=0) as writer:
            writer.scalars(100, {"generator/loss": 0.5})
            writer.image("samples", 1000, grid)

    Each call writes to disk, and then calls the callback. The metrics of a call are one JSON object, which is a line of
    `metrics.jsonl`. Opening removes the lines of an interrupted run after `first_step`, and an incomplete last line.
    Steps therefore never decrease. Metrics that are missing for `first_step` itself may be added; existing ones are not
    written twice.

    If somebody removes or replaces the file during the run, a new file is started, with a line on stderr.

    Args:
        workdir: the folder; created if needed.
        first_step: the step of the state: 0 at the start, the restored step of a resumed run.
        callback: receives what was written.

    Raises:
        InvalidInputError: when `metrics.jsonl` is a pipe, a device or a folder, or larger than 2 GiB.
        StorageError: from any method, when a file could not be written.
    """

    def __init__(self, workdir: str | Path, *, first_step: int, callback: Callback | None = None) -> None:
        self._workdir, self._callback = Path(workdir), callback
        path = self._metrics_path = self._workdir / "metrics.jsonl"
        with disk_errors(path):
            self._workdir.mkdir(parents=True, exist_ok=True)
            content = read_regular(path, _MAX_WHOLE_BYTES) if path.exists() else b""
        kept = _kept_lines(content, first_step)
        if kept != content:
            write_atomically(path, kept)
        self._first_step, self._recorded = first_step, read_step(path, first_step).keys()
        self._open_metrics()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with disk_errors(self._workdir):
                self._metrics.close()
        except StorageError:
            # An earlier error has precedence. Each call has already flushed its output.
            if error is None:
                raise

    def _open_metrics(self) -> None:
        with disk_errors(self._metrics_path):
            if self._metrics_path.exists() and not self._metrics_path.is_file():  # opening a pipe may wait forever
                raise OSError("it is not a regular file")
            self._metrics = self._metrics_path.open("a", encoding="utf-8")

    def _write_line(self, line: dict[str, Any]) -> None:
        with disk_errors(self._metrics_path):
            if not _is_at(self._metrics, self._metrics_path):
                _warn(f"{self._metrics_path} was removed or replaced while the run wrote it; a new file is started.")
                self._metrics.close()
                self._open_metrics()
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics.flush()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends the values of a step. Values that are not finite become null in the JSON.

        Args:
            step: not below any earlier step.
            values: numbers, or arrays with one entry, by name, such as `generator/loss`.

        Raises:
            StorageError: when a file could not be written.
        """
        recorded = self._recorded if step == self._first_step else ()
        numbers = {name: float(value) for name, value in values.items() if name not in recorded}
        if not numbers:
            return
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        self._write_line({"step": int(step), **{name: finite.get(name) for name in numbers}})
        if self._callback:
            self._callback.metrics(int(step), numbers)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Writes an image to `samples/<name>-<step>.png`, with eight digits for the step.

        Args:
            name: the first part of the file name.
            step: the step of the state that drew the image.
            image: `[H, W, C]` uint8, C 1 or 3.

        Raises:
            InvalidInputError: when the image has another dtype or shape.
            StorageError: when a file could not be written.
        """
        write_atomically(image_path(self._workdir, name, step), encode_png(image))
        if self._callback:
            self._callback.images(name, int(step), image)


def image_path(workdir: Path, name: str, step: int) -> Path:
    """Returns the path to which `MetricsWriter.image` writes an image."""
    return workdir / "samples" / f"{name}-{step:08d}.png"


def _is_at(file: TextIO, path: Path) -> bool:
    """Returns whether the path still refers to the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
