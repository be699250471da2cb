"""Opens a run: its config, its checkpoint and its images, each read once."""

import dataclasses
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax

from sagan_jax.config import AnyExperiment, CompletionExperiment, Experiment
from sagan_jax.data import DataSource, ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.runs.build import (
    build_adversarial_task,
    build_completion_task,
    image_shape,
    open_images,
    open_labelled_images,
    trained_completer,
    trained_discriminator,
    trained_generator,
)
from sagan_jax.runs.own_objects import changed_sources
from sagan_jax.runs.saved_config import read_experiment, source_digests
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.devices import require_backend
from sagan_jax.training import adversarial, completion
from sagan_jax.training.adversarial import AdversarialState, AdversarialTask
from sagan_jax.training.completion import CompletionState, CompletionTask

CheckpointName = Literal["newest", "best"] | int
"""The newest checkpoint, the checkpoint with the best score, or the step of a checkpoint."""


State = TypeVar("State")
_Kind = TypeVar("_Kind", Experiment, CompletionExperiment)

NO_DISCRIMINATOR = "absent"
"""The value of `discriminator` in a checkpoint's metadata if the weights came without one."""


def require_experiment(workdir: Path) -> Experiment:
    """Returns the config of a run that generates images; raises InvalidInputError when `workdir` holds none."""
    return _require_generation(workdir, _found(workdir, read_experiment(workdir, offer_trust=False)))


def _folder(checkpoint: CheckpointName) -> str:
    return "best" if checkpoint == "best" else "checkpoints"


def _require_run(
    workdir: Path, checkpoint: CheckpointName = "newest", *, trust_checkpoint: bool = False
) -> AnyExperiment:
    kept = _folder(checkpoint)
    return _found(workdir, read_experiment(workdir, checkpoints=kept, trust_checkpoint=trust_checkpoint))


def _found(workdir: Path, experiment: AnyExperiment | None) -> AnyExperiment:
    if experiment is None:
        raise InvalidInputError(f"There is no run in {str(workdir)!r}: it has no config.json. Is the path right?")
    return experiment


def _require_generation(workdir: Path, experiment: AnyExperiment) -> Experiment:
    if not isinstance(experiment, Experiment):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} completes images (sagan-jax complete); this needs one that generates them."
        )
    return experiment


def _require_completion(workdir: Path, experiment: AnyExperiment) -> CompletionExperiment:
    if not isinstance(experiment, CompletionExperiment):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} generates images (sagan-jax sample); this needs one that completes them, "
            f"such as sagan-jax train faces_completion_64 makes."
        )
    return experiment


