"""The scores of a run while it trains."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sagan_jax.config import Experiment
from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.image_sets import GeneratedImages
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.runs.best_checkpoint import BestCheckpoint
from sagan_jax.runs.diversity import Diversity
from sagan_jax.runs.evaluators import evaluator_for_run
from sagan_jax.runs.health import Score
from sagan_jax.runs.result_files import result_path, write_result
from sagan_jax.runs.scores import generators
from sagan_jax.runtime.processes import is_main_process


class ScoreMonitor:
    """Measures the scores of a run while it trains, and keeps its best checkpoint.

    Args:
        experiment: the config of the run, with at least one protocol.
        workdir: the folder for `scores/` and `best/`.
        source: the training images.

    Attributes:
        best_by: the score that selects the best checkpoint.
        names: the names of all scores that are measured.

    Raises:
        InvalidInputError: a protocol needs something that is missing; raised before the run starts.
    """

    def __init__(self, experiment: Experiment, workdir: Path, source: ImageSource) -> None:
        self._workdir, self._evaluation = workdir, experiment.evaluation
        self._protocols = [parse_protocol(name) for name in experiment.evaluation.protocols]
        self._evaluator, _ = evaluator_for_run(experiment, source, self._protocols)
        self._protocols = [self._evaluator.resolve(protocol) for protocol in self._protocols]
        for protocol in self._protocols:
            self._evaluator.check(protocol, experiment.networks.num_classes)
        self.names = [name for protocol in self._protocols for name in self._evaluator.value_names(protocol)]
        name, protocol = _best_by(experiment.evaluation.keep_best_by, self._protocols, self._evaluator)
        self.best_by = Score(name, protocol.higher_is_better)
        self._diversity = Diversity(source)
        if not self._diversity.of_real_images:
            raise InvalidInputError("--protocols need training images that differ within a class; these are all equal.")
        reference = self._evaluator.references.describe(protocol) or {}
        self._best = BestCheckpoint(
            workdir / "best",
            name,
            higher_is_better=protocol.higher_is_better,
            reference=reference.get("fingerprint", ""),
        )

    def is_measured(self, step: int, recorded: Mapping[str, float]) -> bool:
        """Returns whether all scores of a step are in their files and in the metrics.

        Args:
            step: generator updates done.
            recorded: the metrics of the step by name.
        """
        files = [result_path(self._workdir, protocol, step) for protocol in self._protocols]
        return all(path.is_file() for path in files) and all(f"score/{name}" in recorded for name in self.names)

    def is_considered(self, recorded: Mapping[str, float]) -> bool:
        """Returns whether `best/` needs no change after a measured step: it holds this step or one as good.

        Args:
            recorded: the metrics of the step by name, with its scores.
        """
        return not self._best.would_take(recorded[f"score/{self.best_by.name}"])

    def resume_from(self, step: int) -> None:
        """Removes the scores of later steps, which will be done again, and reads the best score up to `step`."""
        self._best.resume_from(step)
        if is_main_process():
            for path in (self._workdir / "scores").glob("*.json"):
                written = path.stem.rpartition("-")[2]
                if written.isdecimal() and int(written) > step:
                    path.unlink(missing_ok=True)

    def measure(self, step: int, load: Callable[[bool], TrainedGenerator]) -> dict[str, float]:
        """Measures, writes and prints all scores, and returns them by names such as `score/NAME`.

        The result also has `score/diversity`, and `score/seconds`, the time of this call.

        Args:
            step: generator updates done.
            load: `load(raw)` returns the generator, with the weights as trained when `raw` is True.
        """
        values, started, generator_of = {}, time.monotonic(), generators(load)
        for protocol in self._protocols:
            score = self._evaluator.score(protocol, GeneratedImages(generator_of(protocol)))
            values |= score.values
            if is_main_process():
                write_result(result_path(self._workdir, protocol, step), score)
                print(f"step {step}: {score}", file=sys.stderr, flush=True)
        self._last = values[self.best_by.name]
        values |= {"diversity": self._diversity.of(load(False)), "seconds": time.monotonic() - started}
        return {f"score/{name}": value for name, value in values.items()}

    def keep_best(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves the state to `best/` if the score just measured is the best so far.

        Args:
            step: the step that was just measured.
            state: as for `Checkpoints.save`.
            meta: as for `Checkpoints.save`; the score's name, value and reference are added.
        """
        self._best.offer(step, self._last, state, meta)


def _best_by(name: str, protocols: list[Protocol], evaluator: Evaluator) -> tuple[str, Protocol]:
    """Returns the score that selects the best checkpoint, and its protocol. Defaults to the first score."""
    protocol_of = {value: protocol for protocol in protocols for value in evaluator.value_names(protocol)}
    name = name or next(iter(protocol_of))
    if name not in protocol_of:
        raise InvalidInputError(
            f"--keep-best-by needs one of the scores of --protocols, {', '.join(protocol_of)}; got {name!r}."
        )
    return name, protocol_of[name]
