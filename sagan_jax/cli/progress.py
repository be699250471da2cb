"""Progress of a score on the terminal."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_PER_LINE = 30


class ScoreProgress:
    """Shows the progress of a score, as a context manager: a bar on a terminal, else a line every half minute."""

    def __init__(self) -> None:
        self._bar = None
        if sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True)
        self._description, self._images, self._done = "", 0, 0
        self._start = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, description: str, images: int) -> None:
        """Starts a pass over `images` images."""
        self._description, self._images, self._done = description, images, 0
        self._start = self._printed = time.monotonic()
        if self._bar:
            for task in list(self._bar.task_ids):
                self._bar.remove_task(task)
            self._task = self._bar.add_task(description, total=images)

    def tick(self, images: int) -> None:
        """Counts `images` more images as done."""
        self._done += images
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif now - self._printed > _SECONDS_PER_LINE:
            self._printed, speed = now, self._done / (now - self._start)
            left = (self._images - self._done) / speed
            print(
                f"{self._description}: {self._done:,}/{self._images:,}  {speed:.1f}/s  {left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )
