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
        higher_is_better: whether a higher score is better.
        reference: the fingerprint of the real images that the score compares with, or "".

    Attributes:
        value: the best score so far, or None.
    """

    def __init__(self, folder: Path, score: str, *, higher_is_better: bool, reference: str = "") -> None:
        self._folder, self._score, self._higher_is_better = folder, score, higher_is_better
        self._reference = reference
        self.value: float | None = None

    def resume_from(self, step: int) -> None:
        """Reads the best score before `step`. With several processes, process 0 reads and decides for all.

        A checkpoint that is later than `step` is removed, because its step will be done again. A checkpoint that is
        damaged, cannot be read or belongs to another score is renamed. A line on stderr reports each. Leftovers of a
        killed save are removed.

        Raises:
            InvalidInputError: the score of the checkpoint was measured against other images.
            StorageError: when the checkpoint cannot be renamed or removed.
        """
        self.value, reference = decide_in_main(lambda: self._take_up(step))
        if reference != self._reference:
            raise InvalidInputError(
                f"{self._score} compared with other images when {self._folder} was chosen, and the scores would not "
                f"compare: restore those images (--held-out), or give --protocols of other names, or another --workdir."
            )

    def _take_up(self, step: int) -> tuple[float | None, str]:
        """Returns the best score before `step`, or None, and the fingerprint of the images that it compares to."""
        try:
            with Checkpoints(self._folder) as checkpoints:
                found = checkpoints.latest_meta()
                if found:
                    checkpoints.sweep()
        except InvalidInputError as error:
            self._set_aside("damaged", str(error))
            return None, self._reference
        except StorageError as error:
            self._set_aside("unreadable", str(error).removesuffix(" Nothing was changed."))
            return None, self._reference
        if found is None:
            return None, self._reference
        best, meta = found
        if meta.get("score") != self._score:
            before = meta.get("score")
            self._set_aside("other-score", f"The best checkpoint was chosen by {before}, not by {self._score}.")
        elif best > step:
            self._drop(f"The best checkpoint is of step {best}; the run goes on from step {step}.")
        else:  # checkpoints of earlier versions do not hold the fingerprint
            return float(meta["value"]), meta.get("reference", self._reference)
        return None, self._reference

    def _set_aside(self, why: str, explanation: str) -> None:
        aside, number = self._folder.with_name(f"{self._folder.name}.{why}"), 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{self._folder.name}.{why}{number}")
        with disk_errors(aside):
            self._folder.rename(aside)
        _warn(f"{explanation} {self._folder} was renamed to {aside.name}; the best is chosen from the next scores.")

    def _drop(self, explanation: str) -> None:
        with disk_errors(self._folder, "removed"):
            shutil.rmtree(self._folder)
        _warn(f"{explanation} {self._folder} was removed; the best is chosen from the next scores.")

    def offer(self, step: int, value: float, state: Any, meta: dict[str, Any]) -> None:
        """Saves the state if its score is the best so far.

        Args:
            step: the step that was scored.
            value: the score of that step; see `would_take` for NaN.
            state: as for `Checkpoints.save`.
            meta: as for `Checkpoints.save`; the score's name, value and reference are added.
        """
        if self.value is not None and decide_in_main(lambda: not self._is_there()):
            if is_main_process():
                _warn(f"{self._folder} was removed while the run used it; the best is chosen from the next scores.")
            self.value = None
        if not self.would_take(value):
            return
        with Checkpoints(self._folder) as checkpoints:
            chosen_by = {"score": self._score, "value": value, "reference": self._reference}
            checkpoints.save(step, state, meta | chosen_by)
        self.value = value

    def would_take(self, value: float) -> bool:
        """Returns whether a score is better than the best so far. The first score always is, later NaN never is."""
        if self.value is None or math.isnan(self.value):
            return self.value is None or not math.isnan(value)
        return self._is_better(value, self.value)

    def _is_there(self) -> bool:
        return Checkpoints(self._folder).latest_step is not None

    def _is_better(self, value: float, than: float) -> bool:
        return value > than if self._higher_is_better else value < than


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
