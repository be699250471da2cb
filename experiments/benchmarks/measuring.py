"""Shared parts of the benchmarks: workers that take steps in turn, medians, ratios, tables, and the machine's name."""

import argparse
import contextlib
import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import read_json, write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

_MOST_STEPS = 1000  # in one turn


class Spread(NamedTuple):
    """The median and the quartiles of several measurements."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Returns the median and the quartiles.

    Examples:
        >>> spread([3.0, 1.0, 2.0, 5.0, 4.0])
        Spread(median=3.0, lower=2.0, upper=4.0)
    """
    if len(values) < 2:
        return Spread(*(3 * [float(values[0])]))
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper)


def ratios(times: Sequence[float], others: Sequence[float]) -> Spread:
    """Returns the spread of the speed ratio over the rounds: how many times as fast as the others.

    Args:
        times: seconds of each round.
        others: seconds of the other program, in the same rounds.

    Examples:
        >>> ratios([1.0, 2.0, 4.0], [2.0, 6.0, 4.0]).median
        2.0
    """
    return spread([other / time for time, other in zip(times, others, strict=True)])


class Worker:
    """A process that answers lines, as `worker.serve` does. Use it as a context manager, so that it ends.

    Attributes:
        facts: the facts that the process reported about itself, after `wait` was called.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts the process without waiting for it.

        Args:
            name: the name of the worker in messages.
            command: its command line.
            environment: variables in addition to those of this process.

        Raises:
            InvalidInputError: there is no such program.
        """
        self._name, self.facts = name, {}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed by __exit__
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=variables,
            )
        except OSError as error:
            self._errors.close()
            raise InvalidInputError(f"{name} needs {command[0]} to be a program; {error.strerror}.") from error

    def wait(self, seconds: float | None = None) -> "Worker":
        """Waits until the process is ready, and returns the worker.

        Args:
            seconds: the longest wait; None for no limit.

        Raises:
            InvalidInputError: the process is not ready by then, has ended, or did not answer in JSON.
        """
        assert self._process.stdout
        if seconds is not None and not select.select([self._process.stdout], [], [], seconds)[0]:
            raise InvalidInputError(f"{self._name} needs more than the {seconds:g} s that it was given to be ready.")
        self.facts = self._answer()
        return self

    def ask(self, *words: object) -> Any:
        """Returns the answer to a line.

        Raises:
            InvalidInputError: the process has ended, or did not answer in JSON.
        """
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # reading the answer reports the reason
            print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise InvalidInputError(f"{self._name} {self._end()}")
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInputError(f"{self._name} needs to answer in JSON; it said {line.strip()[:200]!r}.") from error

    def _end(self) -> str:
        """Returns how the process ended, and the last line of its errors."""
        code = self._process.wait()
        self._errors.seek(0)
        last = ([line.strip() for line in self._errors if line.strip()] or ["it said nothing"])[-1]
        if code == -signal.SIGKILL:
            return "was killed: perhaps memory ran out. Measure less at once, or end other programs."
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"ended {how}: {last[:300]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:  # another worker failed, and this one may still compile for minutes
            self._process.kill()
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # pyrefly: ignore[missing-attribute]
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # pyrefly: ignore[missing-attribute]
        self._errors.close()


def take_turns(
    steppers: Mapping[str, Callable[[int], float]],
    *,
    rounds: int,
    turn_seconds: float,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float]]:
    """Returns the seconds per step of each stepper, for each round.

    Steppers take turns, so other work on the machine slows all of them equally.

    Args:
        steppers: by name, functions that take a number of steps in a row and return the seconds.
        rounds: number of turns of each.
        turn_seconds: how long a turn should take. It has at least one step.
        say: receives lines of progress.
    """
    counts = {}
    for name, stepper in steppers.items():
        counts[name] = min(_MOST_STEPS, max(1, round(turn_seconds / max(stepper(1), 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(1, rounds + 1):
        for name, stepper in steppers.items():
            times[name].append(stepper(counts[name]) / counts[name])
            say(f"round {number} of {rounds}, {name}: {1000 * times[name][-1]:.4g} ms a step")
    return times


def add_turns(parser: argparse.ArgumentParser, *, rounds: int, turn_seconds: float, each: str) -> None:
    """Adds the flags of a program whose forms take turns, and which writes its results after each line, row or axis.

    Args:
        parser: the parser of the program's flags.
        rounds: default number of turns.
        turn_seconds: default length of a turn.
        each: what the program writes its results after.
    """
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--turn-seconds", type=float, default=turn_seconds)
    parser.add_argument("--out", type=Path, help=f"JSON file, written after each {each}")


def check_turns(given: argparse.Namespace, *, quick_rounds: int) -> None:
    """Checks the flags of `add_turns`. With --quick, turns are one step long.

    Raises:
        InvalidInputError: --rounds is below 1.
    """
    if given.rounds < 1:
        raise InvalidInputError(f"--rounds needs at least 1; got {given.rounds}.")
    if given.quick:
        given.rounds, given.turn_seconds = quick_rounds, 0.0


def stepper(worker: Worker) -> Callable[[int], float]:
    """Returns a function that lets a worker take steps in a row, and returns the seconds."""
    return lambda count: float(worker.ask("step", count))


def machine() -> dict[str, Any]:
    """Returns facts about the machine: its CPU, the cores that this process may use, and the system."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": name, "cores": cores, "system": platform.system()}


def markdown(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a Markdown table.

    Examples:
        >>> print(markdown(["work", "images/s"], [["a", 3]]))
        | work | images/s |
        |---|---|
        | a | 3 |
    """
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"|{'|'.join(map(str, line))}|" if line[0] == "---" else f"| {' | '.join(map(str, line))} |" for line in lines
    )


def figures(value: float | None, digits: int = 3) -> str:
    """Returns a number with `digits` significant digits, without an exponent; "" for None.

    Examples:
        >>> figures(1234.5), figures(0.04567), figures(8.0), figures(None)
        ('1230', '0.0457', '8.00', '')
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    magnitude = int(f"{rounded:e}".partition("e")[2])
    return f"{rounded:.{max(0, digits - 1 - magnitude)}f}"


def write_result(path: Path | None, result: Mapping[str, Any]) -> None:
    """Writes a result as JSON, if a path is given."""
    if path:
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())


def read_result(path: Path) -> dict[str, Any]:
    """Returns a result that `write_result` wrote.

    Raises:
        InvalidInputError: there is no such file, or it is damaged.
    """
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(f"There is no file {str(path)!r}. Is the path right?") from None


def progress(line: str) -> None:
    """Prints a line of progress to standard error."""
    print(line, file=sys.stderr, flush=True)
