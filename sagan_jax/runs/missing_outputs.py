"""Finds the missing outputs of a killed run: drawings, scores or a report that were due after its newest save."""

from pathlib import Path
from typing import NamedTuple

from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.runs.training_job import TrainingJob
from sagan_jax.runtime.metrics_log import read_step


class MissingOutputs(NamedTuple):
    """The missing outputs of a saved step. A field is True if its output was due and is missing."""

    drawing: bool = False
    """the picture of samples, the figures of attention, and the statistics of both"""
    scores: bool = False
    """the files of the scores, their line in the metrics, and the best checkpoint"""
    report: bool = False
    """the report"""

    def __str__(self) -> str:
        """Returns the words for a message, such as `drawing, report`."""
        return ", ".join(name for name, missing in self._asdict().items() if missing)


def missing_outputs(step: int, experiment: AnyExperiment, job: TrainingJob, workdir: Path) -> MissingOutputs:
    """Returns the missing outputs of a saved step, from the files of the run. Nothing is computed.

    Args:
        step: the newest saved step. Before the first step nothing is due.
        experiment: the config of the run, with the intervals of drawing and scoring.
        job: the training job. Its score monitor must have read the best score.
        workdir: the folder of the run; it is only read.

    Raises:
        StorageError: when the metrics cannot be read.
    """
    recording, monitor = experiment.recording, job.score_monitor
    last = step >= experiment.training.total_steps
    recorded = read_step(workdir / "metrics.jsonl", step)

    def is_due(every: int) -> bool:
        return step > 0 and (last or step % every == 0)

    drawing = is_due(recording.sample_every_steps) and not job.is_drawn(step, recorded, workdir)
    scores = False
    reported = step > 0 and last  # reports on the way may be skipped, if the last one is recent
    if monitor and isinstance(experiment, Experiment):
        reported = is_due(experiment.evaluation.evaluate_every_steps)
        scores = reported and not (monitor.is_measured(step, recorded) and monitor.is_considered(recorded))
    return MissingOutputs(drawing, scores, reported and not _is_reported(workdir / "report.html", step, last))


def _is_reported(path: Path, step: int, last: bool) -> bool:
    from sagan_jax.views.report import shown_progress  # training starts sooner without matplotlib

    shown, status = shown_progress(path) or (-1, "")
    # A run that ended by an error, for example a collapse, keeps that status and is not reported as finished.
    return shown >= step and (not last or status == "finished" or status.startswith("ended"))
