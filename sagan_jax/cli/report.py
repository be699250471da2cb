"""`sagan-jax report`: writes the report of a run."""

import dataclasses
import sys
from pathlib import Path

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write the report of a run: one HTML page with curves, samples, scores, config and the command that resumes it.

    A run writes its report at each evaluation and at its end. This command does so at any time, also for a killed run.
    """

    workdir: Path
    """the folder of the run"""
    out: Path | None = None
    """the page. Defaults to report.html in the workdir"""
    megabytes: float = 10.0
    """largest size of the page. Sample grids are left out evenly to fit"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax report")
    if not 0.5 <= parsed.megabytes <= 1000:
        raise InvalidInputError(f"--megabytes needs to be in [0.5, 1000]; got {parsed.megabytes}.")
    if parsed.out:
        check_can_write(parsed.out)
    announce("writing the report")
    from sagan_jax.runs.report import config_to_show, unreadable_metrics, write_report

    path = parsed.out or parsed.workdir / "report.html"
    config = config_to_show(parsed.workdir, trust_checkpoint=parsed.trust_checkpoint)
    size = write_report(parsed.workdir, path, config=config, budget=int(parsed.megabytes * 1e6))
    reason = unreadable_metrics(parsed.workdir)
    if reason:
        print(f"warning: the report has no curves, because the metrics cannot be read: {reason}", file=sys.stderr)
    print(f"{path}: {size / 1e6:.2f} MB")
