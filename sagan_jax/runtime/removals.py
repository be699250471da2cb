"""Notices what somebody removes from a folder while a program writes there."""

from collections.abc import Sequence
from pathlib import Path


class RemovalWatch:
    """Tells which of some files and folders were removed since it last looked. It first looks when it is made.

    Args:
        folder: where they lie.
        names: of the files and folders; what does not exist yet is watched once it does.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self._there = self._existing()

    def removed(self) -> list[str]:
        """Returns the names of what was there at the last look and is no longer, in the order that was given."""
        before, self._there = self._there, self._existing()
        return [name for name in self._names if name in before - self._there]

    def _existing(self) -> set[str]:
        return {name for name in self._names if (self._folder / name).exists()}
