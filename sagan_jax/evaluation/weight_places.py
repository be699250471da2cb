"""Where the weights of the networks of scores are, and reading a file of them again only if it has changed."""

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from sagan_jax.errors import InvalidInputError

Weights = TypeVar("Weights")


def find_file(path: str | Path | None, default: Path | None, *, network: str, hint: str) -> Path | None:
    """Returns the file of a network's weights: `path` if it is given, else the default file, or None if that is absent.

    Args:
        path: what the user named, if anything.
        default: where the weights usually are; None without a home folder.
        network: its name, for the message.
        hint: how the weights are had, for the message.

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
    """Returns a function that reads a file as `read` does, and the last file again only if it has changed."""

    @lru_cache(maxsize=1)
    def read_version(path: Path, _modified: int, _size: int) -> Weights:
        return read(path)

    @wraps(read)
    def read_if_changed(path: str | Path) -> Weights:
        path = Path(path)
        try:
            state = path.stat()
        except OSError:  # reading it gives a better message
            return read_version(path, 0, 0)
        return read_version(path.resolve(), state.st_mtime_ns, state.st_size)

    return read_if_changed
