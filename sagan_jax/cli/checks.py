"""What a command refuses before it writes anything."""

import dataclasses
import difflib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax

from sagan_jax.cli.families import check_family
from sagan_jax.config import AnyExperiment, CompletionExperiment, Experiment, Networks, from_dict, to_dict
from sagan_jax.data.masks import MASK_KINDS
from sagan_jax.errors import InvalidInputError, StorageError

# What a run may change when it is taken up again: how long, how often and through which cache, not what.
_FREE = ("name", "recording", "evaluation", "data.held_out", "data.cache", "training.total_steps", "training.driver")

# What decides the shapes of the layers that two runs can share.
_SIZES = ("family", "resolution", "base_channels", "discriminator_base_channels", "image_channels", "latent_size")
_SIZES += ("shared_size", "hierarchical")


# The fields of every kind of run by what they may be; no config has all of them.
_FROM_ONE = {"total_steps", "batch_size", "accumulation_steps", "discriminator_steps", "kl_warmup_steps"}
_FROM_ONE |= {"base_channels", "latent_size", "blocks", "keep_checkpoints"}
_FROM_ONE |= {"log_every_steps", "sample_every_steps", "save_every_steps", "evaluate_every_steps"}
_ABOVE_ZERO = {"generator_learning_rate", "discriminator_learning_rate", "learning_rate"}
_SHARES = {"adam_beta1", "adam_beta2", "ema_decay", "norm_decay", "final_norm_decay"}
_FROM_ZERO = {"adam_epsilon", "norm_epsilon", "spectral_epsilon", "orthogonal_strength", "ema_start_step"}
_FROM_ZERO |= {"visible_weight", "kl_weight", "free_bits", "adversarial_weight", "warmup_steps"}
_FROM_ZERO |= {"skip_unreadable", "num_classes", "shared_size", "discriminator_base_channels"}


def check_config(experiment: Experiment) -> None:
    """Raises InvalidInputError for the first thing that cannot be."""
    check_fields(experiment)
    check_family(experiment.networks)
    training = experiment.training
    share = training.batch_size // jax.device_count()
    _require(
        share % training.accumulation_steps == 0,
        f"--accumulation-steps needs to divide the {share} images of each device; got {training.accumulation_steps}.",
    )


def check_fields(experiment: AnyExperiment) -> None:
    """Raises InvalidInputError for the first value that its field cannot have, whatever the task."""
    _require(
        re.fullmatch(r"\w[\w.-]*", str(experiment.name)) is not None,
        f"--name needs letters, digits, '_', '-' and '.', since it names a folder; got {experiment.name!r}.",
    )
    parts = [
        part
        for field in dataclasses.fields(experiment)
        if dataclasses.is_dataclass(part := getattr(experiment, field.name))
    ]
    for part in parts:
        _check_types(part)
    values = {name: value for part in parts for name, value in vars(part).items()}
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if name in _FROM_ONE:
            _require(value >= 1, f"{flag} needs to be at least 1; got {value}.")
        elif name in _ABOVE_ZERO:
            _require(math.isfinite(value) and value > 0, f"{flag} needs to be a number above 0; got {value}.")
        elif name in _SHARES:
            _require(0 <= value < 1, f"{flag} needs to be in [0, 1); got {value}.")
        elif name in _FROM_ZERO:
            _require(math.isfinite(value) and value >= 0, f"{flag} needs to be at least 0; got {value}.")
    _require(0 <= values["seed"] < 2**32, f"--seed needs to be in [0, 2**32); got {values['seed']}.")
    channels, batch_size, devices = values["image_channels"], values["batch_size"], jax.device_count()
    _require(channels in (1, 3), f"--image-channels needs to be 3 (RGB) or 1 (grey); got {channels}.")
    _require(
        batch_size % devices == 0,
        f"--batch-size needs a multiple of the {devices} devices, so that each takes its part; got {batch_size}.",
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


def saved_experiment(workdir: Path) -> AnyExperiment | None:
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
    """Returns the config of the run in `workdir`; raises InvalidInputError where there is none that generates."""
    experiment = _require_saved(workdir)
    if not isinstance(experiment, Experiment):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} completes images (sagan-jax complete); this needs one that generates them."
        )
    return experiment


def require_completion(workdir: Path) -> CompletionExperiment:
    """Returns the config of the run in `workdir`; raises InvalidInputError where there is none that completes."""
    experiment = _require_saved(workdir)
    if not isinstance(experiment, CompletionExperiment):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} generates images (sagan-jax sample); this needs one that completes them, "
            f"as sagan-jax train faces_completion_64 makes."
        )
    return experiment


def _require_saved(workdir: Path) -> AnyExperiment:
    experiment = saved_experiment(workdir)
    if experiment is None:
        raise InvalidInputError(f"There is no run in {str(workdir)!r}: it has no config.json. Is the path right?")
    return experiment


def check_hole_kind(kind: str) -> None:
    """Raises InvalidInputError unless there are such holes."""
    _check_choice("holes", kind, MASK_KINDS)


def check_same_run(workdir: Path, experiment: AnyExperiment) -> None:
    """Raises InvalidInputError when a run in `workdir` was started with another config."""
    saved = saved_experiment(workdir)
    if saved is None:
        return
    # The rate of a completion falls to the end of the run: another length is another run.
    free = tuple(name for name in _FREE if isinstance(experiment, Experiment) or name != "training.total_steps")
    changed = [line for line in differences(to_dict(saved), to_dict(experiment)) if not line.startswith(free)]
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
