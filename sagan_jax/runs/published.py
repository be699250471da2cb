"""The files of a published run: their content, and the conversion of a state to named arrays and back."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import jax
import numpy as np

from sagan_jax import __version__
from sagan_jax.config import AnyExperiment, Data, Experiment, to_dict, user_objects
from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runs.own_objects import without_folder, without_folders
from sagan_jax.runs.saved_config import config_of, source_digests
from sagan_jax.runtime.files import read_json
from sagan_jax.training.adversarial import AdversarialState
from sagan_jax.training.completion import CompletionState
from sagan_jax.training.network_state import NetworkState

CONFIG, WEIGHTS, CARD, PICTURE = "config.json", "model.safetensors", "README.md", "samples.png"
LIBRARY = "sagan_jax"
_FORMAT = 1
_PLACES = ("source", "held_out", "labels", "held_out_labels")  # fields of `Data` that are paths

State = TypeVar("State", AdversarialState, CompletionState)


@dataclasses.dataclass(frozen=True)
class Published:
    """The content of `config.json` of a published run.

    Attributes:
        experiment: the config of the run; names of files have no folders.
        step: number of training steps of the networks.
        sources: the SHA-256 of the source of each object of a user that loading needs.
        has_discriminator: whether the weights include a discriminator.
    """

    experiment: AnyExperiment
    step: int
    sources: Mapping[str, str]
    has_discriminator: bool

    def content(self) -> dict[str, Any]:
        """Returns the content of `config.json`."""
        return {
            "library_name": LIBRARY,
            "format": _FORMAT,
            "version": __version__,
            "step": self.step,
            "discriminator": self.has_discriminator,
            "sources": dict(self.sources),
            "experiment": without_folders(to_dict(self.experiment)),
        }


def published(experiment: AnyExperiment, step: int, has_discriminator: bool) -> Published:
    """Returns the facts that a run publishes, without folders of this machine."""
    sources = source_digests(without_training_objects(experiment))
    return Published(
        _without_places(experiment),
        step,
        {without_folder(name): digest for name, digest in sources.items()},
        has_discriminator,
    )


def _without_places(experiment: Any) -> AnyExperiment:
    """Returns the config with file names instead of paths, and the default cache."""
    changed: dict[str, Any] = {"data": dataclasses.replace(_named(experiment.data, _PLACES), cache=Data().cache)}
    if isinstance(experiment, Experiment):
        changed["training"] = _named(experiment.training, ("init_from",))
        changed["evaluation"] = _named(experiment.evaluation, ("inception_weights", "dinov2_weights"))
    return dataclasses.replace(experiment, **changed)


def _named(section: Any, fields: Sequence[str]) -> Any:
    """Returns a section of a config in which the paths of some fields are reduced to their last part."""
    paths = {name: PurePosixPath(getattr(section, name).replace("\\", "/")).name for name in fields}
    return dataclasses.replace(section, **paths)


def without_training_objects(experiment: AnyExperiment) -> AnyExperiment:
    """Returns the config without a user's loss, augmentations and optimiser, which trained networks do not need."""
    if not isinstance(experiment, Experiment):
        return experiment
    training = dataclasses.replace(experiment.training, loss="hinge", augmentation=(), optimizer="adam")
    return dataclasses.replace(experiment, training=training)


def needed_objects(experiment: AnyExperiment) -> list[str]:
    """Returns the import paths of a user's objects that loading needs, files without their folders."""
    return [without_folder(name) for name in user_objects(without_training_objects(experiment))]


def read_published(folder: Path) -> Published:
    """Returns the content of `config.json` in a folder.

    Raises:
        InvalidInputError: the file is missing, or was not written by `sagan-jax export --format hub`.
        StorageError: the file cannot be read.
    """
    path = folder / CONFIG
    where = repr(str(path))
    made = "sagan-jax export --format hub writes it"
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInputError(f"{str(folder)!r} needs a file {CONFIG}, as {made}; it has none.") from error
    except OSError as error:
        raise StorageError(f"{where} could not be read: {error.strerror or error}.") from error
    if not isinstance(values, dict) or values.get("library_name") != LIBRARY:
        is_run = isinstance(values, dict) and {"networks", "training"} <= set(values)
        hint = " It is a run: open it with sagan_jax.open_run." if is_run else " Is it a model of another library?"
        raise InvalidInputError(f"{where} needs 'library_name': {LIBRARY!r}, as {made}; it does not say so.{hint}")
    if values.get("format") != _FORMAT:
        raise InvalidInputError(
            f"{where} needs format {_FORMAT}, which this version reads; it has {values.get('format')!r}. "
            f"Was it written by a newer sagan_jax?"
        )
    kinds = {"step": int, "discriminator": bool, "sources": dict, "experiment": dict}
    for name, kind in kinds.items():
        if type(values.get(name)) is not kind:
            raise InvalidInputError(f"{where} needs a field {name!r}, as {made}; it is absent or damaged.")
    if not 0 <= values["step"] < 2**31:
        raise InvalidInputError(
            f"{where} needs a step from 0 to {2**31 - 1:,}; it has {values['step']:,}. Is it damaged?"
        )
    experiment = config_of(without_folders(values["experiment"]), where)
    return Published(experiment, values["step"], values["sources"], values["discriminator"])


