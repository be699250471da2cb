"""Counts the collectives of a program, as traced by jax and as compiled by XLA."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sagan_jax.runtime.hlo_text import computation_lines, executions

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
    rounds = executions(text)
    found = {}
    for number, (computation, line) in enumerate(computation_lines(text)):
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


def _array_bytes(array: re.Match[str]) -> int:
    size = math.prod(int(length.lstrip("<=")) for length in array["shape"].split(",") if length)
    bits = 8 if array["type"] == "pred" else int(re.findall(r"\d+", array["type"])[0])
    return size * bits // 8
