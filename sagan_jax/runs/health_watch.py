"""Watches the health of a run while it trains: prints and records signs, and decides whether the run ends."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sagan_jax.config import Experiment
from sagan_jax.runs.health import Event, Health, is_observed, observe_curves
from sagan_jax.runtime.metrics_log import read_metrics


def observed_intervals(experiment: Experiment) -> list[int]:
    """Returns the intervals at which a run logs, draws, saves and scores; see `is_observed`."""
    recording, evaluation = experiment.recording, experiment.evaluation
    scores = [evaluation.evaluate_every_steps] if evaluation.protocols else []
    return [recording.log_every_steps, recording.sample_every_steps, recording.save_every_steps, *scores]


class HealthWatch:
    """Passes the metrics of a run to its `Health`, and prints the signs.

    Every process of a run has its own watch, and all watches find the same signs.

    Args:
        health: finds the signs in the metrics.
        every: as `observed_intervals` returns them.
        say: shows a line to the user.
        stop_on_collapse: whether a severe sign ends the run.

    Attributes:
        collapsed: the severe sign that ends the run, or None.
    """

    def __init__(
        self, health: Health, every: Sequence[int], say: Callable[[str], None], *, stop_on_collapse: bool
    ) -> None:
        self._health, self._every, self._say, self._stop = health, every, say, stop_on_collapse
        self.collapsed: Event | None = None

    def resume_from(self, workdir: Path, step: int) -> None:
        """Observes the recorded metrics up to a step. Their signs were printed before and are not printed again."""
        curves = read_metrics(workdir / "metrics.jsonl").curves
        newest = {e.sign.name: e for e in observe_curves(self._health, curves, every=self._every, last_step=step)}
        self._stop_for(newest.values())

    def observe(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Prints the signs that begin or end with these metrics.

        Args:
            step: the step of the metrics.
            metrics: the metrics by name.

        Returns:
            `health/SIGN` for each of these signs, to record with the metrics: 1 if it begins, 0 if it ends.
        """
        events = self._health.observe(step, metrics) if is_observed(step, self._every) else []
        for event in events:
            self._say(f"warning: {event}" if event.begins else str(event))
        self._stop_for(events)
        return {f"health/{event.sign.name}": float(event.begins) for event in events}

    def _stop_for(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._stop and event.begins and event.sign.severe:
                self.collapsed = self.collapsed or event