@dataclasses.dataclass(frozen=True)
class GenerationRun:
    """A run that generates images, opened at one checkpoint.

    Attributes:
        workdir: the folder of the run.
        experiment: the config of the run, with the data that `open_run` was given.
        checkpoint: `newest`, `best` (the best score), or the step of a checkpoint.
    """

    workdir: Path
    experiment: Experiment
    checkpoint: CheckpointName = "newest"

    def generator(self, *, raw: bool = False) -> TrainedGenerator:
        """Returns G, ready to sample from. Uses the moving average of the weights if the run keeps one.

        Args:
            raw: use the weights as trained, even where there is a moving average.

        Raises:
            InvalidInputError: there is no whole checkpoint.
            StorageError: the checkpoint cannot be read.
        """
        return trained_generator(self.task, self.state, raw)

    def discriminator(self) -> TrainedDiscriminator | None:
        """Returns D, or None when the weights of the run came without one.

        Raises:
            InvalidInputError: there is no whole checkpoint.
            StorageError: the checkpoint cannot be read.
        """
        return trained_discriminator(self.task, self.state) if self.has_discriminator else None

    def images(self, *, held_out: bool = False) -> ImageSource:
        """Returns the images that the run trained on, or those held out from it.

        Raises:
            InvalidInputError: no source is named, it cannot be read, or it has other classes than the networks.
        """
        return self._held_out_images if held_out else self._training_images

    @cached_property
    def _training_images(self) -> ImageSource:
        return open_labelled_images(self.experiment)

    @cached_property
    def _held_out_images(self) -> ImageSource:
        return open_labelled_images(self.experiment, held_out=True)

    @cached_property
    def task(self) -> AdversarialTask:
        """The training task: networks, loss and optimisers of the config."""
        return build_adversarial_task(self.experiment)

    @property
    def state(self) -> AdversarialState:
        """The state at the checkpoint, as numpy arrays."""
        return self._restored[0]

    @property
    def has_discriminator(self) -> bool:
        """Whether the weights came with a discriminator."""
        return self._restored[1].get("discriminator") != NO_DISCRIMINATOR

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names in the checkpoint; empty for older checkpoints and for networks without classes."""
        return tuple(self._restored[1].get("class_names", ())) if self.experiment.networks.num_classes else ()

    @cached_property
    def _restored(self) -> tuple[AdversarialState, dict[str, Any]]:
        experiment = self.experiment
        state, meta = _restore(
            self.workdir,
            self.checkpoint,
            lambda: adversarial.initial_state(self.task, experiment.training.seed, image_shape(experiment)),
        )
        changed = changed_sources(meta.get("sources", {}), source_digests(experiment))
        if changed:
            line = f"warning: the source of {', '.join(changed)} has changed since the run was saved"
            print(line, file=sys.stderr, flush=True)
        return state, meta


@dataclasses.dataclass(frozen=True)
class CompletionRun:
    """A run that completes images, opened at one checkpoint.

    Attributes:
        workdir: the folder of the run.
        experiment: the config of the run, with the data that `open_completion_run` was given.
        checkpoint: `newest`, or the step of a checkpoint.
    """

    workdir: Path
    experiment: CompletionExperiment
    checkpoint: CheckpointName = "newest"

    def completer(self, *, raw: bool = False) -> TrainedCompleter:
        """Returns the network, ready to fill holes. Uses the moving average of the weights if the run keeps one.

        Args:
            raw: use the weights as trained, even where there is a moving average.

        Raises:
            InvalidInputError: there is no whole checkpoint.
            StorageError: the checkpoint cannot be read.
        """
        return trained_completer(self.task, self.state, raw)

    def images(self, *, held_out: bool = False) -> ImageSource:
        """Returns the images that the run trained on, or those held out from it.

        Raises:
            InvalidInputError: no source is named, or it cannot be read.
        """
        return self._held_out_images if held_out else self._training_images

    @cached_property
    def _training_images(self) -> ImageSource:
        return open_images(self.experiment)

    @cached_property
    def _held_out_images(self) -> ImageSource:
        return open_images(self.experiment, held_out=True)

    @cached_property
    def task(self) -> CompletionTask:
        """The training task: networks, loss weights and optimisers of the config."""
        return build_completion_task(self.experiment)

    @cached_property
    def state(self) -> CompletionState:
        """The state at the checkpoint, as numpy arrays."""
        seed = self.experiment.training.seed
        return _restore(self.workdir, self.checkpoint, lambda: completion.initial_state(self.task, seed))[0]


def _restore(
    workdir: Path, checkpoint: CheckpointName, initial_state: Callable[[], State]
) -> tuple[State, dict[str, Any]]:
    """Returns the state at a checkpoint, and its metadata. `initial_state` is only traced for shapes."""
    if isinstance(checkpoint, str) and checkpoint not in ("newest", "best"):
        raise InvalidInputError(f"A checkpoint is 'newest', 'best' or a step, an integer; got {checkpoint!r}.")
    require_backend()
    template = jax.eval_shape(initial_state)
    step = None if isinstance(checkpoint, str) else checkpoint
    folder = _folder(checkpoint)
    if step is not None and step not in _steps(workdir, "checkpoints") and step in _steps(workdir, "best"):
        folder = "best"  # the best checkpoint stays there after the newest ones have replaced it
    with Checkpoints(workdir / folder) as checkpoints:
        restored = checkpoints.restore(template, step, _instead_of(workdir, checkpoint))
    if restored is None and step is not None:
        raise InvalidInputError(f"The run in {str(workdir)!r} has no checkpoint {step}: {_steps_words(workdir)}.")
    if restored is None:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} has no best checkpoint: it was not scored while it trained (--protocols)."
            if checkpoint == "best"
            else f"The run in {str(workdir)!r} has no checkpoint yet: it was stopped before the first save."
        )
    return restored[1], restored[2]


def _instead_of(workdir: Path, checkpoint: CheckpointName) -> str:
    """Returns a sentence that says what to do if every step in the checkpoint's folder is damaged."""
    other: CheckpointName = "newest" if checkpoint == "best" else "best"
    if Checkpoints(workdir / _folder(other)).latest_step is not None:
        return f"Give --checkpoint {other}, or restore a backup."
    return "Restore a backup, or train it again with sagan-jax train --fresh."


def checkpoint_steps(workdir: Path) -> list[int]:
    """Returns the steps of all checkpoints of a run, including the best one, ascending."""
    return sorted({*_steps(workdir, "checkpoints"), *_steps(workdir, "best")})


def _steps(workdir: Path, folder: str) -> list[int]:
    return Checkpoints(workdir / folder).steps


def _steps_words(workdir: Path) -> str:
    kept, best = _steps(workdir, "checkpoints"), _steps(workdir, "best")
    if not kept and not best:
        return "it was stopped before the first save"
    words = [", ".join(map(str, reversed(kept)))] if kept else []
    return f"there are {' and, as the best, '.join([*words, *map(str, best[:1])])}"