def arrays_of(state: AdversarialState | CompletionState, has_discriminator: bool) -> dict[str, np.ndarray]:
    """Returns the arrays of a state by names such as `generator/params/block_1/conv_1/kernel`.

    The first part is the network, the second `params`, `batch_stats`, `spectral` or `average`. Optimisers are left out.
    Floats narrower than float32 are widened, which is exact.

    Args:
        state: the state of a run.
        has_discriminator: whether to include D. The discriminator of a run that completes images is never included.
    """
    named = {name: np.asarray(leaf) for name, leaf in _named_leaves(_trees(state, has_discriminator))}
    return {name: leaf if leaf.dtype.isbuiltin == 1 else leaf.astype(np.float32) for name, leaf in named.items()}


def state_of(shapes: State, arrays: Mapping[str, np.ndarray], step: int, has_discriminator: bool, where: str) -> State:
    """Returns a state with the arrays that `arrays_of` returned. The states of its optimisers are empty.

    Args:
        shapes: a state of the same config; only its shapes and dtypes are read.
        arrays: the arrays by name.
        step: number of training steps done.
        has_discriminator: whether the arrays include D.
        where: the file of the arrays; starts the error message.

    Raises:
        InvalidInputError: an array is missing, unknown or of another shape.
    """
    wanted = _trees(shapes, has_discriminator)
    leaves = dict(_named_leaves(wanted))
    for name, leaf in leaves.items():
        if name not in arrays or arrays[name].shape != leaf.shape:
            found = f"it has {list(arrays[name].shape)}" if name in arrays else "it has none"
            raise InvalidInputError(f"{where} needs {name!r} {list(leaf.shape)} for the networks of {CONFIG}; {found}.")
    unknown = sorted(arrays.keys() - leaves.keys())
    if unknown:
        raise InvalidInputError(f"{where} has {unknown[0]!r}, which the networks of {CONFIG} do not have.")
    filled = [arrays[name].astype(leaf.dtype, copy=False) for name, leaf in leaves.items()]
    return _with_trees(shapes, jax.tree.unflatten(jax.tree.structure(wanted), filled), step)


def _trees(state: AdversarialState | CompletionState, has_discriminator: bool) -> dict[str, Any]:
    """Returns the published part of a state: a tree of arrays by network and kind."""
    if isinstance(state, CompletionState):
        return {"completer": _kinds(state.network) | {"average": state.average}}
    trees = {"generator": _kinds(state.generator) | {"average": state.average}}
    return trees | ({"discriminator": _kinds(state.discriminator)} if has_discriminator else {})


def _kinds(network: NetworkState) -> dict[str, Any]:
    return {"params": network.params, "batch_stats": network.batch_stats, "spectral": network.spectral}


def _with_trees(state: State, trees: dict[str, Any], step: int) -> State:
    """Returns the state with its networks and average replaced by trees as `_trees` returns them."""
    networks = {
        name: NetworkState(tree["params"], tree["spectral"], tree["batch_stats"], ()) for name, tree in trees.items()
    }
    fixed = {"step": np.int32(step), "seed": np.uint32(0)}
    if isinstance(state, CompletionState):
        network, average = networks["completer"], trees["completer"]["average"]
        return dataclasses.replace(state, network=network, discriminator={}, average=average, **fixed)
    absent = NetworkState({}, {}, {}, ())
    return dataclasses.replace(
        state,
        generator=networks["generator"],
        discriminator=networks.get("discriminator", absent),
        average=trees["generator"]["average"],
        **fixed,
    )


def _named_leaves(trees: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(trees)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf
