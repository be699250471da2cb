"""Runs of an experiment file of a user's own."""

import shutil
from pathlib import Path

from support.commands import command


def trained(file: Path) -> Path:
    """Trains what an experiment file says, and returns the workdir, which lies beside it."""
    workdir = file.parent / "run"
    assert command("train", file, "--workdir", workdir) == 0
    return workdir


def moved_copy(workdir: Path, file: Path, folder: Path) -> tuple[Path, Path]:
    """Copies a run and its file, so that a test may change them. The copy of the file is in another folder."""
    copied, moved = folder / "run", folder / file.name
    shutil.copytree(workdir, copied)
    shutil.copy(file, moved)
    return copied, moved