def open_run(
    workdir: str | Path,
    *,
    checkpoint: CheckpointName = "newest",
    source: str | DataSource = "",
    held_out: str | DataSource = "",
    cache: str | None = None,
    trust_checkpoint: bool = False,
) -> GenerationRun:
    """Opens a run that generates images, and reads its config. Checkpoint and images are read once, on first use.

    Args:
        workdir: the folder of a run with a checkpoint.
        checkpoint: `newest`, `best` (the best score of a run that was scored while it trained), or the step of a
            checkpoint, such as 1000.
        source: where the training images are, or a data set of yours that a file or module defines at its top level.
            Defaults to the source in the config.
        held_out: where the held-out images are, likewise.
        cache: as `Data.cache`. Defaults to the cache in the config.
        trust_checkpoint: use the config that is stored in the checkpoint, not `config.json`. Older checkpoints hold no
            config; for them this has no effect.

    Raises:
        InvalidInputError: `workdir` holds no run that generates images, or its config is not that of its checkpoint.
        StorageError: the config cannot be read.
    """
    workdir = Path(workdir)
    experiment = _require_generation(workdir, _require_run(workdir, checkpoint, trust_checkpoint=trust_checkpoint))
    return GenerationRun(workdir, _with_data(experiment, source, held_out, cache), checkpoint)


def open_completion_run(
    workdir: str | Path,
    *,
    checkpoint: CheckpointName = "newest",
    source: str | DataSource = "",
    held_out: str | DataSource = "",
    cache: str | None = None,
    trust_checkpoint: bool = False,
) -> CompletionRun:
    """Opens a run that completes images, and reads its config. Checkpoint and images are read once, on first use.

    Args:
        workdir: the folder of a run with a checkpoint.
        checkpoint: `newest`, or the step of a checkpoint.
        source: as for `open_run`.
        held_out: as for `open_run`.
        cache: as for `open_run`.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: `workdir` holds no run that completes images, its config is not that of its checkpoint, or
            `checkpoint` is `best`.
        StorageError: the config cannot be read.
    """
    workdir = Path(workdir)
    experiment = _require_completion(workdir, _require_run(workdir, trust_checkpoint=trust_checkpoint))
    _refuse_best(checkpoint)
    return CompletionRun(workdir, _with_data(experiment, source, held_out, cache), checkpoint)


def _refuse_best(checkpoint: CheckpointName) -> None:
    """Raises InvalidInputError for `best`: completion runs are not scored while they train, so they keep no best."""
    if checkpoint == "best":
        raise InvalidInputError("--checkpoint best is for a run that generates images; this one has no best.")


def open_any_run(
    workdir: str | Path,
    *,
    checkpoint: CheckpointName = "newest",
    source: str | DataSource = "",
    held_out: str | DataSource = "",
    cache: str | None = None,
    trust_checkpoint: bool = False,
) -> GenerationRun | CompletionRun:
    """Opens a run of either task. The arguments are those of `open_run`.

    Raises:
        InvalidInputError: `workdir` holds no run, its config is not that of its checkpoint, or `checkpoint` is `best`
            for a run that completes images.
        StorageError: the config cannot be read.
    """
    workdir = Path(workdir)
    experiment = _require_run(workdir, checkpoint, trust_checkpoint=trust_checkpoint)
    if isinstance(experiment, Experiment):
        return GenerationRun(workdir, _with_data(experiment, source, held_out, cache), checkpoint)
    _refuse_best(checkpoint)
    return CompletionRun(workdir, _with_data(experiment, source, held_out, cache), checkpoint)


def _with_data(experiment: _Kind, source: str | DataSource, held_out: str | DataSource, cache: str | None) -> _Kind:
    """Returns the config with its data replaced by the arguments that are given."""
    data = experiment.data
    data = dataclasses.replace(
        data,
        source=data.source if isinstance(source, str) and not source else source,
        held_out=data.held_out if isinstance(held_out, str) and not held_out else held_out,
        cache=data.cache if cache is None else cache,
    )
    return dataclasses.replace(experiment, data=data)


def load_run(
    workdir: str | Path, *, checkpoint: CheckpointName = "newest", raw: bool = False, trust_checkpoint: bool = False
) -> TrainedGenerator:
    """Returns the generator of a run. Uses the moving average of the weights if the run keeps one.

    Args:
        workdir: the folder of a run with a checkpoint.
        checkpoint: `newest`, `best` (the best score of a run that was scored while it trained), or the step of a
            checkpoint, such as 1000.
        raw: use the weights as trained, even where there is a moving average.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: `workdir` holds no run that generates images, or no whole checkpoint.
        StorageError: the checkpoint cannot be read.
    """
    return open_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint).generator(raw=raw)


def load_completer(
    workdir: str | Path,
    *,
    checkpoint: CheckpointName = "newest",
    raw: bool = False,
    trust_checkpoint: bool = False,
) -> TrainedCompleter:
    """Returns the network of a run that completes images. Uses the moving average of the weights if the run keeps one.

    Args:
        workdir: the folder of a run with a checkpoint.
        checkpoint: `newest`, or the step of a checkpoint.
        raw: use the weights as trained, even where there is a moving average.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: `workdir` holds no run that completes images, or no whole checkpoint.
        StorageError: the checkpoint cannot be read.
    """
    run = open_completion_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    return run.completer(raw=raw)
