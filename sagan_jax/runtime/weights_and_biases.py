"""The callback that sends what a run records to Weights & Biases, or keeps it for that on disk."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.callbacks import Callback, HowEnded, RunStart
from sagan_jax.runtime.files import read_json, write_atomically
from sagan_jax.runtime.packages import is_installed


class WeightsAndBiases(Callback):
    """Sends config, metrics, scores and images to a run of Weights & Biases. Needs the extra `wandb`.

    A run that goes on goes on there too: `wandb/sagan_jax.json` in the workdir keeps its id and the last step that was
    sent. When a killed run does steps again, those up to that one are not sent again: history there only grows.

    Args:
        options: further arguments of `wandb.init`, such as `project`, `entity`, `tags` and `mode="offline"`. Variables
            such as WANDB_PROJECT and WANDB_MODE do the same.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._run: Any = None

    def start(self, run: RunStart) -> None:
        """Opens the run, or opens it again.

        Raises:
            InvalidInputError: the package is not installed, or `wandb/sagan_jax.json` is damaged.
            StorageError: the folder cannot be written.
        """
        require_wandb()
        import wandb

        self._wandb, self._path = wandb, run.workdir / "wandb" / "sagan_jax.json"
        saved, self._sent = _saved(self._path)
        self._id = saved or self._options.get("id") or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        self._step = self._sent
        self._save()
        options: dict[str, Any] = {"project": os.environ.get("WANDB_PROJECT", "sagan_jax"), "name": run.name}
        options |= {"settings": wandb.Settings(console="off", silent=True)}  # a run has a display of its own
        options |= {"resume": "allow", "reinit": "create_new"}  # another run of this process stays as it is
        options |= {**self._options, "id": self._id, "dir": run.workdir, "config": dict(run.config)}
        self._run = wandb.init(**options)
        where = f"{self._path.parent}; wandb sync sends it" if self._run.offline else self._run.url
        print(f"wandb: run {self._id}, {where}", flush=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values."""
        self._log(step, dict(values))

    def images(self, name: str, step: int, image: np.ndarray) -> None:
        """Sends the image."""
        self._log(step, {name: self._wandb.Image(image if image.shape[2] == 3 else image[:, :, 0])})

    def end(self, how: HowEnded, message: str) -> None:
        """Waits until all is sent, and ends the threads and the process of wandb."""
        if self._run:
            self._run.finish(exit_code=int(how == "failed"))
            if self._wandb.run is None:  # else the user has a run of their own
                self._wandb.teardown()

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if step <= self._sent:
            return
        self._run.log(values, step=step)
        if step > self._step:
            self._step = step
            self._save()

    def _save(self) -> None:
        write_atomically(self._path, json.dumps({"id": self._id, "step": self._step}).encode())


def require_wandb() -> None:
    """Raises InvalidInputError unless the package is installed; it is not imported, which takes a second."""
    if not is_installed("wandb"):
        raise InvalidInputError("The callback wandb needs its package: pip install 'sagan-jax[wandb]'.")


def _saved(path: Path) -> tuple[str, int]:
    """Returns the id of the run and the last step that was sent; "" and -1 for a run that is new."""
    try:
        saved = read_json(path)
    except FileNotFoundError:
        return "", -1
    if not (isinstance(saved, dict) and isinstance(saved.get("id"), str) and type(saved.get("step")) is int):
        raise InvalidInputError(f"{str(path)!r} needs the id and the last step of a run of wandb. Is it damaged?")
    return saved["id"], saved["step"]
