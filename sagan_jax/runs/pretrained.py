"""Opens a run that was published with `sagan-jax export --format hub`."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import jax

from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.runs.build import (
    build_adversarial_task,
    build_completion_task,
    image_shape,
    trained_completer,
    trained_discriminator,
    trained_generator,
)
from sagan_jax.runs.hub_download import downloaded
from sagan_jax.runs.own_objects import changed_sources
from sagan_jax.runs.published import (
    CONFIG,
    WEIGHTS,
    Published,
    needed_objects,
    read_published,
    state_of,
    without_training_objects,
)
from sagan_jax.runs.saved_config import source_digests
from sagan_jax.runtime.devices import require_backend
from sagan_jax.training import adversarial, completion
from sagan_jax.training.adversarial import AdversarialState, AdversarialTask
from sagan_jax.training.completion import CompletionState, CompletionTask

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A published run, with its weights.

    Attributes:
        folder: the folder of the files.
        experiment: the config of the run. Names of files have no folders.
        step: number of training steps.
        task: the training task with the networks.
        state: the weights.
        has_discriminator: whether the weights came with a discriminator.
    """

    folder: Path
    experiment: AnyExperiment
    step: int
    task: AdversarialTask | CompletionTask = dataclasses.field(repr=False)
    state: AdversarialState | CompletionState = dataclasses.field(repr=False)
    has_discriminator: bool

    def generator(self) -> TrainedGenerator:
        """Returns G, ready to sample from.

        Raises:
            InvalidInputError: the run completes images.
        """
        return trained_generator(*self._generation())

    def discriminator(self) -> TrainedDiscriminator | None:
        """Returns D, or None when the weights came without one.

        Raises:
            InvalidInputError: the run completes images.
        """
        task, state = self._generation()
        return trained_discriminator(task, state) if self.has_discriminator else None

    def completer(self) -> TrainedCompleter:
        """Returns the network that fills holes.

        Raises:
            InvalidInputError: the run generates images.
        """
        if not (isinstance(self.task, CompletionTask) and isinstance(self.state, CompletionState)):
            raise InvalidInputError(f"{str(self.folder)!r} generates images and has no completer: take generator().")
        return trained_completer(self.task, self.state)

    def _generation(self) -> tuple[AdversarialTask, AdversarialState]:
        if not (isinstance(self.task, AdversarialTask) and isinstance(self.state, AdversarialState)):
            raise InvalidInputError(f"{str(self.folder)!r} completes images and has no generator: take completer().")
        return self.task, self.state


def load_pretrained(
    source: str | Path, *, raw: bool = False, revision: str | None = None, trust_code: bool = False
) -> Pretrained:
    """Returns the networks that `sagan-jax export --format hub` published. They generate the same images as the run.

    Args:
        source: a folder, or a repository of the Hugging Face hub such as `owner/name`, which is downloaded by
            `huggingface_hub` (extra `hub`). A folder of that name has precedence.
        raw: use the weights as trained, even where there is a moving average.
        revision: a branch, a tag or a commit of the repository.
        trust_code: allow networks that are defined in a user's own code, and run that module or file. The code comes
            from this machine, never from the repository. A file comes from the current folder.

    Raises:
        InvalidInputError: there is no such folder or repository, a file in it is damaged or of another kind, or
            something that it needs is not installed. Or the networks need a user's own code, which is not trusted or
            cannot be run.
        StorageError: a file cannot be read or written.
    """
    folder = _folder(source, revision)
    found = read_published(folder)
    require_backend()
    task, shapes = _task_and_shapes(found, folder, trust_code)
    path = folder / WEIGHTS
    state: Any = state_of(shapes, read_arrays(path).arrays, found.step, found.has_discriminator, repr(str(path)))
    if raw:
        state = dataclasses.replace(state, average={})
    return Pretrained(folder, found.experiment, found.step, task, state, found.has_discriminator)


def _folder(source: str | Path, revision: str | None) -> Path:
    """Returns the folder with the files. If there is no such folder, they are downloaded."""
    try:
        there = bool(str(source)) and Path(source).is_dir()
    except OSError as error:
        raise StorageError(f"{str(source)!r} could not be read: {error.strerror or error}.") from error
    if there:
        if revision is not None:
            raise InvalidInputError(f"revision is for a repository of the hub; {str(source)!r} is a folder.")
        return Path(source)
    if isinstance(source, Path) or not _REPOSITORY.fullmatch(source):
        raise InvalidInputError(
            f"load_pretrained needs a folder that sagan-jax export --format hub wrote, or a repository such as "
            f"owner/name; there is no folder {str(source)!r}."
        )
    return downloaded(source, revision, (CONFIG, WEIGHTS))


def _task_and_shapes(found: Published, folder: Path, trust_code: bool) -> tuple[Any, Any]:
    """Returns the task of a config, and the shapes of its state."""
    experiment: Any = without_training_objects(found.experiment)
    names = needed_objects(experiment)
    own = f"The networks of {str(folder)!r} need code of their author, {', '.join(names)}, not published with them"
    if names and not trust_code:
        raise InvalidInputError(
            f"{own}. Put that file into the current folder, or install that module, and give trust_code=True to run it."
        )
    try:
        if isinstance(experiment, Experiment):
            task = build_adversarial_task(experiment)
            shapes = jax.eval_shape(lambda: adversarial.initial_state(task, 0, image_shape(experiment)))
        else:
            task = build_completion_task(experiment)
            shapes = jax.eval_shape(lambda: completion.initial_state(task, 0))
    except InvalidInputError as error:
        if not names:
            raise
        raise InvalidInputError(f"{own}: {error}") from error
    changed = changed_sources(found.sources, source_digests(experiment))
    if changed:
        line = f"warning: the source of {', '.join(changed)} is not the one that the networks were published with"
        print(line, file=sys.stderr, flush=True)
    return task, shapes
