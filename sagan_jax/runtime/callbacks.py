"""The protocol of a callback, which receives what a run records; for example, to send metrics to a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

HowEnded = Literal["finished", "stopped", "failed"]


class RunStart(NamedTuple):
    """A description of a run that starts or resumes.

    Attributes:
        name: the name of the run.
        workdir: its folder, which exists.
        config: as in `config.json`: nested dictionaries of JSON types.
        first_step: number of steps already done: 0 for a new run, the saved step for a resumed one.
        total_steps: number of steps at the end of the run.
    """

    name: str
    workdir: Path
    config: Mapping[str, Any]
    first_step: int
    total_steps: int


class Callback(Protocol):
    """Receives what a run records. Subclass it and define the methods you need, or pass any object with all five.

        class Printer(Callback):
            def metrics(self, step, values):
                print(step, values["generator/loss"])

    The values are already on disk when a method is called, in `metrics.jsonl`, `samples/` and `scores/`. They are
    copies on the host. Only the first process of a run calls the methods, between two steps, and waits until they
    return.

    A method may raise any exception. In `start` it ends the command before the first step. In another method it is
    printed as one line and the run continues; afterwards, only `end` of this callback is called. So no callback can
    damage a run.

    A killed run resumes from its last save. The steps after that save are repeated, and so are the calls for them.
    `RunStart.first_step` is the step of that save. No method is called when the process is killed, or at a second
    signal.
    """

    def start(self, run: RunStart) -> None:
        """Is called before the first step, also for a resumed run.

        Args:
            run: describes the run.
        """

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Is called with each line of `metrics.jsonl`; a step may have several lines.

        Args:
            step: steps done; never below that of an earlier call.
            values: by name, such as `generator/loss`; they may be infinite or NaN. Scores are named `score/NAME`.
        """

    def images(self, name: str, step: int, image: np.ndarray) -> None:
        """Is called after a picture was written to `samples/NAME-STEP.png`.

        Args:
            name: the name of the picture: `samples`.
            step: steps done by the networks that drew it.
            image: `[H, W, C]` uint8, C 1 or 3; read-only.
        """

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Is called after the networks of a step were scored. `metrics` was called with the same values before.

        Args:
            step: steps done.
            values: by the name of the score, such as `fid50k_train`.
        """

    def end(self, how: HowEnded, message: str) -> None:
        """Is called last, after the report is written.

        Args:
            how: `finished`; `stopped` by a signal, after a save; or `failed`, by an error or a collapse.
            message: the name of the signal, or the error as one line; "" if the run is finished.
        """
