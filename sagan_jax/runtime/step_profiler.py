"""Traces some steps of a run with jax's profiler."""

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.files import disk_errors


class StepRange(NamedTuple):
    """A range of steps, counted from 1; both ends are included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"

    def require_after(self, done: int, workdir: Path) -> None:
        """Raises InvalidInputError if the run in `workdir`, which has done `done` steps, has done step `first`."""
        if self.first <= done:
            raise InvalidInputError(
                f"--profile-steps needs steps that are still to be done; got {self.first}:{self.last}, and the run in "
                f"{str(workdir)!r} goes on from step {done}."
            )


def read_step_range(text: str, *, total_steps: int) -> StepRange:
    """Returns the range of steps that a text describes.

    Args:
        text: such as `10:15`; both ends are included.
        total_steps: the number of steps of the run.

    Raises:
        InvalidInputError: the text is not a range, or the run has no such steps.

    Examples:
        >>> read_step_range("10:15", total_steps=100)
        StepRange(first=10, last=15)
    """
    found = re.fullmatch(r"(\d{1,15}):(\d{1,15})", text, re.ASCII)
    if not found:
        raise InvalidInputError(f"--profile-steps needs a first and a last step, such as 10:15; got {text!r}.")
    steps = StepRange(*map(int, found.groups()))
    if not 1 <= steps.first <= steps.last <= total_steps:
        raise InvalidInputError(
            f"--profile-steps needs steps from 1 to --total-steps {total_steps}, the first one not after the last; "
            f"got {text}."
        )
    return steps


class StepProfiler:
    """Wraps a step, and traces a range of steps with jax's profiler, as a context manager.

        with StepProfiler(step, StepRange(10, 15), workdir / "profile", first_step=0) as step:
            state, metrics = step(state, batch)

    The device is idle when the trace begins, and has finished the last step when it ends. Everything else between these
    steps is traced too. If the block ends early, the trace is written with the steps so far. The results of the step do
    not change.

    Args:
        step: `(state, batch) -> (state, metrics)`.
        steps: the steps to trace.
        folder: the folder for traces. Each trace is in a subfolder, in the layout of TensorBoard.
        first_step: the number of steps already done.
        say: receives a line after the trace was written, or if that failed.

    Raises:
        StorageError: the folder cannot be created.
    """

    def __init__(
        self,
        step: Callable[[Any, Any], tuple[Any, dict[str, Any]]],
        steps: StepRange,
        folder: Path,
        *,
        first_step: int,
        say: Callable[[str], None] = print,
    ) -> None:
        self._step, self._steps, self._folder, self._say = step, steps, folder, say
        self._taken = first_step
        self._begun = False
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._begun:
            self._end()

    def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the result of the step."""
        number = self._taken + 1
        if number == self._steps.first:
            jax.block_until_ready(state)
            self._begin()
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = self._step(state, batch)
        self._taken = number
        if self._begun and number == self._steps.last:
            jax.block_until_ready(result)
            self._end()
        return result

    def _begin(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # otherwise calls of Python functions dominate the trace
        try:
            jax.profiler.start_trace(self._folder, profiler_options=options)
        except RuntimeError as error:  # another trace is under way in this process
            self._say(f"warning: steps {self._steps} are not traced: {one_line(error)}")
        else:
            self._begun = True

    def _end(self) -> None:
        self._begun = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:
            self._say(f"warning: the trace of the steps could not be written into {self._folder}: {one_line(error)}")
            return
        steps = StepRange(self._steps.first, self._taken)
        self._say(f"traced steps {steps}: {self._folder} opens in TensorBoard, its .trace.json.gz in ui.perfetto.dev")
