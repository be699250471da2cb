"""Compares a training step of SAGAN with StudioGAN's: images per second, with steps taken in turn.

    python experiments/benchmarks/step_vs_studiogan.py --torch-python torch-env/bin/python
    python experiments/benchmarks/step_vs_studiogan.py --row 32-16-64 --jax-python newer-jax/bin/python --out step.json

A row is RESOLUTION-WIDTH-BATCH. A step is one update of D, on real and generated images, and one of G. Every
combination of Python and precision is a separate process, and the processes take turns of equal length. Each number
is the median over the rounds. A ratio is the median of the ratios in a round, so it is valid on a busy machine too.

Our code runs in this Python, and in each `--jax-python`. The peer runs in `--torch-python`; `--without-peer` leaves it
out. On a GPU the same command measures other rows. It takes under a quarter of an hour on two CPU cores.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import (
    HERE,
    Worker,
    add_turns,
    check_turns,
    figures,
    machine,
    markdown,
    progress,
    ratios,
    read_result,
    spread,
    stepper,
    take_turns,
)
from measuring import write_result as write
from worker import Work

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError

CPU_ROWS = {
    "128-64-8": Work(128, 64, 8, classes=1000, attention=32),
    "32-64-16": Work(32, 64, 16),
    "32-16-64": Work(32, 16, 64),
    "32-8-32": Work(32, 8, 32, latent=64),  # the default run
}
GPU_ROWS = {
    "128-64-64": Work(128, 64, 64, classes=1000, attention=32),
    "128-64-256": Work(128, 64, 256, classes=1000, attention=32),
    "32-64-64": Work(32, 64, 64),
    "32-16-64": Work(32, 16, 64),
}
QUICK = Work(32, 2, 4, classes=3, latent=5)
PLAIN_GFLOP = {(128, 64): 1082 / 8, (32, 64): 265 / 16, (32, 16): 68.7 / 64, (32, 8): 9.0 / 32}
"""GFLOP of a step per image, by resolution and width, for the networks as written, before any fusion. The share of the
peak is computed with it, whatever a program actually executes."""
VARIANTS = ("float32", "channels-last", "bfloat16")
"""The variants of the peer."""
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
"""The precisions of our step, by their names in `training.precision`."""
PLAIN_PEER = "StudioGAN, float32"
# Several processes share a GPU, so none may preallocate its memory.
SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def label_of(facts: Mapping[str, Any], variant: str) -> str:
    """Returns the name of a worker in the table."""
    return f"{facts['library']}, {variant}" if facts["library"].startswith("jax") else f"StudioGAN, {variant}"


def commands(work: Work, given: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Returns the variant and the command of each worker of a row."""
    peers, ours = HERE / "studiogan_peer.py", HERE / "sagan_worker.py"
    theirs = [] if given.without_peer else list(given.variant)
    return [
        *((name, [given.torch_python, str(peers), "--variant", name, *work.flags]) for name in theirs),
        *(
            (name, [python, str(ours), "--precision", name, *work.flags])
            for python in [sys.executable, *given.jax_python]
            for name in given.precision
        ),
    ]


