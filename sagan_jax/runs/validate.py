"""Checks of a config: whether each value is possible, before anything is written."""

import dataclasses
import difflib
import math
import re
import shutil
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax

from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.data.masks import MASK_KINDS
from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runs.families import check_family

# The fields of all configs by the values that they allow; no config has all of these fields.
_FROM_ONE = {"total_steps", "batch_size", "accumulation_steps", "discriminator_steps", "kl_warmup_steps"}
_FROM_ONE |= {"base_channels", "latent_size", "blocks", "keep_checkpoints"}
_FROM_ONE |= {"log_every_steps", "sample_every_steps", "save_every_steps", "evaluate_every_steps"}
_ABOVE_ZERO = {"generator_learning_rate", "discriminator_learning_rate", "learning_rate"}
_SHARES = {"adam_beta1", "adam_beta2", "ema_decay", "norm_decay", "final_norm_decay"}
_FROM_ZERO = {"adam_epsilon", "norm_epsilon", "spectral_epsilon", "orthogonal_strength", "ema_start_step"}
_FROM_ZERO |= {"visible_weight", "kl_weight", "free_bits", "adversarial_weight", "warmup_steps"}
_FROM_ZERO |= {"keep_every_steps", "skip_unreadable", "num_classes", "shared_size", "discriminator_base_channels"}


def check_config(experiment: Experiment) -> None:
    """Raises InvalidInputError for the first value of a generation experiment that is not possible."""
    check_fields(experiment)
    check_family(experiment.networks)
    training = experiment.training
    share = training.batch_size // jax.device_count()
    _require(
        share % training.accumulation_steps == 0,
        f"--accumulation-steps needs to divide the {share} images of each device; got {training.accumulation_steps}.",
    )


def check_fields(experiment: AnyExperiment) -> None:
    """Raises InvalidInputError for the first value that its field does not allow, whatever the task."""
    _require(
        re.fullmatch(r"\w[\w.-]*", str(experiment.name)) is not None,
        f"--name needs letters, digits, '_', '-' and '.', since it names a folder; got {experiment.name!r}.",
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
    channels, batch_size, devices = values["image_channels"], values["batch_size"], jax.device_count()
    _require(channels in (1, 3), f"--image-channels needs to be 3 (RGB) or 1 (grey); got {channels}.")
    _require(
        batch_size % devices == 0,
        f"--batch-size needs a multiple of the {devices} devices, so that each gets an equal part; got {batch_size}.",
    )


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
    """Raises StorageError when the disk has no room for a save: the new checkpoint is written beside the old ones."""
    needed = int(2.5 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
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


def _check_types(section: Any) -> None:
    """Refuses a value of the wrong type: a config written in Python has no parser in front of it."""
    for name, hint in get_type_hints(type(section)).items():
        value, choices = getattr(section, name), get_args(hint)
        if hint in (int, float, bool, str):
            wanted = (int, float) if hint is float else (hint,)
            fits = isinstance(value, wanted) and (hint is bool or not isinstance(value, bool))
            _require(fits, f"--{name.replace('_', '-')} needs a value of type {hint.__name__}; got {value!r}.")
        elif get_origin(hint) is Literal:
            _check_choice(name, value, choices)
        elif get_origin(hint) is tuple and get_origin(choices[0]) is Literal:
            for entry in value:
                _check_choice(name, entry, get_args(choices[0]))


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], 1)
    hint = f" Perhaps you meant {near[0]}." if near else ""
    _require(
        value in choices,
        f"--{name.replace('_', '-')} needs to be one of {', '.join(map(str, choices))}; got {value!r}.{hint}",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInputError(message)
