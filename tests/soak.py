"""Watches a long run for leaks of memory, threads and file handles.

    python tests/soak.py [--minutes 20] [--every-steps 100]

Trains the digits with a tiny network, and saves and draws every so many steps. Reads /proc every five seconds, and ends
the run with SIGTERM. Then it fits a line to the minimum of each minute over the last three quarters of the run. Saves
and drawings do not raise the minimum. Exits with 1 if one of the quantities grows, or if SIGTERM does not give 143.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# The allowed growth a minute: more than the noise of an allocator, less than a leak that a week would show.
ALLOWED = {"memory MB": 1.0, "threads": 0.05, "file handles": 0.05}


def look(pid: int) -> list[float]:
    """Returns memory in MB, threads and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory, threads = (float(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    return [memory / 1024, threads, len(list(Path(f"/proc/{pid}/fd").iterdir()))]


def watch(workdir: str, minutes: float, every_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the minutes `[T]` and the quantities `[T, 3]` of a run from its first steps on."""
    command = [sys.executable, "-m", "sagan_jax.cli.main", "train", "digits_32", "--workdir", workdir]
    command += ["--total-steps", "100000000", "--batch-size", "8", "--base-channels", "2", "--ema-decay", "0.9"]
    command += [f"--{what}-every-steps={every_steps}" for what in ("save", "sample", "log")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        metrics = Path(workdir) / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                sys.exit(f"the run ended with {process.returncode} before its first look")
            time.sleep(1)
        start, times, seen = time.monotonic(), [], []
        while times[-1:] < [minutes]:
            seen.append(look(process.pid))
            times.append((time.monotonic() - start) / 60)
            time.sleep(5)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    steps = metrics.read_text().count("\n")
    print(f"{steps} saves and grids of {every_steps} steps each in {times[-1]:.1f} minutes, exit {code}")
    if code != 143:
        sys.exit(1)
    return np.array(times), np.array(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every-steps", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times, seen = watch(folder, given.minutes, given.every_steps)
    minutes = np.arange(int(times[-1] / 4), int(times[-1]))
    least = np.array([seen[times.astype(int) == minute].min(axis=0) for minute in minutes])
    grows = False
    for (name, allowed), values in zip(ALLOWED.items(), least.T, strict=True):
        slope = np.polyfit(minutes, values, 1)[0]
        grows |= slope > allowed
        print(f"{name}: {values[0]:.0f} -> {values[-1]:.0f}, {slope:+.3f} a minute (at most {allowed})")
    sys.exit(int(grows))


if __name__ == "__main__":
    main()
