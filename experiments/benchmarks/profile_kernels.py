"""Counts the kernels of a training step and their time by kind, from a trace of `sagan-jax train --profile-steps`.

    sagan-jax train digits_32 --total-steps 20 --profile-steps 10:15 --workdir runs/profiled
    python experiments/benchmarks/profile_kernels.py runs/profiled

On a GPU it counts kernels and copies on the streams, on a CPU the operations that XLA starts. Both are per step and
device. The times are sums, so operations that overlap count twice. Other programs between the traced steps are left
out.
"""

import argparse
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError

# The kind of an operation is that of the first word in its name.
KINDS = {
    "convolution": "convolution",
    "cudnn": "convolution",
    "dot": "matrix product",
    "gemm": "matrix product",
    "cublas": "matrix product",
    "ynn": "matrix product",  # the library that XLA calls on a CPU
    "reduce": "reduction",
    "copy": "copy or transposition",
    "transpose": "copy or transposition",
    "memcpy": "copy or transposition",
}
OTHER = "element-wise and other"


class Operation(NamedTuple):
    """One executed operation."""

    name: str
    program: str
    device: tuple[str, Any]
    nanoseconds: float


def operations(planes: Any) -> Iterator[Operation]:
    """Yields the operations on devices. Other lines of a GPU's plane repeat its streams by program and by step."""
    for plane in planes:
        for line in plane.lines:
            if plane.name.startswith("/device:") and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    device = plane.name, stats.get("device_ordinal", 0)
                    yield Operation(stats["hlo_op"], stats.get("hlo_module", ""), device, event.duration_ns)


def count_steps(planes: Any) -> int:
    """Returns the number of steps in a trace."""
    events = (event for plane in planes for line in plane.lines for event in line.events if event.name == "train")
    return len({stats["step_num"] for event in events if "step_num" in (stats := dict(event.stats))})


def kind_of(name: str) -> str:
    """Returns the kind of an operation.

    Examples:
        >>> kind_of("broadcast_reduce_fusion.12"), kind_of("convert_fusion.3")
        ('reduction', 'element-wise and other')
    """
    return next((kind for word, kind in KINDS.items() if word in name.lower()), OTHER)


def table(planes: Any) -> Iterator[str]:
    """Yields the lines to print.

    Raises:
        InvalidInputError: the trace holds no steps, or no operations.
    """
    planes = list(planes)
    steps, ran = count_steps(planes), list(operations(planes))
    if not (steps and ran):
        raise InvalidInputError(
            f"The trace needs steps and operations; it has {steps} and {len(ran)}. Perhaps jax does not trace "
            f"operations on this device."
        )
    times: dict[str, float] = defaultdict(float)
    for operation in ran:
        times[operation.program] += operation.nanoseconds
    program = max(times, key=times.__getitem__)
    ran = [operation for operation in ran if operation.program == program]
    passes = steps * len({operation.device for operation in ran})
    numbers, kinds = Counter(), defaultdict(float)
    for operation in ran:
        numbers[kind_of(operation.name)] += 1
        kinds[kind_of(operation.name)] += operation.nanoseconds
    yield f"{program}: {len(ran) / passes:,.0f} a step of a device, in {steps} steps"
    yield "| kind | a step | ms a step | share of the time |\n|---|---|---|---|"
    for kind, nanoseconds in sorted(kinds.items(), key=lambda entry: -entry[1]):
        share = nanoseconds / times[program]
        yield f"| {kind} | {numbers[kind] / passes:,.0f} | {nanoseconds / passes / 1e6:.2f} | {share:.0%} |"


def newest_trace(folder: Path) -> Path:
    """Returns the newest trace in a workdir or in its folder `profile`.

    Raises:
        InvalidInputError: there is none.
    """
    found = sorted(folder.glob("**/plugins/profile/*/*.xplane.pb"), key=lambda path: path.parent.name)
    if not found:
        raise InvalidInputError(
            f"There is no trace in {str(folder)!r}: `sagan-jax train --profile-steps 10:15 --workdir` writes one."
        )
    return found[-1]


def run(arguments: list[str]) -> None:
    """Reads and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path, help="of a run that was started with --profile-steps")
    # Reading a trace creates a type of jax 0.12 about which Python 3.13 warns.
    warnings.filterwarnings("ignore", "builtin type .* has no __module__ attribute", DeprecationWarning)
    trace = jax.profiler.ProfileData.from_file(str(newest_trace(parser.parse_args(arguments).workdir)))
    for line in table(trace.planes):
        print(line)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "profile_kernels"))
