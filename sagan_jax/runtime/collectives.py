"""Counts the collectives of a program, as traced by jax and as compiled by XLA."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# The names of the same collectives in jax's traced programs.
_PRIMITIVES = {
    "psum": "all-reduce",
    "psum_invariant": "all-reduce",
    "pmax": "all-reduce",
    "pmin": "all-reduce",
    "all_gather": "all-gather",
    "all_gather_invariant": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "all_to_all": "all-to-all",
    "ppermute": "collective-permute",
}
# `%name = TYPE kind(`, also `kind-start(`. The matching `-done` is not counted again.
_INSTRUCTION = re.compile(rf"= (?P<type>.*?) (?P<kind>{'|'.join(_KINDS)})(?P<start>-start)?\(")
# A collective that is split into parts, to overlap with other operations, is written once for each part.
_CHAIN = re.compile(r'chain_id="(\d+)"')
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<shape>[\d,<=]*)\]")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*\) -> .*)?\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|(?:calls|branch_computations|called_computations)=\{([^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_BELOW = re.compile(r"ROOT .* compare\(.*?%?([\w.\-]+)\), direction=LT")


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind in a program, counted as often as they are executed.

    Attributes:
        kind: the name in XLA, such as "all-reduce".
        count: number of executed collectives.
        arrays: number of arrays that they carry; a compiler may combine several collectives into one.
        num_bytes: size of these arrays on one device. For an all-gather it is the size of the results.
    """

    kind: str
    count: int
    arrays: int
    num_bytes: int


def compiled_collectives(text: str) -> tuple[Collectives, ...]:
    """Returns the collectives of a compiled program, by kind.

    A collective in the body of a loop counts once per iteration, if the program states the number of iterations.

    Args:
        text: the program as HLO text, from `compiled.as_text()`.

    Examples:
        >>> compiled_collectives("ENTRY main {\\n  r = (f32[8]{0}, bf16[2,3]) all-reduce(a, b), to_apply=add\\n}")
        (Collectives(kind='all-reduce', count=1, arrays=2, num_bytes=44),)
    """
    rounds = _rounds(text)
    found = {}
    for number, (computation, line) in enumerate(_lines(text)):
        match = _INSTRUCTION.search(line)
        if match:
            arrays = [_array_bytes(array) for array in _ARRAY.finditer(match["type"])]
            if match["start"] and match["kind"] in ("all-gather", "collective-permute"):
                arrays = arrays[len(arrays) // 2 :] if match["kind"] == "all-gather" else arrays[1:2]
            times, chain = rounds.get(computation, 1), _CHAIN.search(line)
            one = Collectives(match["kind"], times, times * len(arrays), times * sum(arrays))
            found[match["kind"], chain[1] if chain else number] = one
    return _by_kind(found.values())


def traced_collectives(jaxpr: Any) -> tuple[Collectives, ...]:
    """Returns the collectives of a traced program, by kind: one for each array.

    Args:
        jaxpr: from `jax.jit(function).trace(...).jaxpr`. All iterations of a `scan` count, and one of a `while` loop.
    """
    return _by_kind(_written(jaxpr, 1))


def _written(jaxpr: Any, times: int) -> Iterator[Collectives]:
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        kind = _PRIMITIVES.get(equation.primitive.name)
        if kind:
            sizes = [variable.aval.size * variable.aval.dtype.itemsize for variable in equation.outvars]
            yield Collectives(kind, times * len(sizes), times * len(sizes), times * sum(sizes))
        rounds = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    yield from _written(inner, times * rounds)


def _by_kind(found: Iterable[Collectives]) -> tuple[Collectives, ...]:
    sums: dict[str, list[int]] = {}
    for one in found:
        total = sums.setdefault(one.kind, [0, 0, 0])
        for place, value in enumerate((one.count, one.arrays, one.num_bytes)):
            total[place] += value
    return tuple(Collectives(kind, *total) for kind, total in sorted(sums.items()))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yields the lines of a program, each with the name of its computation."""
    name = ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            name = head["name"]
        else:
            yield name, line


def _rounds(text: str) -> dict[str, int]:
    """Returns how often each computation of a program is executed."""
    entry, called = "", collections.defaultdict(list)
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head and head["entry"]:
            entry = head["name"]
    bounds = _loop_bounds(text)
    for computation, line in _lines(text):
        trips, loop = _TRIPS.search(line), _WHILE.search(line)
        count = int(trips[1]) if trips else bounds.get(loop[1], 1) if loop else 1
        for one, several in _CALLED.findall(line):
            for name in [one] if one else re.findall(r"[\w.\-]+", several):
                called[computation].append((name, count))
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
    for computation, line in _lines(text):
        match = pattern.search(line)
        if match:
            yield computation, match


def _array_bytes(array: re.Match[str]) -> int:
    size = math.prod(int(length.lstrip("<=")) for length in array["shape"].split(",") if length)
    bits = 8 if array["type"] == "pred" else int(re.findall(r"\d+", array["type"])[0])
    return size * bits // 8
