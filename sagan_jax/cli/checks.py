"""What a command refuses before it writes anything."""

import difflib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax

from sagan_jax.cli.families import check_family
from sagan_jax.config import Experiment, Networks, from_dict, to_dict
from sagan_jax.errors import InvalidInputError, StorageError

# What a run may change when it is taken up again: how long, how often and through which cache, not what.
_FREE = ("name", "recording", "evaluation", "data.held_out", "data.cache", "training.total_steps", "training.driver")

# What decides the shapes of the layers that two runs can share.
_SIZES = ("family", "resolution", "base_channels", "discriminator_base_channels", "image_channels", "latent_size")
_SIZES += ("shared_size", "hierarchical")


def check_config(experiment: Experiment) -> None:
    """Raises InvalidInputError for the first thing that cannot be."""
    networks, training, recording = experiment.networks, experiment.training, experiment.recording
    _require(
        re.fullmatch(r"\w[\w.-]*", str(experiment.name)) is not None,
        f"--name needs letters, digits, '_', '-' and '.', since it names a folder; got {experiment.name!r}.",
    )
    for part in (experiment.data, networks, training, recording, experiment.evaluation):
        _check_types(part)
    for flag, number in {
        "total-steps": training.total_steps,
        "batch-size": training.batch_size,
        "accumulation-steps": training.accumulation_steps,
        "discriminator-steps": training.discriminator_steps,
        "base-channels": networks.base_channels,
        "latent-size": networks.latent_size,
        "log-every-steps": recording.log_every_steps,
        "sample-every-steps": recording.sample_every_steps,
        "save-every-steps": recording.save_every_steps,
        "keep-checkpoints": recording.keep_checkpoints,
        "evaluate-every-steps": experiment.evaluation.evaluate_every_steps,
    }.items():
        _require(number >= 1, f"--{flag} needs to be at least 1; got {number}.")
    for flag, rate in {
        "generator-learning-rate": training.generator_learning_rate,
        "discriminator-learning-rate": training.discriminator_learning_rate,
    }.items():
        _require(math.isfinite(rate) and rate > 0, f"--{flag} needs to be a number above 0; got {rate}.")
    for flag, share in {
        "adam-beta1": training.adam_beta1,
        "adam-beta2": training.adam_beta2,
        "ema-decay": training.ema_decay,
        "norm-decay": networks.norm_decay,
        "final-norm-decay": networks.final_norm_decay,
    }.items():
        _require(0 <= share < 1, f"--{flag} needs to be in [0, 1); got {share}.")
    for flag, epsilon in {
        "orthogonal-strength": training.orthogonal_strength,
        "adam-epsilon": training.adam_epsilon,
        "norm-epsilon": networks.norm_epsilon,
        "spectral-epsilon": networks.spectral_epsilon,
    }.items():
        _require(math.isfinite(epsilon) and epsilon >= 0, f"--{flag} needs to be a number from 0 up; got {epsilon}.")
    _require(0 <= training.seed < 2**32, f"--seed needs to be in [0, 2**32); got {training.seed}.")
    _require(training.ema_start_step >= 0, f"--ema-start-step needs to be at least 0; got {training.ema_start_step}.")
    _require(
        experiment.data.skip_unreadable >= 0,
        f"--skip-unreadable needs to be at least 0; got {experiment.data.skip_unreadable}.",
    )
    width = networks.discriminator_base_channels
    _require(width >= 0, f"--discriminator-base-channels needs to be at least 0; got {width}.")
    _require(networks.shared_size >= 0, f"--shared-size needs to be at least 0; got {networks.shared_size}.")
    _require(networks.num_classes >= 0, f"--num-classes needs to be at least 0; got {networks.num_classes}.")
    _require(
        networks.image_channels in (1, 3),
        f"--image-channels needs to be 3 (RGB) or 1 (grey); got {networks.image_channels}.",
    )
    check_family(networks)
    devices = jax.device_count()
    _require(
        training.batch_size % devices == 0,
        f"--batch-size needs a multiple of the {devices} devices, so that each takes its part; "
        f"got {training.batch_size}.",
    )
    share = training.batch_size // devices
    _require(
        share % training.accumulation_steps == 0,
        f"--accumulation-steps needs to divide the {share} images of each device; got {training.accumulation_steps}.",
    )


def _check_types(part: Any) -> None:
    """Refuses what is no value of its field; a config written in Python has no parser in front of it."""
    for name, hint in get_type_hints(type(part)).items():
        value, choices = getattr(part, name), get_args(hint)
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


def saved_experiment(workdir: Path) -> Experiment | None:
    """Returns the config that a run in `workdir` was started with, or None."""
    path = workdir / "config.json"
    if not path.is_file():
        return None
    try:
        return from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{str(path)!r} is not the config of a run that this version can read: {error}"
        ) from error


def require_experiment(workdir: Path) -> Experiment:
    """Returns the config of the run in `workdir`; raises InvalidInputError where there is none."""
    experiment = saved_experiment(workdir)
    if experiment is None:
        raise InvalidInputError(f"There is no run in {str(workdir)!r}: it has no config.json. Is the path right?")
    return experiment


def check_same_run(workdir: Path, experiment: Experiment) -> None:
    """Raises InvalidInputError when a run in `workdir` was started with another config."""
    saved = saved_experiment(workdir)
    if saved is None:
        return
    changed = [line for line in differences(to_dict(saved), to_dict(experiment)) if not line.startswith(_FREE)]
    if changed:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was started with another config ({'; '.join(changed)}): "
            f"give the same, another --workdir, or --fresh to start over."
        )


def check_same_sizes(workdir: Path, networks: Networks) -> None:
    """Raises InvalidInputError unless the networks of the run in `workdir` have the family and widths of these."""
    theirs = require_experiment(workdir).networks
    for name in _SIZES:
        wanted, got = getattr(networks, name), getattr(theirs, name)
        if wanted != got:
            raise InvalidInputError(
                f"--init-from needs a run with the same --{name.replace('_', '-')}, which is {wanted} here; in "
                f"{str(workdir)!r} it is {got}. Without EXPERIMENT, its networks are taken as they are."
            )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns a line for each value that is not the same in two nested dictionaries: `name: old -> new`.

    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    ['a.c: 2 -> 3']
    """
    before, after = _flat(old), _flat(new)
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def check_same_data(workdir: Path, saved: str | None, found: str) -> None:
    """Raises InvalidInputError when a run was trained on other images: the order of the data would not go on."""
    if saved not in (None, found):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was trained on other images than --source holds now: bring those back, or "
            f"give another --workdir, or --fresh to start over."
        )


def check_room(workdir: Path, state: Any) -> None:
    """Raises StorageError when the disk cannot hold what a save needs: the new checkpoint beside the old ones."""
    needed = int(2.5 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise StorageError(
            f"{str(workdir)!r} needs {needed / 1e6:,.0f} MB for checkpoints; {free / 1e6:,.0f} MB are free."
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, names joined by dots."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
