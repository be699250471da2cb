"""Measures the time from the start of `sagan-jax train` to the end of step 1, for a first and a second start.

    python experiments/benchmarks/start_time.py [EXPERIMENT] [--rounds 3] [--flags --base-channels 16]

Each round has its own cache folder, which is empty at the first start. The second start reuses the programs that the
first one compiled. It prints the seconds of each round, the medians, and the median ratio of the second to the first.
Run it on an otherwise idle machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError


def seconds_to_step_1(words: list[str], workdir: Path, cache: Path) -> float:
    """Returns the seconds from the start of a training process until step 1 is recorded; then the process is ended.

    Args:
        words: the arguments of `train`.
        workdir: the workdir of the run; it must not exist.
        cache: the folder for decoded images and compiled programs.

    Raises:
        InvalidInputError: the process ends before step 1.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION_CACHE",))}
    command = [sys.executable, "-m", "sagan_jax.cli.main", "train", *words, "--workdir", str(workdir)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--log-every-steps", "1"],
        env=environment | {"SAGAN_JAX_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not _has_step(workdir / "metrics.jsonl"):
            if process.poll() is not None:
                assert process.stderr
                raise InvalidInputError(f"The training ended before step 1: {process.stderr.read().strip()[-500:]}")
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        process.kill()
        process.communicate()


def _has_step(path: Path) -> bool:
    try:
        lines = path.read_text().splitlines()
        return any("step" in json.loads(line) for line in lines)
    except (OSError, ValueError):  # not there yet, or half written
        return False


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="digits_32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of sagan-jax train")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        raise InvalidInputError(f"--rounds needs at least 1; got {given.rounds}.")
    pairs = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            words, cache = [given.experiment, *given.flags], Path(folder) / "cache"
            times = [seconds_to_step_1(words, Path(folder) / name, cache) for name in ("first", "second")]
        pairs.append(times)
        print(f"first start {times[0]:.2f} s, second {times[1]:.2f} s, ratio {times[1] / times[0]:.3f}", flush=True)
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(second / first for first, second in pairs)
    print(f"medians: first start {first:.2f} s, second {second:.2f} s, ratio {ratio:.3f}")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "start_time"))
