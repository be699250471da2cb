"""Progress of a long computation: the callback, and the display of a training run."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column


class ProgressCallback(Protocol):
    """Receives the progress of a pass over many images."""

    def begin(self, description: str, images: int) -> None:
        """Starts a pass over `images` images; `description` names them."""

    def tick(self, images: int) -> None:
        """Reports that `images` more images are done."""


class NullProgress:
    """A `ProgressCallback` that shows nothing."""

    def begin(self, description: str, images: int) -> None:
        """Does nothing."""

    def tick(self, images: int) -> None:
        """Does nothing."""


def format_duration(seconds: float) -> str:
    """Returns hours, minutes and seconds.

    >>> format_duration(3725.4)
    '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class TrainingProgress:
    """Shows the progress of a run, as a context manager: a bar on a terminal, otherwise one line for each update.

        with TrainingProgress(1000, 0) as progress:
            progress.update(100, {"generator/loss": 0.5, "generator/gamma_32": 0.01}, 312.0)

    Args:
        total_steps: the number of completed steps at the end.
        first_step: the number of completed steps at the start.
        file: the output file. Defaults to stderr.
        clock: returns seconds. The estimate of the time left starts at the first update, to exclude compilation.
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int,
        *,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_steps = total_steps
        # Not a default argument, because sys.stderr may be replaced later.
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._start = (clock(), first_step)
        self._updated = False
        self._bar = None
        if self._file.isatty():
            self._bar = RichProgress(
                BarColumn(bar_width=20),
                TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
                console=Console(file=self._file),
            )
            self._task = self._bar.add_task("starting", total=total_steps, completed=first_step)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """Shows the step, the speed, the time left, the losses and the gammas.

        Args:
            step: the number of completed steps.
            metrics: values by name. Shown are names that end in `/loss` or `gamma_<resolution>`.
            images_per_second: the speed over all devices.
        """
        text = self._text(step, metrics, images_per_second)
        if self._bar is None:
            print(text, file=self._file, flush=True)
        else:
            self._bar.update(self._task, completed=step, description=text)

    def say(self, message: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is None:
            print(message, file=self._file, flush=True)
        else:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _text(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> str:
        now = self._clock()
        start, first_step = self._start
        left = (now - start) / max(step - first_step, 1) * max(self._total_steps - step, 0)
        if not self._updated:
            self._start, self._updated = (now, step), True
        words = [
            f"step {step}/{self._total_steps}",
            f"{images_per_second:.1f} images/s",
            f"{format_duration(left)} left",
        ]
        for name, value in metrics.items():
            if name.endswith("/loss") or re.search(r"gamma_\d+$", name):
                words.append(f"{name} {float(value):.4f}")
        return "  ".join(words)
