"""The saved config of a run: in `config.json`, and a second copy in each checkpoint, protected by a digest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from sagan_jax.config import AnyExperiment, from_dict, to_dict, user_data, user_objects
from sagan_jax.errors import InvalidInputError, StorageError, one_line
from sagan_jax.import_paths import is_import_path, source_digest
from sagan_jax.runs.own_objects import without_folders
from sagan_jax.runs.validate import check_saved_config
from sagan_jax.runtime.checkpoints import read_sealed_meta
from sagan_jax.runtime.files import read_json

# The fields that a resumed run may change: durations, intervals, caches and batch sizes, but not what is trained.
MAY_CHANGE = ("name", "recording", "evaluation", "data.held_out", "data.cache", "training.total_steps")
MAY_CHANGE += ("training.driver", "training.precision", "training.batch_size", "training.accumulation_steps")

_NAMED, _LONGEST = 8, 200  # most differences in a message, and most characters of each


class ChangedConfigError(InvalidInputError):
    """`config.json` differs from the config that is stored in the checkpoint."""


def read_experiment(
    workdir: Path, *, checkpoints: str = "checkpoints", trust_checkpoint: bool = False, offer_trust: bool = True
) -> AnyExperiment | None:
    """Returns the config that the run in `workdir` was started with, or None if there is no run.

    Args:
        workdir: the folder of the run; it need not exist.
        checkpoints: the name of the folder in it whose newest checkpoint has the second copy of the config.
        trust_checkpoint: use the copy in the checkpoint, if there is one, and do not read `config.json`.
        offer_trust: whether the error may name the flag --trust-checkpoint.

    Raises:
        InvalidInputError: `config.json` cannot be read as a config, or differs from the checkpoint's copy in a field
            that a resumed run may not change.
        StorageError: the folder or the file may not be read.
    """
    sealed = sealed_experiment(workdir, checkpoints)
    if trust_checkpoint and sealed:
        return sealed[1]
    path = workdir / "config.json"
    try:
        experiment = config_of(read_json(path), repr(str(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{str(path)!r} could not be read: {error.strerror or error}.") from error
    if sealed:
        _check_same(workdir, *sealed, experiment, offer_trust=offer_trust)
    return experiment


def source_digests(experiment: AnyExperiment, *, data: bool = False) -> dict[str, str]:
    """Returns the SHA-256 of the source of each user's object that a config names, by its import path.

    Args:
        experiment: the config.
        data: whether to include data sets. Opening networks does not need them.

    Raises:
        InvalidInputError: an object is not found.
    """
    digests = {name: source_digest(name) for name in user_objects(experiment)}
    for name in user_data(experiment) if data else ():
        flag = "--source" if name == experiment.data.source else "--held-out"
        digests[name] = source_digest(name, flag)
    return digests


def saved_values(experiment: AnyExperiment, sources: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of `config.json`: the config, and as `sources` the digests of a user's objects, if any.

    Args:
        experiment: the config of the run.
        sources: as `source_digests` returns them; digests of callbacks are added.

    Raises:
        InvalidInputError: a callback is not found.
    """
    digests = dict(sources) | callback_digests(experiment)
    return to_dict(experiment) | ({"sources": digests} if digests else {})


def callback_digests(experiment: AnyExperiment) -> dict[str, str]:
    """Returns the SHA-256 of the source of each user's callback that a config names, by its import path.

    Raises:
        InvalidInputError: a callback is not found.
    """
    return {name: source_digest(name) for name in experiment.recording.callbacks if is_import_path(name)}


def recorded_digests(workdir: Path) -> dict[str, str]:
    """Returns the digests of a user's objects in `config.json`; empty if it has none or cannot be read."""
    try:
        found = read_json(workdir / "config.json").get("sources", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def sealed_experiment(workdir: Path, checkpoints: str = "checkpoints") -> tuple[int, AnyExperiment] | None:
    """Returns the newest checkpoint's step and the config that is stored in it, or None if there is none.

    Args:
        workdir: the folder of the run.
        checkpoints: the name of the folder of checkpoints in it.

    Raises:
        InvalidInputError: the config was written by a version that this one cannot read.
    """
    found = read_sealed_meta(workdir / checkpoints)
    if found is None or "experiment" not in found[1]:  # the earliest checkpoints have no config
        return None
    step, meta = found
    return step, config_of(meta["experiment"], f"what checkpoint {step} in {str(workdir)!r} holds")


def _check_same(workdir: Path, step: int, saved: AnyExperiment, found: AnyExperiment, *, offer_trust: bool) -> None:
    """Raises ChangedConfigError if a config differs from the checkpoint's in a field that must not change."""
    changed = [line for line in differences(to_dict(saved), to_dict(found)) if not line.startswith(MAY_CHANGE)]
    if changed:
        named = "; ".join(line if len(line) < _LONGEST else f"{line[:_LONGEST]}..." for line in changed[:_NAMED])
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        offer = ", or give --trust-checkpoint to use the checkpoint's" if offer_trust else ""
        raise ChangedConfigError(
            f"config.json in {str(workdir)!r} is not the config that checkpoint {step} was saved with (checkpoint -> "
            f"config.json): {named}{more}. Restore the file{offer}."
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line `name: old -> new` for each value that differs between two nested dictionaries.

    Import paths of a user's objects are compared without folders, so their files may have moved.

    Examples:
        >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
        ['a.c: 2 -> 3']
    """
    before, after = (flatten_dict(without_folders(values), sep=".") for values in (old, new))
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def config_of(values: Any, where: str) -> AnyExperiment:
    """Returns the config for JSON values, after a check of every value.

    Args:
        values: as `saved_values` returns them.
        where: a name for their origin; starts the error message.

    Raises:
        InvalidInputError: the values are not a config that this version can read.
    """
    try:
        if isinstance(values, dict):  # the digests of a user's objects are not part of the config
            values = {name: value for name, value in values.items() if name != "sources"}
        experiment = from_dict(values)
        check_saved_config(experiment)
    except (TypeError, InvalidInputError) as error:
        raise InvalidInputError(
            f"{where} is not the config of a run that this version can read: {one_line(error)}."
        ) from error
    return experiment
