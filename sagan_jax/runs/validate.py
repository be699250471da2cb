"""Checks that each value of a config is possible, before anything is written."""

import dataclasses
import difflib
import math
import os
import re
import reprlib
import shutil
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jax

from sagan_jax.config import AnyExperiment, CompletionExperiment, Experiment, Training
from sagan_jax.data.masks import MASK_KINDS
from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.import_paths import is_import_path
from sagan_jax.models.completion import completion_resolutions
from sagan_jax.runs.families import check_family
from sagan_jax.runs.unread_fields import OF_ADAM

# The fields of all configs by the values that they allow; no config has all of these fields.
_FROM_ONE = {"total_steps", "batch_size", "accumulation_steps", "discriminator_steps", "kl_warmup_steps"}
_FROM_ONE |= {"base_channels", "latent_size", "blocks", "keep_checkpoints"}
_FROM_ONE |= {"log_every_steps", "sample_every_steps", "save_every_steps", "evaluate_every_steps"}
_ABOVE_ZERO = {"generator_learning_rate", "discriminator_learning_rate", "learning_rate"}
_SHARES = {"adam_beta1", "adam_beta2", "ema_decay", "norm_decay", "final_norm_decay"}
_FROM_ZERO = {"adam_epsilon", "norm_epsilon", "spectral_epsilon", "orthogonal_strength", "ema_start_step"}
_FROM_ZERO |= {"visible_weight", "kl_weight", "free_bits", "adversarial_weight", "perceptual_weight"}
_FROM_ZERO |= {"warmup_steps", "r1", "r2"}
_FROM_ZERO |= {"skip_unreadable", "max_images", "num_classes", "shared_size", "discriminator_base_channels"}
_FROM_ZERO |= {"keep_every_steps"}

# The largest values. No real network is larger, and shapes in jax stay within 64-bit integers.
_LARGEST = dict.fromkeys(("base_channels", "discriminator_base_channels", "latent_size", "shared_size"), 2**20)
_LARGEST |= {"num_classes": 2**24, "blocks": 2**10}
_LARGEST_INT = 2**53 - 1  # every integer up to this one is exact as a float


def check_config(experiment: AnyExperiment) -> None:
    """Raises InvalidInputError for the first value that is not possible, by itself or on the present devices."""
    check_saved_config(experiment)
    if isinstance(experiment, Experiment):
        evaluation = experiment.evaluation
        _require(
            bool(evaluation.protocols) or not evaluation.keep_best_by,
            f"--keep-best-by {evaluation.keep_best_by} needs --protocols, the scores that are measured while the run "
            f"trains; got none, so nothing would be kept.",
        )
    check_shares(experiment, jax.device_count())


def check_shares(experiment: AnyExperiment, devices: int) -> None:
    """Raises InvalidInputError if that many devices cannot share a batch equally."""
    batch_size = experiment.training.batch_size
    _require(
        batch_size % devices == 0,
        f"--batch-size needs a multiple of the {devices} devices, so that each gets an equal part; got {batch_size}.",
    )
    if isinstance(experiment, Experiment):
        share, parts = batch_size // devices, experiment.training.accumulation_steps
        _require(
            share % parts == 0,
            f"--accumulation-steps needs to divide the {share} images of each device; got {parts}.",
        )


def check_saved_config(experiment: AnyExperiment) -> None:
    """Raises InvalidInputError for the first value that is not possible on any devices."""
    _check_fields(experiment)
    if isinstance(experiment, Experiment):
        check_family(experiment.networks)
        training = experiment.training
        _check_optimizer(training)
        _require(
            training.accumulation_steps == 1 or not training.shared_draws,
            f"--shared-draws uses one pass of G for both updates and needs --accumulation-steps 1; "
            f"got {training.accumulation_steps}. Give --no-shared-draws, or a smaller --batch-size.",
        )
    else:
        _check_completion(experiment)


def _check_optimizer(training: Training) -> None:
    """Refuses an impossible schedule, and settings of Adam that have no effect on a user's optimiser."""
    _require(
        training.schedule == "constant" or training.warmup_steps < training.total_steps,
        f"--schedule linear needs --warmup-steps below --total-steps, {training.total_steps}; "
        f"got {training.warmup_steps}.",
    )
    if training.optimizer == "adam":
        return
    for name in OF_ADAM:
        _require(
            getattr(training, name) == getattr(Training(), name),
            f"--{name.replace('_', '-')} does nothing with an --optimizer of yours: leave it, and set it there.",
        )


def _check_completion(experiment: CompletionExperiment) -> None:
    networks, training = experiment.networks, experiment.training
    check_hole_kind(training.holes)
    _require(
        not training.adversarial_weight or networks.discriminator_base_channels > 0,
        f"--adversarial-weight {training.adversarial_weight} needs a discriminator: "
        f"--discriminator-base-channels of at least 1; got 0.",
    )
    available = completion_resolutions(networks.resolution)
    for size in networks.attention_resolutions:
        _require(
            size in available,
            f"--attention-resolutions: the {networks.resolution}-pixel network has no feature map of {size}; "
            f"it can be any of {', '.join(map(str, sorted(available)))}.",
        )


