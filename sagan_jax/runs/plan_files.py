"""Prints plans, and writes them as JSON and as a page."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sagan_jax.config import AnyExperiment, to_dict
from sagan_jax.runs.plan import Plan, plans
from sagan_jax.runs.plan_table import plan_rows
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.files import write_files_atomically
from sagan_jax.views.plan import plan_page, plan_text

_NOTES = (
    "Memory, bytes, kernels and collectives are those of the compiled step of one device. Nothing was run.",
    "A time at a share of the published peak is an assumption; the share that a chip reaches was not measured.",
)
_GPU_NOTE = (
    "One H200 reached 158 TFLOP/s in tensorfloat32 and 299 to 364 in bfloat16 with a step of imagenet_128, by the "
    "count of operations at that time."
)


def print_and_write(
    experiment: AnyExperiment,
    targets: Sequence[str],
    out: Path,
    *,
    side_by_side: bool = False,
    find_largest_batch: bool = False,
) -> list[Plan]:
    """Prints each plan as soon as it is made, writes all plans to `out.json` and `out.html`, and returns them.

    Args:
        experiment: as for `plans`.
        targets: as for `plans`.
        out: the path of the files without their endings.
        side_by_side: print one table at the end instead of each plan separately.
        find_largest_batch: as for `plans`.

    Raises:
        InvalidInputError: as from `plans`.
        StorageError: the files could not be written.
    """
    made = []
    for plan in plans(experiment, targets, find_largest_batch=find_largest_batch, notify=_say):
        made.append(plan)
        if not side_by_side:
            _say("\n" + plan_text({plan.devices: plan_rows(plan)}))
    columns = {plan.devices: plan_rows(plan) for plan in made}
    if side_by_side:
        _say("\n" + plan_text(columns))
    notes = list(_notes(made))
    _say("\n" + "\n".join(notes))
    content = {
        "experiment": to_dict(experiment),
        "versions": reproducibility_info()["versions"],
        "plans": [plan.as_dict() for plan in made],
    }
    page = plan_page(f"{experiment.name}: what a step needs", columns, notes)
    files = {f"{out.name}.json": json.dumps(content, indent=2) + "\n", f"{out.name}.html": page}
    write_files_atomically(out.parent, {name: text.encode() for name, text in files.items()})
    _say(f"written: {out}.json and {out}.html")
    return made


def _notes(made: Sequence[Plan]) -> Iterator[str]:
    yield from _NOTES
    if any(plan.device_kind.startswith(("a100", "h100", "h200", "NVIDIA")) for plan in made):
        yield _GPU_NOTE


def _say(line: str) -> None:
    print(line, flush=True)
