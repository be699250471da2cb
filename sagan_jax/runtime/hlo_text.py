"""Reads the text of a compiled program: its computations, and how often each is executed."""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*\) -> .*)?\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|(?:calls|branch_computations|called_computations)=\{([^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_BELOW = re.compile(r"ROOT .* compare\(.*?%?([\w.\-]+)\), direction=LT")


def computation_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yields the lines of a program, each with the name of its computation."""
    name = ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            name = head["name"]
        else:
            yield name, line


def called_computations(line: str) -> list[str]:
    """Returns the names of the computations that an instruction calls.

    Examples:
        >>> called_computations("%w = s32[] while(%t), condition=%c.1, body=%b.2")
        ['c.1', 'b.2']
    """
    found = _CALLED.findall(line)
    return [name for one, several in found for name in ([one] if one else re.findall(r"[\w.\-]+", several))]


class Loop(NamedTuple):
    """A loop of a program."""

    condition: str
    """the name of the computation that decides whether to go on"""
    rounds: int | None
    """the number of iterations, if the compiler states it"""


def find_loop(line: str) -> Loop | None:
    """Returns the loop that an instruction starts, or None.

    Examples:
        >>> find_loop('%w = s32[] while(%t), condition=%c.1, body=%b.2, backend_config={"known_trip_count":{"n":"7"}}')
        Loop(condition='c.1', rounds=7)
    """
    loop, trips = _WHILE.search(line), _TRIPS.search(line)
    return Loop(loop[1], int(trips[1]) if trips else None) if loop else None


def executions(text: str) -> dict[str, int]:
    """Returns how often each computation of a program is executed."""
    entry, called = "", collections.defaultdict(list)
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head and head["entry"]:
            entry = head["name"]
    bounds = _loop_bounds(text)
    for computation, line in computation_lines(text):
        loop = find_loop(line)
        count = 1 if loop is None else bounds.get(loop.condition, 1) if loop.rounds is None else loop.rounds
        called[computation] += [(name, count) for name in called_computations(line)]
    rounds: dict[str, int] = collections.defaultdict(int)
    waiting = [(entry, 1)]
    while waiting:  # XLA has no recursion
        computation, times = waiting.pop()
        rounds[computation] += times
        waiting += [(name, times * trips) for name, trips in called[computation]]
    return rounds


def _loop_bounds(text: str) -> dict[str, int]:
    """Returns the number of iterations of each loop of a program, by the name of its condition computation.

    The TPU compiler does not annotate loops with their number of iterations. But the condition of a `scan` compares a
    counter, which starts at 0, with that number.
    """
    constants = {(computation, match[1]): int(match[2]) for computation, match in _matches(text, _CONSTANT)}
    found = {computation: constants.get((computation, match[1])) for computation, match in _matches(text, _BELOW)}
    return {computation: bound for computation, bound in found.items() if bound is not None}


def _matches(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """Yields the matches of a pattern in the lines of a program, each with the name of its computation."""
    for computation, line in computation_lines(text):
        match = pattern.search(line)
        if match:
            yield computation, match
