"""Detects files that somebody removes from a folder while a program writes there."""

from collections.abc import Sequence
from pathlib import Path


class RemovalWatch:
    """Finds files and folders that were removed since the previous call, or since construction.

    Args:
        folder: the folder that contains them.
        names: names of files and folders; missing ones are watched as soon as they exist.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self._there = self._existing()

    def removed(self) -> list[str]:
        """Returns the names that existed at the previous call and no longer exist, in the given order."""
        before, self._there = self._there, self._existing()
        return [name for name in self._names if name in before - self._there]

    def _existing(self) -> set[str]:
        return {name for name in self._names if (self._folder / name).exists()}
