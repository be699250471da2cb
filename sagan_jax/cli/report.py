"""`sagan-jax report`: the report of a run, written anew."""

import dataclasses
from pathlib import Path

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write the report of a run: one HTML page with its curves, samples, scores, config and how to go on with it.

    A run writes it itself at each evaluation and at its end; this does so at any time, of a killed run too.
    """

    workdir: Path
    """the run's folder"""
    out: Path | None = None
    """the page; report.html in the workdir unless given"""
    megabytes: float = 10.0
    """the largest that the page may be; sample grids are left out evenly to fit"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax report")
    if not 0.5 <= parsed.megabytes <= 1000:
        raise InvalidInputError(f"--megabytes needs to be in [0.5, 1000]; got {parsed.megabytes}.")
    path = parsed.out or parsed.workdir / "report.html"
    size = write_report(parsed.workdir, path, budget=int(parsed.megabytes * 1e6))
    print(f"{path}: {size / 1e6:.2f} MB")


def write_report(workdir: Path, path: Path | None = None, *, state: str = "", budget: int = 10_000_000) -> int:
    """Writes the report of a run, whole or not at all, and returns its size in bytes.

    Args:
        workdir: of the run.
        path: the page; `report.html` in the workdir unless given.
        state: as for `report_page`.
        budget: as for `report_page`.

    Raises:
        InvalidInputError: there is no run in `workdir`.
        StorageError: when the disk refused.
    """
    from sagan_jax.config import Experiment, to_dict
    from sagan_jax.runtime.files import write_atomically
    from sagan_jax.views.report import report_page

    page = report_page(workdir, state=state, defaults=to_dict(Experiment()), budget=budget).encode()
    write_atomically(path or workdir / "report.html", page)
    return len(page)
