"""The interface of a training job: the part of a run that differs between generating and completing images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sagan_jax.data import ImageSource
from sagan_jax.runs.health import Health
from sagan_jax.runs.score_monitor import ScoreMonitor
from sagan_jax.runtime.metrics_log import MetricsWriter

State = Any
"""An `AdversarialState` or a `CompletionState`."""

Batch = Any
"""An adversarial `Batch` or a `CompletionBatch`."""


class TrainingJob(Protocol):
    """A task with its data, ready to be trained.

    Attributes:
        source: the training images.
        code: the digests of the source of a user's objects, by their import paths.
        score_monitor: measures scores while the run trains; None when the config names no protocols.
        health: watches the metrics; None for a task without signs.
        finite_metrics: the metrics that end a run when they are not finite.
        images_per_step: real images that a step reads, over all devices.
        constants: trees of arrays that the step takes after the batch and does not change.
    """

    source: ImageSource
    code: Mapping[str, str]
    score_monitor: ScoreMonitor | None
    health: Health | None
    finite_metrics: Sequence[str]
    images_per_step: int
    constants: Sequence[Any]

    def initial_state(self) -> State:
        """Returns the state before the first step; also the template of a checkpoint."""
        ...

    def open_pretrained(self) -> None:
        """Reads the run that the config names to start from, if any. Called before the first step, not on resuming.

        Raises:
            InvalidInputError: there is no such run, its networks have other sizes, or it has no whole checkpoint.
            StorageError: its checkpoint cannot be read.
        """
        ...

    def warm_start(self, state: State) -> State:
        """Returns the state at step 0, with the networks of another run if the config names one."""
        ...

    def step(
        self, state: State, batch: Batch, *constants: Any, axis_name: str | None = None
    ) -> tuple[State, dict[str, Any]]:
        """Returns the state after one step, and the metrics."""
        ...

    def batches(self, first_step: int, first_image: int | None = None) -> Iterator[Batch]:
        """Returns this process's share of the data of each step from `first_step` on.

        Args:
            first_step: 0, or the step at which the run is resumed.
            first_image: number of images read before `first_step`. Defaults to that of the current batch size.
        """
        ...

    def draw(self, state: State, done: int, writer: MetricsWriter, workdir: Path) -> None:
        """Draws samples of the networks after `done` steps, and records them; the picture of samples comes last."""
        ...

    def is_drawn(self, done: int, recorded: Mapping[str, float], workdir: Path) -> bool:
        """Returns whether all outputs of `draw` for a step exist, in files and in the metrics of the step."""
        ...

    def variety(self, state: State) -> dict[str, float]:
        """Returns `health/diversity` of the networks, if it can be measured."""
        ...

    def trained(self, state: State, raw: bool = False) -> Any:
        """Returns the trained network that `train` returns."""
        ...

    def parameter_counts(self, state: State) -> str:
        """Returns the number of parameters of each network, as text."""
        ...

    def remarks(self) -> Iterator[str]:
        """Yields further lines for the summary before the first step."""
        ...
