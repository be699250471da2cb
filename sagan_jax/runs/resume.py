"""Checks whether a run may be resumed, with the same config and images. Removes a run that starts over."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagan_jax.config import AnyExperiment, Experiment, Networks, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.best_checkpoint import SET_ASIDE
from sagan_jax.runs.load import require_experiment
from sagan_jax.runs.own_objects import with_current_paths
from sagan_jax.runs.saved_config import MAY_CHANGE, differences, read_experiment
from sagan_jax.runtime.files import disk_errors, sweep_temporaries

# The fields that determine the shapes of layers, which must agree for --init-from.
_SIZES = ("family", "resolution", "base_channels", "discriminator_base_channels", "image_channels", "latent_size")
_SIZES += ("shared_size", "hierarchical")

_FOLDERS = ("checkpoints", "best", "samples", "attention", "scores", "tensorboard", "profile")
_PLAIN_FOLDERS = ("samples", "attention", "scores")  # the others are written by libraries
_FILES = ("metrics.jsonl", "config.json", "environment.json", "report.html")
_WANDB_RUN = Path("wandb", "sagan_jax.json")  # the rest of its folder may hold data that was not uploaded yet


def check_same_run(workdir: Path, experiment: AnyExperiment, *, trust_checkpoint: bool = False) -> None:
    """Raises InvalidInputError when the run in `workdir` was started with another config.

    Args:
        workdir: the folder of the run; it need not exist.
        experiment: the config to resume with.
        trust_checkpoint: compare with the config of the checkpoint, not with `config.json`.
    """
    saved = read_experiment(workdir, trust_checkpoint=trust_checkpoint)
    if saved is None:
        return
    may_change = MAY_CHANGE
    falls = not isinstance(experiment, Experiment) or experiment.training.schedule == "linear"
    if falls and experiment.training.total_steps < saved.training.total_steps:
        # The learning rate decays until the last step, so the number of steps may grow but not shrink.
        may_change = tuple(name for name in MAY_CHANGE if name != "training.total_steps")
    changed = [line for line in differences(to_dict(saved), to_dict(experiment)) if not line.startswith(may_change)]
    if changed:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was started with another config ({'; '.join(changed)}): "
            f"give the same, another --workdir, or --fresh to start over."
        )


def resumed_experiment(
    workdir: Path, named: AnyExperiment | None, name: str = "", *, trust_checkpoint: bool = False
) -> tuple[AnyExperiment, list[str]]:
    """Returns the config with which to resume the run in `workdir`, and a line if the named experiment differs from it.

    Args:
        workdir: the folder of a run.
        named: the experiment that the command names, or None.
        name: the --name in the command, or "".
        trust_checkpoint: use the config in the checkpoint, not `config.json`.

    Raises:
        InvalidInputError: the run is of another experiment, or its config cannot be read.
    """
    saved = read_experiment(workdir, trust_checkpoint=trust_checkpoint)
    if saved is None:
        raise InvalidInputError(f"There is no run in {str(workdir)!r}: its config.json was removed just now.")
    if named is None:
        return saved, []
    if saved.name not in (named.name, name) or type(saved) is not type(named):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} is of the experiment {saved.name!r}; got {named.name!r}: leave EXPERIMENT "
            f"out to resume it, or give another --workdir, or --fresh to start over with {named.name!r}."
        )
    saved = with_current_paths(saved, named)
    changed = [line for line in differences(to_dict(named), to_dict(saved)) if not line.startswith("name:")]
    kept = f"the run's own config is kept, which differs from {named.name}: {'; '.join(changed)}"
    return saved, [kept] if changed else []


def check_same_data(workdir: Path, saved: str | None, found: str) -> None:
    """Raises InvalidInputError when the fingerprint of the images differs from that of the saved run.

    A run cannot continue its order of images with other images.
    """
    if saved not in (None, found):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was trained on other images than --source holds now: restore those images, "
            f"or give another --workdir, or --fresh to start over."
        )


def images_read(step: int, meta: Mapping[str, Any], images_per_step: int) -> int:
    """Returns how many images a run had read at a checkpoint. Training resumes at that position of the image order.

    Args:
        step: the step of the checkpoint.
        meta: the metadata of the checkpoint.
        images_per_step: real images that a step of the current run reads. It is used only for old checkpoints, which
            store neither the number of images nor a batch size.

    Examples:
        >>> images_read(3, {"images_read": 70}, 8), images_read(3, {}, 8)
        (70, 24)
    """
    if "images_read" in meta:
        return int(meta["images_read"])
    training = meta.get("experiment", {}).get("training", {})
    if "batch_size" in training:  # such old runs could not change their batch size
        images_per_step = training["batch_size"] * training.get("discriminator_steps", 1)
    return step * images_per_step


def check_same_sizes(workdir: Path, networks: Networks) -> None:
    """Raises InvalidInputError unless the run in `workdir` has networks of the same family and sizes."""
    theirs = require_experiment(workdir).networks
    for name in _SIZES:
        wanted, got = getattr(networks, name), getattr(theirs, name)
        if wanted != got:
            raise InvalidInputError(
                f"--init-from needs a run with the same --{name.replace('_', '-')}, which is {wanted} here; in "
                f"{str(workdir)!r} it is {got}. Without EXPERIMENT, its networks are taken as they are."
            )


def forget_after(step: int, workdir: Path) -> None:
    """Removes the pictures of steps after `step`, which will be drawn again, and leftovers of killed processes.

    Raises:
        StorageError: when something cannot be removed.
    """
    for folder in (workdir, *(workdir / name for name in _PLAIN_FOLDERS)):
        sweep_temporaries(folder)
    for path in (workdir / "samples").glob("samples-*.png"):
        drawn = path.stem.rpartition("-")[2]
        if drawn.isdecimal() and int(drawn) > step:
            with disk_errors(path, "removed"):
                path.unlink(missing_ok=True)


def check_removable(workdir: Path, experiment: AnyExperiment) -> None:
    """Refuses to start over if `remove_run` would remove files that no run wrote, or that the new run needs.

    Args:
        workdir: as for `remove_run`; it need not exist.
        experiment: the config of the new run.

    Raises:
        InvalidInputError: the folder holds no run; it is the run to start from; or images, labels or that run are
            inside a folder of its results.
    """
    folders = [workdir / name for name in _FOLDERS if (workdir / name).exists()]
    if folders and not any((workdir / name).exists() for name in _FILES):
        raise InvalidInputError(
            f"--fresh removes what a run left; {str(workdir)!r} holds {', '.join(path.name for path in folders)}, but "
            f"no {' or '.join(_FILES[:2])} of a run. Give another --workdir, or remove them yourself."
        )
    init_from = getattr(experiment.training, "init_from", "")
    if init_from and Path(init_from).resolve() == workdir.resolve():
        raise InvalidInputError(
            f"--fresh would remove the run in {str(workdir)!r}, which --init-from starts from. Give another --workdir."
        )
    needed = {name: getattr(experiment.data, name) for name in ("source", "held_out", "labels", "held_out_labels")}
    needed["init_from"] = init_from
    for folder in folders:
        for name, path in needed.items():
            if path and Path(path).resolve().is_relative_to(folder.resolve()):
                raise InvalidInputError(
                    f"--fresh would remove {str(folder)!r}, where the files of --{name.replace('_', '-')} lie; got "
                    f"{path!r}. Give another --workdir."
                )


def remove_run(workdir: Path) -> None:
    """Removes the files that a run writes, and nothing else. A link to a folder is emptied, and stays.

    Raises:
        StorageError: something cannot be removed.
    """
    set_aside = [path for why in SET_ASIDE for path in workdir.glob(f"best.{why}*")]
    for path in [*(workdir / name for name in _FOLDERS), *set_aside]:
        if path.is_dir():
            with disk_errors(path, "removed"):
                for entry in path.iterdir() if path.is_symlink() else [path]:
                    _remove(entry)
    for path in [workdir / name for name in (*_FILES, _WANDB_RUN)]:
        with disk_errors(path, "removed"):
            path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
