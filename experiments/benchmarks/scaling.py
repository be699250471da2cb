"""Measures how the cost of a training step grows with the batch, the resolution, the width and the devices.

    python experiments/benchmarks/scaling.py
    python experiments/benchmarks/scaling.py --axis width --out scaling.json

Along each axis everything else is fixed: batch 8, 64 pixels, width 8, attention at 32. Each point is a process. The
points of an axis compile one after another, which may take minutes each, and then take turns. A point that exceeds the
time or memory is reported and left out. With a folder in jax's JAX_COMPILATION_CACHE_DIR, a second run need not
compile.

An exponent is the slope of a straight line through the logarithms, with its standard error. The error is small if the
column follows a power law.

The devices are virtual CPU devices and share a batch of 16. One machine does the work of all, so the time should be
constant. Operations and memory are those of one device, and should fall.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from measuring import (
    HERE,
    Worker,
    add_turns,
    check_turns,
    figures,
    machine,
    markdown,
    progress,
    read_result,
    spread,
    stepper,
    take_turns,
    write_result,
)
from scipy import stats
from worker import Work

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError

BASE = Work(64, 8, 8, attention=32)
AXES = {"batch": (4, 8, 16, 32), "resolution": (64, 128, 256), "width": (4, 8, 16, 32), "devices": (1, 2, 4, 8)}
QUICK_BASE = Work(32, 1, 2, classes=3, latent=5, attention=16)
QUICK_AXES = {"batch": (2, 4), "resolution": (32, 64), "width": (1, 2), "devices": (1, 2)}
MEASURES = {"ms a step": "seconds", "GFLOP": "flops", "MiB of temporaries": "temporary_bytes"}
UNITS = {"seconds": 1e3, "flops": 1e-9, "temporary_bytes": 2**-20}


class Fit(NamedTuple):
    """The power law of a cost as a function of the size."""

    exponent: float
    error: float | None
    """standard error of the exponent; None for fewer than three points"""


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Returns the power law that fits best, by linear regression of the logarithms.

    Examples:
        >>> round(fit([1, 2, 4], [5, 20, 80]).exponent, 6)
        2.0
    """
    line = stats.linregress([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    return Fit(float(line.slope), float(line.stderr) if len(sizes) > 2 else None)


def point(axis: str, size: int, base: Work) -> list[str]:
    """Returns the flags of the worker for one point."""
    if axis == "devices":
        return [*dataclasses.replace(base, batch=2 * base.batch).flags, "--devices", str(size)]
    return dataclasses.replace(base, **{axis: size}).flags


def measure(
    axis: str, sizes: Sequence[int], base: Work, given: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the cost of each point of an axis, and a line for each point that is left out.

    Raises:
        InvalidInputError: all points are left out.
    """
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(max(sizes))} if axis == "devices" else {}
    command, workers, left_out = [sys.executable, str(HERE / "sagan_worker.py")], {}, []
    with ExitStack() as open_workers:
        for size in sizes:
            name = f"{axis} {size}"
            try:
                with ExitStack() as alone:  # ends this worker if it fails
                    worker = alone.enter_context(Worker(name, [*command, *point(axis, size, base)], environment))
                    workers[size] = worker.wait(given.compile_seconds)
                    open_workers.push(alone.pop_all())
                progress(f"ready: {name}")
            except InvalidInputError as error:
                left_out.append(str(error))
                progress(f"left out: {error}")
        if not workers:
            raise InvalidInputError(f"The {axis} needs a point that can be measured; {left_out[0]}")
        steppers = {f"{axis} {size}": stepper(worker) for size, worker in workers.items()}
        times = take_turns(steppers, rounds=given.rounds, turn_seconds=given.turn_seconds, say=progress)
    seconds = [spread(rounds).median for rounds in times.values()]
    points = [
        {"size": size, "seconds": median, **{key: worker.facts.get(key) for key in FACTS}}
        for (size, worker), median in zip(workers.items(), seconds, strict=True)
    ]
    return points, left_out


FACTS = ("flops", "temporary_bytes", "library", "device")


def fits(points: Sequence[Mapping[str, Any]]) -> dict[str, Fit | None]:
    """Returns the exponent of each cost along an axis; None if a cost is not known at all points, or with one point."""
    sizes = [point["size"] for point in points]
    found = {key: [point[key] for point in points] for key in UNITS}
    return {key: fit(sizes, costs) if len(sizes) > 1 and all(costs) else None for key, costs in found.items()}


def shown(found: Fit | None) -> str:
    """Returns an exponent as a table shows it.

    Examples:
        >>> shown(Fit(1.9876, 0.0123)), shown(Fit(1.0, None)), shown(None)
        ('1.99 ± 0.01', '1.00', '')
    """
    if found is None:
        return ""
    exponent = f"{found.exponent + 0.0:.2f}"
    return exponent if found.error is None else f"{exponent} ± {found.error:.2f}"


def tables(result: Mapping[str, Any]) -> str:
    """Returns the result as Markdown: a table for each axis, with the exponents in its last line."""
    parts = []
    for axis, points in result["axes"].items():
        lines = [[point["size"], *(figures(_in_unit(point, key)) for key in MEASURES.values())] for point in points]
        powers = fits(points)
        lines.append(["**exponent**", *(shown(powers[key]) for key in MEASURES.values())])
        parts.append(markdown([axis, *MEASURES], lines))
        parts.extend(f"Left out: {line}" for line in result.get("left_out", {}).get(axis, []))
    return "\n\n".join(parts)


def _in_unit(point: Mapping[str, Any], key: str) -> float | None:
    return None if point[key] is None else UNITS[key] * point[key]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--axis", action="append", choices=AXES, default=[], help="repeatable; default all")
    add_turns(parser, rounds=5, turn_seconds=0.3, each="axis")
    parser.add_argument("--compile-seconds", type=float, default=600.0, help="time limit for compiling a point")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that it works")
    given = parser.parse_args(arguments)
    if not 0 < given.compile_seconds < math.inf:
        raise InvalidInputError(f"--compile-seconds needs a number above 0; got {given.compile_seconds:g}.")
    check_turns(given, quick_rounds=1)
    return given


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    given = parse(arguments)
    if given.tables:
        print(tables(read_result(given.tables)))
        return
    axes, base = (QUICK_AXES, QUICK_BASE) if given.quick else (AXES, BASE)
    result: dict[str, Any] = {"machine": machine(), "base": vars(base), "axes": {}, "left_out": {}}
    for axis in given.axis or axes:
        result["axes"][axis], result["left_out"][axis] = measure(axis, axes[axis], base, given)
        write_result(given.out, result)
    print(tables(result))


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "scaling"))
