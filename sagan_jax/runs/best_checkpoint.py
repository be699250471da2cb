"""The checkpoint with the best score of a run."""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.files import disk_errors
from sagan_jax.runtime.processes import decide_in_main, is_main_process

SET_ASIDE = ("damaged", "unreadable", "other-score")
"""Reasons to rename a best checkpoint, for example to `best.damaged` or `best.damaged2`."""


class BestCheckpoint:
    """Keeps the state whose score is the best so far.

    Args:
        folder: the folder for the checkpoint.
        score: the name of the score.
        higher_is_better: whether a higher value of it is better.

    Attributes:
        value: the best score so far, or None.
    """

    def __init__(self, folder: Path, score: str, *, higher_is_better: bool) -> None:
        self._folder, self._score, self._higher_is_better = folder, score, higher_is_better
        self.value: float | None = None

    def resume_from(self, step: int) -> None:
        """Reads the best score before `step`. With several processes, process 0 reads and decides for all.

        A checkpoint that is later than `step` is removed, because its step will be done again. A checkpoint that is
        damaged, cannot be read or belongs to another score is renamed. A line on stderr reports each. Leftovers of a
        killed save are removed.

        Raises:
            StorageError: when the checkpoint cannot be renamed or removed.
        """
        self.value = decide_in_main(lambda: self._take_up(step))

    def _take_up(self, step: int) -> float | None:
        """Returns the best score before `step`; None if no checkpoint can be resumed from."""
        try:
            with Checkpoints(self._folder) as checkpoints:
                found = checkpoints.latest_meta()
                if found:
                    checkpoints.sweep()
        except InvalidInputError as error:
            self._set_aside("damaged", str(error))
            return None
        except StorageError as error:
            self._set_aside("unreadable", str(error).removesuffix(" Nothing was changed."))
            return None
        if found is None:
            return None
        best, meta = found
        if meta.get("score") != self._score:
            before = meta.get("score")
            self._set_aside("other-score", f"The best checkpoint was chosen by {before}, not by {self._score}.")
        elif best > step:
            self._drop(f"The best checkpoint is of step {best}; the run goes on from step {step}.")
        else:
            return float(meta["value"])
        return None

    def _set_aside(self, why: str, explanation: str) -> None:
        aside, number = self._folder.with_name(f"{self._folder.name}.{why}"), 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{self._folder.name}.{why}{number}")
        with disk_errors(aside):
            self._folder.rename(aside)
        _warn(f"{explanation} {self._folder} was renamed to {aside.name}; the best is chosen from the next scores.")

    def _drop(self, explanation: str) -> None:
        with disk_errors(self._folder):
            shutil.rmtree(self._folder)
        _warn(f"{explanation} {self._folder} was removed; the best is chosen from the next scores.")

    def offer(self, step: int, value: float, state: Any, meta: dict[str, Any]) -> None:
        """Saves the state if its score is the best so far.

        Args:
            step: the step that was scored.
            value: its score; NaN is never better.
            state: as for `Checkpoints.save`.
            meta: as for `Checkpoints.save`; the name and value of the score are added.
        """
        if self.value is not None and decide_in_main(lambda: not self._is_there()):
            if is_main_process():
                _warn(f"{self._folder} was removed while the run used it; the best is chosen from the next scores.")
            self.value = None
        if not self.would_take(value):
            return
        with Checkpoints(self._folder) as checkpoints:
            checkpoints.save(step, state, meta | {"score": self._score, "value": value})
        self.value = value

    def would_take(self, value: float) -> bool:
        """Returns whether a score is better than the best so far; a first one always is, NaN never."""
        if self.value is None or math.isnan(self.value):
            return self.value is None or not math.isnan(value)
        return self._is_better(value, self.value)

    def _is_there(self) -> bool:
        return Checkpoints(self._folder).latest_step is not None

    def _is_better(self, value: float, than: float) -> bool:
        return value > than if self._higher_is_better else value < than


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