def measure(work: Work, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the results of a row: for each worker its facts, its peak and its seconds per step in each round."""
    workers: dict[str, tuple[str, Worker]] = {}
    with ExitStack() as open_workers:
        # Workers compile one after another, because compilers for GPUs choose kernels by timing them.
        for variant, command in commands(work, given):
            worker = open_workers.enter_context(Worker(f"{Path(command[1]).stem} ({variant})", command, SHARING))
            label = label_of(worker.wait().facts, variant)
            progress(f"ready: {label}")
            if label in workers:
                raise InvalidInputError(f"--jax-python needs Pythons whose versions of jax differ; got {label} twice.")
            workers[label] = variant, worker
        times = take_turns(
            {label: stepper(worker) for label, (_, worker) in workers.items()},
            rounds=given.rounds,
            turn_seconds=given.turn_seconds,
            say=progress,
        )
        return {
            label: {
                "facts": worker.facts,
                "variant": variant,
                "memory_bytes": worker.ask("memory")["bytes"],
                "peak_gflops": worker.ask("peak"),
                "seconds": times[label],
            }
            for label, (variant, worker) in workers.items()
        }


def peers_of(entries: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns the seconds of the peer's variants, by label."""
    return {label: entry["seconds"] for label, entry in entries.items() if label.startswith("StudioGAN")}


def best_of(peers: Mapping[str, Sequence[float]]) -> Sequence[float] | None:
    """Returns the seconds of the fastest variant of the peer."""
    return min(peers.values(), key=lambda times: spread(times).median, default=None)


def line_of(label: str, entries: Mapping[str, Any], work: Work, peers: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns the cells of a worker. The peak is the machine's: the highest that any of the workers reached."""
    entry = entries[label]
    seconds, facts = entry["seconds"], entry["facts"]
    speeds = spread([work.batch / time for time in seconds])

    def times(others: Sequence[float] | None) -> str:
        return f"{ratios(seconds, others).median:.2f}" if others else ""

    plain = PLAIN_GFLOP.get((work.resolution, work.width))
    reached = plain and plain * speeds.median
    kind = "bfloat16" if entry["variant"] == "bfloat16" else "float32"
    peak = max(other["peak_gflops"][kind] for other in entries.values())
    memory = entry["memory_bytes"]
    return [
        label,
        figures(speeds.median),
        f"{figures(speeds.lower)} to {figures(speeds.upper)}",
        times(peers.get(PLAIN_PEER)),
        times(best_of(peers)),
        figures(facts.get("flops", 0) / 1e9 or None),
        figures(facts.get("compiled_flops", 0) / 1e9 or None),
        figures(facts.get("bytes_accessed", 0) / 1e9 or None),
        figures(memory / 2**30 if memory else None),
        figures(reached),
        f"{100 * reached / peak:.0f}%" if reached else "",
    ]


HEADINGS = (
    "who",
    "images/s",
    "quartiles",
    "times its float32",
    "times its best",
    "GFLOP",
    "compiled",
    "GB moved",
    "GiB",
    "GFLOP/s",
    "of the peak",
)


def tables(result: Mapping[str, Any]) -> str:
    """Returns the result as Markdown: a table for each row, and the peaks."""
    parts = []
    for name, row in result["rows"].items():
        work, entries = Work(**row["work"]), row["workers"]
        peers = peers_of(entries)
        title = (
            f"**{name}**: {work.resolution} px, width {work.width}, batch {work.batch}, {work.classes} classes; "
            f"{row['rounds']} rounds"
        )
        peaks = "; ".join(
            f"{entry['facts']['library']} on {entry['facts']['device']}: "
            f"{figures(entry['peak_gflops']['float32'])} float32, {figures(entry['peak_gflops']['bfloat16'])} bfloat16"
            for entry in {entry["facts"]["library"]: entry for entry in entries.values()}.values()
        )
        lines = [line_of(label, entries, work, peers) for label in entries]
        parts.append(f"{title}\n\n{markdown(HEADINGS, lines)}\n\nPeak of a product, GFLOP/s: {peaks}.")
    return "\n\n".join(parts)


def rows_of(given: argparse.Namespace) -> dict[str, Work]:
    """Returns the rows to measure.

    Raises:
        InvalidInputError: a row is unknown.
    """
    if given.quick:
        return {"quick": QUICK}
    known = CPU_ROWS | GPU_ROWS
    absent = [name for name in given.row if name not in known]
    if absent:
        raise InvalidInputError(f"--row needs to be one of {', '.join(known)}; got {absent[0]!r}.")
    if given.row:
        return {name: known[name] for name in given.row}
    return CPU_ROWS if backend() == "cpu" else GPU_ROWS


def backend() -> str:
    """Returns the platform of jax, found in a separate process, so that this one does not use the device."""
    program = "import jax, json; print(json.dumps({'platform': jax.default_backend()}))"
    with Worker("jax", [sys.executable, "-c", program]) as worker:
        return worker.wait().facts["platform"]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--row", action="append", default=[], help=f"of {', '.join(CPU_ROWS | GPU_ROWS)}; repeatable")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with PyTorch")
    parser.add_argument("--jax-python", action="append", default=[], help="another Python for our code; repeatable")
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument(
        "--precision", action="append", choices=PRECISIONS, default=[], help="for our step; default float32"
    )
    parser.add_argument("--variant", action="append", choices=VARIANTS, default=[], help="of the peer; default all")
    add_turns(parser, rounds=5, turn_seconds=1.0, each="row")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="one tiny row, to check that it works")
    given = parser.parse_args(arguments)
    given.precision, given.variant = given.precision or ["float32"], given.variant or list(VARIANTS)
    check_turns(given, quick_rounds=2)
    return given


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    given = parse(arguments)
    if given.tables:
        print(tables(read_result(given.tables)))
        return
    result: dict[str, Any] = {"machine": machine(), "rows": {}}
    for name, work in rows_of(given).items():
        progress(f"row {name}")
        result["rows"][name] = {"work": vars(work), "rounds": given.rounds, "workers": measure(work, given)}
        write(given.out, result)
    print(tables(result))


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "step_vs_studiogan"))
