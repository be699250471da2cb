"""Loads the user's objects that a config names: networks, loss, augmentations and optimisers; tracks their sources."""

from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn
import optax

from sagan_jax.config import AnyExperiment, from_dict, holds_objects, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.functional import AdversarialLoss
from sagan_jax.import_paths import errors_of_user_code, find_object, is_import_path
from sagan_jax.training.optimizers import Optimizers

Kind = TypeVar("Kind", bound=AnyExperiment)


def own_networks(modules: tuple[str, ...]) -> tuple[Any, Any]:
    """Returns the two modules of a user.

    Args:
        modules: import paths of G and of D. Each is a module, or a callable that makes one without arguments.

    Raises:
        InvalidInputError: there is no such object, or it is not a flax module.
    """
    generator, discriminator = (_made(path, "--modules", nn.Module, "a flax.linen module") for path in modules)
    return generator, discriminator


def own_loss(loss: str | tuple[str, str]) -> AdversarialLoss:
    """Returns the loss of a user.

    Args:
        loss: import paths of D's and G's function, or one import path of an `AdversarialLoss` or a pair of functions.

    Raises:
        InvalidInputError: there is no such object, or it is not a pair of functions.
    """
    found = find_object(loss, "--loss") if isinstance(loss, str) else [find_object(path, "--loss") for path in loss]
    if isinstance(found, AdversarialLoss):
        return found
    if not (isinstance(found, tuple | list) and len(found) == 2 and all(map(callable, found))):
        raise InvalidInputError(
            f"--loss needs two functions, the discriminator's and the generator's, or a "
            f"sagan_jax.functional.AdversarialLoss; got {_short(found)}."
        )
    return AdversarialLoss(*found)


def own_augmentation(names: tuple[str, ...]) -> tuple[Any, ...]:
    """Returns the augmentations: built-in names unchanged, and functions of a user for their import paths.

    Raises:
        InvalidInputError: there is no such object, or it cannot be called.
    """
    found = [find_object(name, "--augmentation") if is_import_path(name) else name for name in names]
    for one in found:
        if not (isinstance(one, str) or callable(one)):
            raise InvalidInputError(f"--augmentation needs a function (key, image) -> image; got {_short(one)}.")
    return tuple(found)


def own_optimizers(optimizer: str | tuple[str, str]) -> Optimizers:
    """Returns the optimisers of a user, one for each network.

    Args:
        optimizer: the import path of an optax transformation for both networks, or one for G and one for D. Each is a
            transformation, or a callable that makes one without arguments.

    Raises:
        InvalidInputError: there is no such object, or it is not an optax transformation.
    """
    paths = (optimizer, optimizer) if isinstance(optimizer, str) else optimizer
    kind, words = optax.GradientTransformation, "an optax transformation"
    generator, discriminator = (_made(path, "--optimizer", kind, words) for path in paths)
    return Optimizers(generator, discriminator)


def _made(path: str, flag: str, kind: type, words: str) -> Any:
    """Returns the object of an import path, or the result of calling it."""
    found = find_object(path, flag)
    if not isinstance(found, kind) and callable(found):
        with errors_of_user_code(f"{flag} {path} could not be called without arguments"):
            found = found()
    if not isinstance(found, kind):
        nnx = " An nnx module goes into flax.nnx.bridge.ToLinen." if kind is nn.Module else ""
        raise InvalidInputError(f"{flag} {path} needs to be {words}, or to make one; got {_short(found)}.{nnx}")
    return found


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns the import paths of the objects whose source has changed.

    Args:
        before: earlier digests by import path. The folder of a file is ignored, so a file may have moved.
        now: current digests by import path.
    """
    known = {without_folder(path): digest for path, digest in before.items()}
    return [path for path, digest in now.items() if known.get(without_folder(path), digest) != digest]


def without_folders(values: Any) -> Any:
    """Returns a config as nested dictionaries, with the files of a user's objects named without their folders."""
    if not isinstance(values, dict):
        return values
    return {
        field: without_folder(value) if holds_objects(field, value) else without_folders(value)
        for field, value in values.items()
    }


def with_current_paths(experiment: Kind, named: AnyExperiment) -> Kind:
    """Returns the config of a run. Import paths of which only the folder has changed are replaced by the current ones.

    Args:
        experiment: the saved config of the run.
        named: the config from the current experiment file, which may have moved.
    """
    values, now = to_dict(experiment), to_dict(named)
    for name, section in values.items():
        for field, value in section.items() if isinstance(section, dict) else ():
            if holds_objects(field, value) and without_folder(value) == without_folder(now[name][field]):
                section[field] = now[name][field]
    return from_dict(values)


def without_folder(value: Any) -> Any:
    """Returns an import path, or several, without the folders of its files.

    Examples:
        >>> without_folder("/home/me/layers.py:Layer"), without_folder("package.layers:Layer")
        ('layers.py:Layer', 'package.layers:Layer')
    """
    if isinstance(value, str):
        return value.replace("\\", "/").rpartition("/")[2] if is_import_path(value) else value
    return [without_folder(path) for path in value] if isinstance(value, tuple | list) else value


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
