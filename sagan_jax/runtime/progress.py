"""Progress of a long computation: the callback, and the display of a training run."""

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, ProgressColumn, Task
from rich.progress import Progress as RichProgress
from rich.text import Text

_SHOWN_WAIT = 0.05  # smaller shares of waiting time are not shown


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

    Examples:
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
        self._phrases: list[str] = []
        self._bar = None
        if self._file.isatty():
            console = Console(file=self._file)
            bar = BarColumn(bar_width=min(20, console.width // 5))  # leaves room for a name and its value
            self._bar = RichProgress(bar, _PhrasesColumn(), console=console)
            self._task = self._bar.add_task("", total=total_steps, completed=first_step, phrases=["starting"])

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def doing(self, activity: str) -> None:
        """Shows what the run is doing, until the next step starts.

        Args:
            activity: such as "drawing samples". Without a terminal, it is printed only before the first update, which
                takes longest.
        """
        if self._bar is not None:
            self._bar.update(self._task, phrases=[activity, *self._phrases], refresh=True)
        elif not self._updated:
            print(activity, file=self._file, flush=True)

    def advance(self, step: int) -> None:
        """Moves the bar to a step that has started."""
        if self._bar is not None:
            phrases = self._phrases or [f"step {step}/{self._total_steps}"]
            self._bar.update(self._task, completed=step - 1, phrases=phrases)

    def update(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """Shows the step, the speed, the time left, the losses, the gammas, and a wait for data above 5%.

        Args:
            step: the number of completed steps.
            metrics: values by name. Names that end in `/loss` or `gamma_<resolution>` are shown, and `input_wait`, the
                share of the time in which the devices waited for data.
            images_per_second: the speed over all devices.
        """
        self._phrases = self._describe(step, metrics, images_per_second)
        if self._bar is None:
            print("  ".join(self._phrases), file=self._file, flush=True)
        else:
            self._bar.update(self._task, completed=step, phrases=self._phrases)

    def say(self, message: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is None:
            print(message, file=self._file, flush=True)
        else:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> list[str]:
        now = self._clock()
        start, first_step = self._start
        left = (now - start) / max(step - first_step, 1) * max(self._total_steps - step, 0)
        if not self._updated:
            self._start, self._updated = (now, step), True
        phrases = [
            f"step {step}/{self._total_steps}",
            f"{images_per_second:.1f} images/s",
            f"{format_duration(left)} left",
        ]
        wait = metrics.get("input_wait", 0.0)
        if wait > _SHOWN_WAIT:
            phrases.append(f"input {wait:.0%}")
        for name, value in metrics.items():
            if name.endswith("/loss") or re.search(r"gamma_\d+$", name):
                phrases.append(f"{name} {float(value):.4f}")
        return phrases


class _PhrasesColumn(ProgressColumn):
    """The phrases of a task. Lines break only between phrases, so that a value stays beside its name."""

    def render(self, task: Task) -> "_Phrases":
        return _Phrases(task.fields["phrases"])


class _Phrases(NamedTuple):
    phrases: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for phrase in self.phrases:
            longer = f"{line}  {phrase}" if line else phrase
            if line and len(longer) > options.max_width:
                yield Text(line, overflow="fold")
                longer = phrase
            line = longer
        yield Text(line, overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max(map(len, self.phrases), default=0)
        return Measurement(longest, len("  ".join(self.phrases))).with_maximum(options.max_width)
