"""Writes the results of our layers in the long-range benchmark into the package, for comparison with users' layers.

    python experiments/benchmarks/record_long_range.py

It reads `experiments/results/probe_of_reach` (from `probe_of_reach.py --out`) and
`experiments/results/long_range_v1` (from `run_table.py long_range_v1 --out`).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs import reach
from sagan_jax.runs.long_range import LEAST_PARTS, PARTS, PROTOCOL, STEPS, VERSION
from sagan_jax.runs.long_range_table import RECORDED
from sagan_jax.runtime.files import read_json, write_atomically

RESULTS = Path(__file__).parent.parent / "results"
LAYERS = {
    "none": "none",
    "residual": "residual at 16",
    "squeeze_excite": "squeeze-and-excite at 16",
    "uniform": "uniform at 16",
    "release": "release at 16",
    "article": "article at 16",
    "multi_head": "multi-head at 16",
}
"""The rows of the table `long_range_v1`, by the layers that the benchmark takes."""


def trial(layer: str, seed: int, results: Path = RESULTS) -> dict[str, Any] | None:
    """Returns the results of a layer with one seed, with the fields of `Trial`; None if nothing was measured."""
    probe = results / "probe_of_reach" / f"{layer}-{seed}.json"
    gan = results / VERSION / f"{LAYERS[layer]}-{seed}" / "row.json"
    reached: dict[str, Any] = {"beyond_reach": None, "learned_at": None}
    if probe.exists():
        found = read_json(probe)
        if found["steps"] != reach.STEPS:
            raise InvalidInputError(f"{str(probe)!r} needs {reach.STEPS} steps for {VERSION}; it has {found['steps']}.")
        learned_at = next((step for step, accuracy in found["curve"] if accuracy >= 0.9), None)
        reached = {"beyond_reach": found["bins"][-1]["accuracy"], "learned_at": learned_at}
    if not gan.exists():
        return reached | {"scores": None, "collapsed": None} if probe.exists() else None
    row = read_json(gan)
    trained = row["experiment"]["name"], row["experiment"]["training"]["total_steps"]
    if trained != (VERSION, STEPS):
        raise InvalidInputError(f"{str(gan)!r} needs a run of {VERSION} with {STEPS} steps; it is {trained}.")
    if "diverged_at" in row or row["curves"][PARTS][-1][1] < LEAST_PARTS:
        return reached | {"scores": None, "collapsed": True}
    names = {f"{PROTOCOL}/{name}": name for name in ("beyond_chance", "hue", "hue_chance", "parts")}
    names[PROTOCOL] = "follows_rule"
    scores = {short: round(row["values"][name], 4) for name, short in names.items()}
    return reached | {"scores": scores, "collapsed": False}


def recorded(results: Path = RESULTS) -> dict[str, Any]:
    """Returns all rows: for each layer, a list of the results of its seeds."""
    rows = {layer: [found for seed in range(100) if (found := trial(layer, seed, results))] for layer in LAYERS}
    return {"rows": {layer: trials for layer, trials in rows.items() if trials}}


def run() -> None:
    """Writes the file."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_atomically(RECORDED, (json.dumps(recorded(), indent=1) + "\n").encode())
    print(RECORDED)


if __name__ == "__main__":
    sys.exit(explained(run, "record_long_range"))
