"""Locations of the weight files of scoring networks, and reading such a file again only if it has changed."""

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from sagan_jax.errors import InvalidInputError

Weights = TypeVar("Weights")


def find_file(path: str | Path | None, default: Path | None, *, network: str, hint: str) -> Path | None:
    """Returns the file of a network's weights: `path` if given, else the default file, or None if that does not exist.

    Args:
        path: the path that the user gave, or None.
        default: the default location; None without a home folder.
        network: the name of the network, for the message.
        hint: how to get the weights, for the message.

    Raises:
        InvalidInputError: `path` is given and is not a file.
    """
    found = default if path is None else Path(path)
    if found and found.is_file():
        return found
    if path is None:
        return None
    raise InvalidInputError(
        f"The weights of {network} need to be a file; got {str(path)!r}, which is not a file. Run {hint}."
    )


def read_once(read: Callable[[Path], Weights]) -> Callable[[str | Path], Weights]:
    """Caches the last result of a function that reads a file. The file is read again only if it has changed."""

    @lru_cache(maxsize=1)
    def read_version(path: Path, _modified: int, _size: int) -> Weights:
        return read(path)

    @wraps(read)
    def read_if_changed(path: str | Path) -> Weights:
        path = Path(path)
        try:
            state = path.stat()
        except OSError:  # reading it raises a better message
            return read_version(path, 0, 0)
        return read_version(path.resolve(), state.st_mtime_ns, state.st_size)

    return read_if_changed