def _check_fields(experiment: AnyExperiment) -> None:
    """Raises InvalidInputError for the first value that its field does not allow, for any task."""
    _require(
        isinstance(experiment.name, str) and re.fullmatch(r"\w[\w.-]*", experiment.name) is not None,
        f"--name needs letters, digits, '_', '-' and '.', since it names a folder; got {_short(experiment.name)}.",
    )
    sections = [
        section
        for field in dataclasses.fields(experiment)
        if dataclasses.is_dataclass(section := getattr(experiment, field.name))
    ]
    for section in sections:
        _check_types(section)
    values = {name: value for section in sections for name, value in vars(section).items()}
    for name, value in values.items():
        _check_range(name, value)
    _require(0 <= values["seed"] < 2**32, f"--seed needs to be in [0, 2**32); got {values['seed']}.")
    _check_kept(values["keep_every_steps"], values["save_every_steps"])
    channels = values["image_channels"]
    _require(channels in (1, 3), f"--image-channels needs to be 3 (RGB) or 1 (grey); got {channels}.")


def _check_kept(keep_every: int, save_every: int) -> None:
    _require(
        keep_every % save_every == 0,
        f"--keep-every-steps needs a multiple of --save-every-steps, {save_every}, since only saved steps can be kept; "
        f"got {keep_every}.",
    )


def check_hole_kind(kind: str) -> None:
    """Raises InvalidInputError unless `kind` is a kind of hole of `sagan_jax.data.masks`."""
    _check_choice("holes", kind, MASK_KINDS)


def check_free_space(workdir: Path, state: Any) -> None:
    """Raises StorageError if the disk has no room for a save.

    A save writes the new checkpoint before it removes an old one.
    """
    needed = int(2.5 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)))
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise StorageError(
            f"{str(workdir)!r} needs {needed / 1e6:,.0f} MB for checkpoints; {free / 1e6:,.0f} MB are free."
        )


def _check_range(name: str, value: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    if name in _FROM_ONE:
        _require(value >= 1, f"{flag} needs to be at least 1; got {value}.")
    elif name in _ABOVE_ZERO:
        _require(math.isfinite(value) and value > 0, f"{flag} needs to be a number above 0; got {value}.")
    elif name in _SHARES:
        _require(0 <= value < 1, f"{flag} needs to be in [0, 1); got {value}.")
    elif name in _FROM_ZERO:
        _require(math.isfinite(value) and value >= 0, f"{flag} needs to be at least 0; got {value}.")
    if name in _LARGEST:
        _require(value <= _LARGEST[name], f"{flag} needs to be at most {_LARGEST[name]:,}; got {value}.")


def _check_types(section: Any) -> None:
    """Refuses a value of the wrong type. No parser has checked a config that was made in Python."""
    for name, hint in get_type_hints(type(section)).items():
        value = getattr(section, name)
        if get_origin(hint) is tuple:
            _require(
                isinstance(value, (tuple, list)),
                f"--{name.replace('_', '-')} needs a list of values; got {_short(value)}.",
            )
        for entry in value if get_origin(hint) is tuple else (value,):
            entry_hint = get_args(hint)[0] if get_origin(hint) is tuple else hint
            if get_origin(entry_hint) is Literal:
                _check_choice(name, entry, get_args(entry_hint))
            elif get_origin(entry_hint) in (Union, UnionType):
                if entry != getattr(type(section), name):  # a default may be "", for the value of another field
                    _check_choice_or_object(name, entry, get_args(entry_hint))
            else:
                _check_plain(name, entry, entry_hint)


def _check_plain(name: str, value: Any, hint: Any) -> None:
    """Refuses a value that is not of the type `hint`, too large an integer, and text that no file name allows."""
    flag = f"--{name.replace('_', '-')}"
    wanted = (int, float) if hint is float else (hint,)
    fits = isinstance(value, wanted) and (hint is bool or not isinstance(value, bool))
    _require(fits, f"{flag} needs a value of type {hint.__name__}; got {_short(value)}.")
    if isinstance(value, int):
        _require(abs(value) <= _LARGEST_INT, f"{flag} needs to be at most {_LARGEST_INT:,}; got {_short(value)}.")
    elif isinstance(value, str):
        _require(_is_text(value), f"{flag} needs text that can be the name of a file; got {_short(value)}.")


def _is_text(value: str) -> bool:
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _check_choice_or_object(name: str, value: Any, hints: tuple[Any, ...]) -> None:
    """Refuses a value unless it is a choice, an import path, or, if two are allowed, a pair of import paths."""
    takes_two = any(get_origin(hint) is tuple for hint in hints)
    paths = value if takes_two and isinstance(value, tuple) and len(value) == 2 else (value,)
    if all(isinstance(path, str) and is_import_path(path) for path in paths):
        return
    choices = next(get_args(hint) for hint in hints if get_origin(hint) is Literal)
    _check_choice(name, value, choices, " or an object of yours as file.py:NAME")


def _check_choice(name: str, value: Any, choices: tuple[Any, ...], more: str = "") -> None:
    near = difflib.get_close_matches(_short(value).strip("'"), [str(choice) for choice in choices], 1)
    hint = f" Perhaps you meant {near[0]}." if near else ""
    _require(
        any(value == choice and type(value) is type(choice) for choice in choices),
        f"--{name.replace('_', '-')} needs to be one of {', '.join(map(str, choices))}{more}; "
        f"got {_short(value)}.{hint}",
    )


def _short(value: Any) -> str:
    """Returns the text of a value, shortened if it is long or nested, because a damaged file can hold anything."""
    return reprlib.repr(value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInputError(message)
