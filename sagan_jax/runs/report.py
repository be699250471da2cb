"""The report of a run, as a file."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sagan_jax.config import CompletionExperiment, Experiment, to_dict
from sagan_jax.errors import InvalidInputError, StorageError, one_line
from sagan_jax.runs.health import sign_lines
from sagan_jax.runs.saved_config import ChangedConfigError, read_experiment, sealed_experiment
from sagan_jax.runtime.checkpoints import read_sealed_meta
from sagan_jax.runtime.files import open_regular, read_json, write_atomically


def config_to_show(workdir: Path, *, trust_checkpoint: bool = False) -> dict[str, Any] | None:
    """Returns the config that the report of a run shows. None stands for the content of `config.json`.

    A `config.json` that cannot be read is not an error here. The page says that it is unreadable.

    Args:
        workdir: the folder of the run.
        trust_checkpoint: return the config that is stored in the newest checkpoint, if there is one.

    Raises:
        InvalidInputError: `config.json` differs from the config in the checkpoint, and `trust_checkpoint` is False.
    """
    if trust_checkpoint:
        sealed = sealed_experiment(workdir)
        return to_dict(sealed[1]) if sealed else None
    try:
        with suppress(StorageError):
            read_experiment(workdir)
    except ChangedConfigError:
        raise
    except InvalidInputError:
        pass
    return None


def unreadable_metrics(workdir: Path) -> str:
    """Returns why the metrics of a run cannot be read, so that the report has no curves; "" if they can be read."""
    try:
        with suppress(FileNotFoundError), open_regular(workdir / "metrics.jsonl"):
            pass
    except (OSError, InvalidInputError) as error:
        return one_line(error)
    return ""


def write_report(
    workdir: Path,
    path: Path | None = None,
    *,
    status: str = "",
    config: Mapping[str, Any] | None = None,
    budget: int = 10_000_000,
) -> int:
    """Writes the report of a run, whole or not at all, and returns its size in bytes.

    Args:
        workdir: the folder of the run.
        path: the page. Defaults to `report.html` in the workdir.
        status: as for `report_page`.
        config: as for `report_page`.
        budget: as for `report_page`.

    Raises:
        InvalidInputError: there is no run in `workdir`.
        StorageError: a file cannot be written.
    """
    from sagan_jax.views.report import report_page  # training starts sooner without matplotlib

    step, meta = read_sealed_meta(workdir / "checkpoints") or (0, {})
    page = report_page(
        workdir,
        status=status,
        config=config,
        defaults=_defaults(workdir, config),
        budget=budget,
        find_signs=sign_lines,
        read=(step, int(meta["images_read"])) if "images_read" in meta else None,
    ).encode()
    write_atomically(path or workdir / "report.html", page)
    return len(page)


def _defaults(workdir: Path, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the default config of the task of a run, as nested dictionaries."""
    if config is None:
        try:
            config = read_json(workdir / "config.json")
        except (OSError, InvalidInputError):
            config = {}
    completes = isinstance(config, Mapping) and config.get("task") == "completion"
    return to_dict(CompletionExperiment() if completes else Experiment())
