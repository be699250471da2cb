"""Runs the probe of reach for several layers and seeds, and prints a table. See `sagan_jax.runs.reach`.

    python experiments/benchmarks/probe_of_reach.py --out runs/reach
    python experiments/benchmarks/probe_of_reach.py --attention release layers.py:Layer --seeds 8 --out runs/reach

Each run is a file OUT/LAYER-SEED.json. A run whose file exists is not repeated. The file holds the SHA-256 of the
source of a user's layer; if that source changes, the result is refused. All layers of one seed run before the next
seed. The table has the accuracy by the number of empty pixels between the two parts, as means over the seeds. With one
seed, a 95% interval shows the uncertainty from the number of held-out images, but not the variation between seeds.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from measuring import markdown, progress

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError
from sagan_jax.import_paths import is_import_path, source_digest
from sagan_jax.models.attention import AttentionKind
from sagan_jax.runs.long_range import folder_name
from sagan_jax.runs.reach import BINS, STEPS, ReachBin, ReachResult, measure_reach
from sagan_jax.runtime.files import read_json, write_atomically


def to_json(result: ReachResult, source: str) -> dict[str, Any]:
    """Returns a result as plain data, with the SHA-256 of the source of its layer; "" for a layer of this package."""
    return result._asdict() | {"bins": [part._asdict() for part in result.bins], "source": source}


def from_json(values: dict[str, Any]) -> tuple[ReachResult, str]:
    """Returns the result and the SHA-256 that `to_json` stored. The SHA-256 is "" for results of earlier versions.

    Raises:
        InvalidInputError: the data are not a result.
    """
    try:
        bins = tuple(ReachBin(**part) for part in values["bins"])
        others = {name: value for name, value in values.items() if name != "source"}
        result = ReachResult(**others | {"bins": bins, "curve": tuple(map(tuple, values["curve"]))})
        return result, values.get("source", "")
    except (KeyError, TypeError) as error:
        raise InvalidInputError("it has other fields than a result of the probe") from error


def run_path(folder: Path, attention: str, seed: int) -> Path:
    """Returns the file of a run.

    >>> run_path(Path("runs"), "my/layers.py:Layer", 3).as_posix()
    'runs/my_layers.py_Layer-3.json'
    """
    return folder / f"{folder_name(attention)}-{seed}.json"


def one_run(folder: Path, attention: str, seed: int, steps: int) -> ReachResult:
    """Returns the result of a run, from its file if it exists.

    Raises:
        InvalidInputError: the file is damaged, or holds another run or another source of the layer.
    """
    path = run_path(folder, attention, seed)
    source = source_digest(attention, "--attention") if is_import_path(attention) else ""
    if path.exists():
        try:
            found, its_source = from_json(read_json(path))
        except InvalidInputError as error:
            raise InvalidInputError(f"{str(path)!r} is damaged: remove it, and it is measured again.") from error
        if (found.attention, found.seed, found.steps) != (attention, seed, steps):
            raise InvalidInputError(f"{str(path)!r} holds another run: {found.attention}, {found.steps} steps.")
        if its_source != source:
            raise InvalidInputError(
                f"{str(path)!r} was measured with another source of {attention}: remove it, and it is measured again."
            )
        return found
    result = measure_reach(
        attention,
        seed=seed,
        steps=steps,
        on_progress=lambda step, right: progress(f"{attention}, seed {seed}, step {step}: {right:.3f} beyond reach"),
    )
    write_atomically(path, f"{json.dumps(to_json(result, source))}\n".encode())
    return result


def accuracy(bins: Sequence[ReachBin]) -> str:
    """Returns the accuracies of seeds in a bin as text: the mean with the range, or with an interval for one seed.

    >>> one = ReachBin(2, 5, 512, 0.75)
    >>> accuracy([one]), accuracy([one, one._replace(accuracy=0.25)])
    ('0.750 [0.711, 0.786]', '0.500 (0.250 to 0.750)')
    """
    shares = [part.accuracy for part in bins]
    if len(bins) == 1:
        low, high = bins[0].interval
        return f"{shares[0]:.3f} [{low:.3f}, {high:.3f}]"
    return f"{statistics.fmean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"


def line(results: Sequence[ReachResult]) -> list[str]:
    """Returns the cells of a layer's row."""
    bins = [accuracy([result.bins[number] for result in results]) for number in range(len(BINS))]
    steps = [result.first_step() for result in results]
    learned = [str(step) if step else "never" for step in steps]
    gammas = [f"{result.gamma:.2f}" for result in results if result.gamma is not None]
    return [results[0].attention, *bins, ", ".join(learned), ", ".join(gammas), f"{results[0].parameters:,}"]


def run(arguments: list[str]) -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention", nargs="+", default=list(get_args(AttentionKind)), help="names or import paths")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        raise InvalidInputError(f"--seeds needs at least 1; got {given.seeds}.")
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in range(given.seeds):
        for attention in given.attention:
            one_run(given.out, attention, seed, given.steps)
    rows = [[one_run(given.out, name, seed, given.steps) for seed in range(given.seeds)] for name in given.attention]
    heads = [f"{low} to {high}" for low, high in BINS]
    print(markdown(["layer", *heads, "step at 0.9", "gamma", "parameters"], [line(row) for row in rows]))


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "probe_of_reach"))
