"""Writes `LEDGER.md`: every published number with its protocol, our experiment, the cost, and our value.

    python experiments/ledger.py

It reads `ledger.json` (the published numbers), the experiments, and the results of runs (`results/**/row.json`, which
`sagan-jax reproduce` and `run_table.py` write). A result counts for a row if networks, training and steps are those of
the row's experiment. A number from memory that was not verified always has a star.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sagan_jax.config import AnyExperiment, from_dict, to_dict
from sagan_jax.runs.experiments import load_experiment

HERE = Path(__file__).parent
A100_FLOPS, SHARES = 156e12, (0.15, 0.45)
"""The peak of an A100 in TF32, and assumed shares of it that a step reaches; they were not measured."""
UNVERIFIED = "mem"
_OF_IMAGES = ("max_images", "sampling", "decoding")  # data fields that are part of a published setting
_FREE = ("total_steps", "seed", "precision", "driver")  # training fields that are not part of a published setting

INTRODUCTION = """# Ledger

`python experiments/ledger.py` writes this page, from `ledger.json`, the experiments, and `results/**/row.json`. Do not
edit it.

- A star marks a number that is remembered and was not verified.
- **Read from** tells where a number was read:
{marks}
- **Experiment**: the file that stands for the row. Where it is "narrower", it is not the published setting.
- **Device-hours** are of training alone, to the step of the row.
{speeds}
  - Otherwise it is a range: FLOPs at 15% to 45% of the 156 TFLOP/s that an A100 is rated at in TF32.
- **Ours** is the value of a run of that experiment, by our nearest protocol: one value a run.

| protocol | what it is | ours, the nearest |
|---|---|---|
{protocols}
"""
HEADS = "row", "steps", "score", "published", "read from", "protocol", "experiment", "device-hours", "status", "ours"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Returns the results of runs below a folder, in the order of their paths."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.rglob("row.json"))]


def shown_value(row: Mapping[str, Any]) -> str:
    r"""Returns the published number as the page shows it.

    >>> shown_value({"value": "22.40", "mark": "mem"}), shown_value({"value": "18.28", "mark": "quoted"})
    ('22.40\\*', '18.28')
    """
    return row["value"] + r"\*" * (row["mark"] == UNVERIFIED)


def is_setting_of(experiment: AnyExperiment, result: Mapping[str, Any], steps: int) -> bool:
    """Returns whether a result is of a run with the networks and training of an experiment, and with `steps` steps.

    The images may be in another place, but their maximum number, sampling and decoding need to be equal.
    """
    ran = from_dict(result["experiment"])
    if type(ran) is not type(experiment) or ran.training.total_steps != steps:
        return False
    settings = []
    for one in (ran, experiment):
        values = to_dict(one)
        training = {k: v for k, v in values["training"].items() if k not in _FREE}
        settings.append((values["networks"], training, [values["data"][name] for name in _OF_IMAGES]))
    return json.dumps(settings[0]) == json.dumps(settings[1])


def our_values(row: Mapping[str, Any], protocols: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns our values for a row, one for each run, as texts."""
    name = protocols[row["protocol"]]["ours"].get(row["score"])
    if not name or "steps" not in row or row.get("narrower"):
        return []
    experiment = load_experiment(row["experiment"])
    ran = [result for result in results if name in result["values"]]
    return [f"{result['values'][name]:.2f}" for result in ran if is_setting_of(experiment, result, row["steps"])]


