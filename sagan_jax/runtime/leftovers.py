"""Removes files that would stay half-written if a signal ends the process. Needs only the standard library."""

import contextlib
import os
from collections.abc import Iterable, Iterator

_unfinished: dict[str, None] = {}


@contextlib.contextmanager
def removed_at_a_signal(paths: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """Registers files and empty folders for removal if a signal ends the process in the block.

    Args:
        paths: paths that no other process uses; they are removed in reverse order.
    """
    names = [os.fspath(path) for path in paths]
    _unfinished.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            _unfinished.pop(name, None)


def remove_leftovers() -> None:
    """Removes the paths that open blocks of `removed_at_a_signal` have registered."""
    for name in reversed(list(_unfinished)):
        with contextlib.suppress(OSError):  # not created yet, already renamed, or not empty
            # pathlib takes long to import.
            os.rmdir(name) if os.path.isdir(name) else os.unlink(name)  # noqa: PTH112, PTH106, PTH108
