"""Measures how long `import sagan_jax` takes in a fresh interpreter, without the interpreter's own startup.

    python experiments/benchmarks/import_time.py [--rounds 20]

It prints the median milliseconds of each statement. `import sagan_jax` loads no dependencies, and takes at most 50 ms.
Run it on an otherwise idle machine.
"""

import argparse
import statistics
import subprocess
import sys

STATEMENTS = ("import sagan_jax", "import sagan_jax.functional", "import sagan_jax; sagan_jax.train")
_PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def import_milliseconds(statement: str, rounds: int) -> float:
    """Returns the median time of a statement over fresh interpreters, after one run that compiles the byte code."""

    def once() -> float:
        command = [sys.executable, "-c", _PROGRAM.format(statement)]
        return 1000 * float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    once()  # writes the byte code
    return statistics.median(once() for _ in range(rounds))


def main() -> None:
    """Prints a line for each statement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    for statement in STATEMENTS:
        print(f"{statement}: {import_milliseconds(statement, rounds):.1f} ms")


if __name__ == "__main__":
    main()
