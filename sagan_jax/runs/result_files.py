"""Writes result files of scores. A failed write does not lose scores that were measured."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sagan_jax.errors import StorageError
from sagan_jax.evaluation.protocols import Protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.files import write_atomically


@dataclasses.dataclass
class ResultFiles:
    """Writes result files, and reports failed writes after everything was measured."""

    _refused: list[StorageError] = dataclasses.field(default_factory=list)

    def write(self, path: Path, content: bytes) -> None:
        """Writes a file, whole or not at all. An error is kept for `raise_refused`."""
        try:
            write_atomically(path, content)
        except StorageError as error:
            self._refused.append(error)

    def raise_refused(self) -> None:
        """Raises StorageError if a file could not be written."""
        if self._refused:
            files = "result file" if len(self._refused) == 1 else f"{len(self._refused)} result files"
            raise StorageError(
                f"The {files} could not be written; the scores above are valid, and --out FOLDER writes them elsewhere "
                f"({self._refused[0]})."
            ) from self._refused[0]


def result_path(workdir: Path, protocol: Protocol, step: int) -> Path:
    """Returns the path of the result file for the score of a run at a step."""
    return workdir / "scores" / f"{protocol.name}-{step:08d}.json"


def write_result(path: Path, score: Score) -> None:
    """Writes a result file, whole or not at all: values, protocol settings, and the images and versions used."""
    write_atomically(path, result_content(score))


def result_content(score: Score) -> bytes:
    """Returns the content of the result file of a score."""
    return (json.dumps(_result(score), indent=2) + "\n").encode()


def _result(score: Score) -> dict[str, Any]:
    environment = reproducibility_info()
    return {
        "values": score.values,
        "protocol": score.protocol.settings(),
        **score.details,
        "versions": environment["versions"],
        "devices": f"{environment['device_count']} {environment['device_kind']}",
    }
