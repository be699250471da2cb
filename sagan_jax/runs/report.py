"""The report of a run, as a file."""

from pathlib import Path

from sagan_jax.config import Experiment, to_dict
from sagan_jax.runs.health import sign_lines
from sagan_jax.runtime.files import write_atomically
from sagan_jax.views.report import report_page


def write_report(workdir: Path, path: Path | None = None, *, status: str = "", budget: int = 10_000_000) -> int:
    """Writes the report of a run, whole or not at all, and returns its size in bytes.

    Args:
        workdir: the folder of the run.
        path: the page. Defaults to `report.html` in the workdir.
        status: as for `report_page`.
        budget: as for `report_page`.

    Raises:
        InvalidInputError: there is no run in `workdir`.
        StorageError: the disk refused.
    """
    defaults = to_dict(Experiment())
    page = report_page(workdir, status=status, defaults=defaults, budget=budget, find_signs=sign_lines).encode()
    write_atomically(path or workdir / "report.html", page)
    return len(page)
