"""Detection of folders that this package writes, which are not class folders when they lie among images."""

import os
from pathlib import Path

from sagan_jax.data.layouts import is_hidden, is_image

RUN_FOLDERS = {"attention", "best", "checkpoints", "samples", "scores", "tensorboard", "wandb"}
"""The folders that a run creates in its workdir."""

_DEFAULT_PARENT = "runs"
_MAX_DEPTH = 2  # levels below the given folder in which to look for workdirs


def is_workdir(path: Path) -> bool:
    """Returns whether a folder is the workdir of a run, even of a run that has just started."""
    return _is_workdir({entry.name for entry in path.iterdir()})


def is_own_folder(path: Path) -> bool:
    """Returns whether a folder is a workdir, the cache of decoded images, or a folder of workdirs.

    A folder of workdirs contains no images outside of them, or is named `runs`, the default parent folder of workdirs.

    Args:
        path: the folder.

    Raises:
        OSError: when a folder cannot be listed.
    """
    runs, images = _look(path, _MAX_DEPTH)
    return runs and (not images or path.name == _DEFAULT_PARENT)


def _is_workdir(names: set[str]) -> bool:
    return ".lock" in names or ("config.json" in names and not names.isdisjoint({"checkpoints", "environment.json"}))


def _look(path: Path, depth: int) -> tuple[bool, bool]:
    """Returns whether a folder is or contains a folder of this package, and whether it has images outside of those."""
    with os.scandir(path) as scanned:
        entries = [entry for entry in scanned if entry.name == ".lock" or not is_hidden(entry.name)]
    names = {entry.name for entry in entries}
    if _is_workdir(names) or any(name.endswith(".ledger.npz") for name in names):
        return True, False
    images = any(map(is_image, names))
    if not depth or (images and path.name != _DEFAULT_PARENT):
        return False, images
    below = [_look(Path(entry.path), depth - 1) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return any(runs for runs, _ in below), images or any(others for _, others in below)