def hours(row: Mapping[str, Any], speeds: Iterable[Mapping[str, Any]]) -> str:
    """Returns the device-hours of a row's experiment up to the row's step; a dash for a row without a step."""
    if "steps" not in row or row.get("narrower"):
        return "–"
    experiment: Any = load_experiment(row["experiment"])
    networks, training = experiment.networks, experiment.training
    facts = {"family": networks.family, "resolution": networks.resolution, "base_channels": networks.base_channels}
    facts["discriminator_steps"] = training.discriminator_steps
    for speed in speeds:
        if all(speed[name] == value for name, value in facts.items()):
            images = row["steps"] * training.batch_size * training.discriminator_steps
            # Each image of another experiment needs more or fewer operations than one of the measured experiment.
            scale = (
                flops_per_image(row["experiment"]) / flops_per_image(speed["experiment"])
                if "experiment" in speed
                else 1
            )
            low, high = sorted(scale * images / rate / 3600 for rate in speed["images_per_second"])
            return f"{_range(low, high)} ({speed['device']})"
    least, most = (row["steps"] * step_flops(row["experiment"]) / (share * A100_FLOPS) / 3600 for share in SHARES[::-1])
    return f"{_range(least, most)} (A100)"


def flops_per_image(experiment: str) -> float:
    """Returns the operations of a step for each real image that D sees."""
    training: Any = load_experiment(experiment).training
    return step_flops(experiment) / (training.batch_size * training.discriminator_steps)


def step_flops(experiment: str) -> float:
    """Returns the operations of a step, read from the experiment's file. A test compares them with XLA's count."""
    found = re.search(r"([\d.]+) ([TG])FLOP a step", (HERE / f"{experiment}.py").read_text("utf-8"))
    assert found, experiment
    return float(found[1]) * {"T": 1e12, "G": 1e9}[found[2]]


def _range(low: float, high: float) -> str:
    r"""Returns hours with two digits, or in whole hours.

    >>> _range(23.09, 23.09), _range(0.684, 0.711), _range(519.2, 1557.7)
    ('23', '0.68 to 0.71', '519 to 1,558')
    """
    shown = [f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in (low, high)]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def lines(ledger: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the lines of the page."""
    results = list(results)
    protocols = [
        f"| {name} | {facts['words']} | {', '.join(f'`{ours}`' for ours in facts['ours'].values()) or '–'} |"
        for name, facts in ledger["protocols"].items()
    ]
    speeds = [
        f"  - At {speed['resolution']} px, width {speed['base_channels']}: measured on one {speed['device']}, "
        f"{' to '.join(f'{rate:,}' for rate in dict.fromkeys(speed['images_per_second']))} images/s ({speed['how']})."
        + (
            f" Experiments other than `{speed['experiment']}` are scaled by their FLOPs."
            if "experiment" in speed
            else ""
        )
        for speed in ledger["speeds"]
    ]
    marks = "\n".join(f"  - `{name}`: {words}." for name, words in ledger["marks"].items())
    yield INTRODUCTION.format(marks=marks, speeds="\n".join(speeds), protocols="\n".join(protocols)).rstrip()
    for group in dict.fromkeys(row["group"] for row in ledger["rows"]):
        note = ledger["notes"].get(group)
        yield f"\n## {group}\n" + f"\n{note}\n" * bool(note)
        yield f"| {' | '.join(HEADS)} |"
        yield f"|{'---|' * len(HEADS)}"
        for row in ledger["rows"]:
            if row["group"] == group:
                yield f"| {' | '.join(_cells(row, ledger, results))} |"


def _cells(row: Mapping[str, Any], ledger: Mapping[str, Any], results: list[Mapping[str, Any]]) -> Iterator[str]:
    ours = our_values(row, ledger["protocols"], results)
    name = row.get("experiment")
    yield from (row["what"], row["when"] or "–", row["score"], shown_value(row), row["mark"], row["protocol"])
    yield "none" if not name else f"`{name}`{', narrower' * bool(row.get('narrower'))}"
    yield hours(row, ledger["speeds"])
    yield "–" if not name else "trained" if ours else "not trained"
    yield ", ".join(ours) or "–"


def page(ledger: Path = HERE / "ledger.json", results: Path = HERE / "results") -> str:
    """Returns the whole page."""
    return "\n".join(lines(json.loads(ledger.read_text("utf-8")), read_results(results))) + "\n"


def main() -> None:
    """Writes the page beside this file."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (HERE / "LEDGER.md").write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
