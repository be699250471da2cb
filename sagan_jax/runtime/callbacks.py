"""What a run tells others of: the protocol of a callback, such as one that sends metrics to a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

HowEnded = Literal["finished", "stopped", "failed"]


class RunStart(NamedTuple):
    """What a run is when it starts or goes on.

    Attributes:
        name: of the run.
        workdir: its folder, which exists.
        config: as in `config.json`: nested dictionaries of JSON types.
        first_step: steps that are done already: 0 at the start, the saved step of a run that goes on.
        total_steps: steps that are done at the end.
    """

    name: str
    workdir: Path
    config: Mapping[str, Any]
    first_step: int
    total_steps: int


class Callback(Protocol):
    """Is told what a run records: a subclass with the methods that it needs, or any object with all five of them.

        class Printer(Callback):
            def metrics(self, step, values):
                print(step, values["generator/loss"])

    What it is told is on disk already, in `metrics.jsonl`, `samples/` and `scores/`. All values are copies on the host.
    Only the first process of a run calls it, between two steps, and the run waits until it returns.

    A callback may raise anything. From `start`, that ends the command before the first step. From another method, it is
    one line, and of this callback only `end` is called after it; the run goes on. So no callback can damage a run.

    A run that was killed goes on from its last save. The steps after that save are done again, and are told again;
    `RunStart.first_step` says from where. Nothing is called at a kill, or at a second signal.
    """

    def start(self, run: RunStart) -> None:
        """Is called before the first step, also when a run goes on.

        Args:
            run: what starts.
        """

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Is called with each line of `metrics.jsonl`; a step may have several lines.

        Args:
            step: steps done; never below that of an earlier call.
            values: by name, such as `generator/loss`; they may be infinite or NaN. Scores are `score/NAME`.
        """

    def images(self, name: str, step: int, image: np.ndarray) -> None:
        """Is called after a picture is in `samples/NAME-STEP.png`.

        Args:
            name: of the picture: `samples`.
            step: steps done by the networks that drew it.
            image: `[H, W, C]` uint8, C 1 or 3; read only.
        """

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Is called after the networks of a step were scored; `metrics` has been called with the same values.

        Args:
            step: steps done.
            values: by the name of the score, such as `fid50k_train`.
        """

    def end(self, how: HowEnded, message: str) -> None:
        """Is called last, after the report is written.

        Args:
            how: `finished`; `stopped` by a signal, after a save; or `failed`, by an error or a collapse.
            message: the name of the signal, or the line of the error; "" when the run is finished.
        """
