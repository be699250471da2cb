"""The callback that sends what a run records to Weights & Biases, or stores it on disk for a later upload."""

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

    A resumed run continues the same wandb run: `wandb/sagan_jax.json` in the workdir holds its id and the last step
    that was sent. If a killed run repeats steps, those up to that step are not sent again, because wandb's history only
    grows.

    Args:
        options: further arguments of `wandb.init`, such as `project`, `entity`, `tags` and `mode="offline"`.
            Environment variables such as WANDB_PROJECT and WANDB_MODE do the same.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._run: Any = None

    def start(self, run: RunStart) -> None:
        """Starts the wandb run, or resumes it.

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
        options |= {"settings": wandb.Settings(console="off", silent=True)}  # our runs have their own display
        options |= {"resume": "allow", "reinit": "create_new"}  # leaves other wandb runs of this process alone
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
        """Waits until everything is sent, and ends the threads and the process of wandb."""
        if self._run:
            self._run.finish(exit_code=int(how == "failed"))
            if self._wandb.run is None:  # otherwise the user has another wandb run
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
    """Raises InvalidInputError unless wandb is installed. It is not imported, because that takes a second."""
    if not is_installed("wandb"):
        raise InvalidInputError("The callback wandb needs its package: pip install 'sagan-jax[wandb]'.")


def _saved(path: Path) -> tuple[str, int]:
    """Returns the id of the run and the last step that was sent; "" and -1 for a new run."""
    try:
        saved = read_json(path)
    except FileNotFoundError:
        return "", -1
    if not (isinstance(saved, dict) and isinstance(saved.get("id"), str) and type(saved.get("step")) is int):
        raise InvalidInputError(f"{str(path)!r} needs the id and the last step of a run of wandb. Is it damaged?")
    return saved["id"], saved["step"]
