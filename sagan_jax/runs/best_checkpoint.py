"""The checkpoint with the best score of a run."""

import shutil
from pathlib import Path
from typing import Any

from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.processes import is_main_process


class BestCheckpoint:
    """Keeps the state whose score is the best so far.

    Args:
        folder: gets the checkpoint.
        score: the name of the score.
        higher_is_better: whether a higher value of it is better.

    Attributes:
        value: the best score so far, or None.
    """

    def __init__(self, folder: Path, score: str, *, higher_is_better: bool) -> None:
        self._folder, self._score, self._higher_is_better = folder, score, higher_is_better
        self.value: float | None = None

    def resume_from(self, step: int) -> None:
        """Reads the best score before `step`; removes a checkpoint that is later than `step` or of another score."""
        with Checkpoints(self._folder) as checkpoints:
            found = checkpoints.latest_meta()
        if found and found[0] <= step and found[1].get("score") == self._score:
            self.value = float(found[1]["value"])
        elif is_main_process():
            shutil.rmtree(self._folder, ignore_errors=True)

    def offer(self, step: int, value: float, state: Any, meta: dict[str, Any]) -> None:
        """Saves the state if its score is the best so far.

        Args:
            step: the step that was scored.
            value: its score; NaN is never better.
            state: as for `Checkpoints.save`.
            meta: as for `Checkpoints.save`; the name and value of the score are added.
        """
        if self.value is not None and not self._is_better(value, self.value):
            return
        with Checkpoints(self._folder) as checkpoints:
            checkpoints.save(step, state, meta | {"score": self._score, "value": value})
        self.value = value

    def _is_better(self, value: float, than: float) -> bool:
        return value > than if self._higher_is_better else value < than
