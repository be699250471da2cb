"""Speed of our convolutions: weight gradients from patches, and convolutions fused with resampling.

    python experiments/benchmarks/convolutions.py
    python experiments/benchmarks/convolutions.py --part pooling --rounds 20 --out convolutions.json

Each line compares two programs that take turns in one process: median milliseconds, and the median of the ratio in a
round, with its quartiles. A ratio above 1 means that ours is faster. The difference is the largest difference of the
results, relative to the largest entry. Everything is float32, batch 8, with equally many input and output channels.

- `patches`: the gradient of a 3x3 kernel as a product for each image, and as XLA computes it. The last column shows
  which one `convolve` uses on a CPU; elsewhere both are the same program.
- `upsampling` and `pooling`: fused with the convolution, and as two steps; forward, and with both gradients. The
  column `map` has the size of the larger map.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from measuring import (
    add_turns,
    check_turns,
    figures,
    machine,
    markdown,
    progress,
    ratios,
    spread,
    take_turns,
    write_result,
)

from sagan_jax.cli.main import explained
from sagan_jax.functional import average_pool, convolve, convolve_pool, upsample_convolve, upsample_nearest
from sagan_jax.functional.convolution import _convolve, _has_patches

CHANNELS, MAPS, BATCH = (16, 32, 64, 128, 256), (4, 8, 16, 32, 64), 8
QUICK_CHANNELS, QUICK_MAPS = (2, 3), (4,)

Form = Callable[[Array, Array], Array]
"""a function of features and a kernel"""


def patches(features: Array, kernel: Array) -> Array:
    """Computes the weight gradient from patches, for all sizes."""
    return _convolve(features, kernel, 1, ((1, 1), (1, 1)), None)


def plain(features: Array, kernel: Array) -> Array:
    """Calls XLA's convolution, with XLA's gradients."""
    return lax.conv_general_dilated(features, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def upsampled(features: Array, kernel: Array) -> Array:
    """Upsamples the map, and then convolves it."""
    return convolve(upsample_nearest(features), kernel)


def pooled(features: Array, kernel: Array) -> Array:
    """Convolves the large map, and then pools it."""
    return average_pool(convolve(features, kernel))


PARTS: dict[str, tuple[Form, Form, tuple[str, ...]]] = {
    "patches": (patches, plain, ("weights",)),
    "upsampling": (upsample_convolve, upsampled, ("forward", "both")),
    "pooling": (convolve_pool, pooled, ("forward", "both")),
}
"""For each part: our form, the form it is compared with, and the passes that are timed."""
NAMES = {"patches": ("patches", "XLA's"), "upsampling": ("joined", "two steps"), "pooling": ("joined", "two steps")}


def operands(part: str, size: int, channels: int, batch: int = BATCH) -> tuple[Array, Array, Array]:
    """Returns random features, kernel and cotangent; the larger map of the part has side `size`."""
    side = size // 2 if part == "upsampling" else size
    features = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels)) / (9 * channels) ** 0.5
    result = jax.eval_shape(PARTS[part][0], features, kernel)
    return features, kernel, jax.random.normal(jax.random.key(2), result.shape)


def passed(form: Form, way: str, features: Array, kernel: Array, cotangent: Array) -> tuple[Array, ...]:
    """Returns the outputs of a pass: the result, the weight gradient alone, or the result and both gradients."""
    if way == "forward":
        return (form(features, kernel),)
    if way == "weights":
        _, pullback = jax.vjp(partial(form, features), kernel)
        return pullback(cotangent)
    found, pullback = jax.vjp(form, features, kernel)
    return found, *pullback(cotangent)


def difference(ours: tuple[Array, ...], theirs: tuple[Array, ...]) -> float:
    """Returns the largest difference of two results, relative to the largest entry of each array."""
    parts = [jnp.abs(one - other).max() / jnp.abs(other).max() for one, other in zip(ours, theirs, strict=True)]
    return max(map(float, parts))


def stepper(program: Callable[..., Any], *given: Array) -> Callable[[int], float]:
    """Returns a function that runs a program a given number of times in a row, and returns the seconds."""

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            jax.block_until_ready(program(*given))
        return time.perf_counter() - start

    return run


def measure(part: str, size: int, channels: int, way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the seconds of both forms in each round, and the difference of their results."""
    arrays = operands(part, size, channels)
    ours, theirs, _ = PARTS[part]
    programs = {
        name: jax.jit(partial(passed, form, way)).lower(*arrays).compile()
        for name, form in zip(NAMES[part], (ours, theirs), strict=True)
    }
    apart = difference(*(program(*arrays) for program in programs.values()))
    steppers = {name: stepper(program, *arrays) for name, program in programs.items()}
    times = take_turns(steppers, rounds=given.rounds, turn_seconds=given.turn_seconds)
    progress(f"{part} {size} {channels} {way}")
    row = {"part": part, "map": size, "channels": channels, "pass": way, "difference": apart}
    return {**row, "seconds": list(times.values()), "taken": _has_patches((3, 3, channels, channels), 1, size * size)}


def table(part: str, rows: list[dict[str, Any]]) -> str:
    """Returns the lines of a part."""
    ours, theirs = NAMES[part]
    last = ["`convolve` takes"] if part == "patches" else []
    headings = ["map", "channels", "pass", f"{ours}, ms", f"{theirs}, ms", "times as fast", "quartiles", "difference"]
    lines = []
    for row in rows:
        first, second = row["seconds"]
        gain = ratios(first, second)
        lines.append(
            [
                f"{row['map']}x{row['map']}",
                row["channels"],
                row["pass"],
                *(figures(1000 * spread(times).median) for times in (first, second)),
                f"{gain.median:.2f}",
                f"{gain.lower:.2f} to {gain.upper:.2f}",
                f"{row['difference']:.0e}",
                *[(ours if row["taken"] else theirs) for _ in last],
            ]
        )
    return markdown([*headings, *last], lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--part", action="append", choices=PARTS, default=[], help="repeatable; default all")
    add_turns(parser, rounds=9, turn_seconds=0.05, each="line")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that it works")
    given = parser.parse_args(arguments)
    check_turns(given, quick_rounds=1)
    return given


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    given = parse(arguments)
    channels, maps = (QUICK_CHANNELS, QUICK_MAPS) if given.quick else (CHANNELS, MAPS)
    library = f"jax {jax.__version__} on {jax.default_backend()}"
    result: dict[str, Any] = {"machine": machine(), "library": library, "rows": []}
    for part in given.part or PARTS:
        rows = []
        for size, width, way in [(size, width, way) for way in PARTS[part][2] for size in maps for width in channels]:
            rows.append(measure(part, size, width, way, given))
            result["rows"].append(rows[-1])
            write_result(given.out, result)
        rounds = f"{given.rounds} round{'s' * (given.rounds > 1)}"
        print(f"**{part}**, {library}, batch {BATCH}, {rounds}\n\n{table(part, rows)}\n", flush=True)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "convolutions"))
