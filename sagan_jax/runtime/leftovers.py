"""Files that would stay half-written if the process were ended at once. Needs the standard library alone."""

import contextlib
import os
from collections.abc import Iterable, Iterator

_unfinished: dict[str, None] = {}


@contextlib.contextmanager
def removed_at_a_signal(paths: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """Has files, and folders that are empty, removed if a signal ends the process in the block.

    Args:
        paths: of this process alone; removed in reverse order.
    """
    names = [os.fspath(path) for path in paths]
    _unfinished.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            _unfinished.pop(name, None)


def remove_leftovers() -> None:
    """Removes what the blocks that are open have named."""
    for name in reversed(list(_unfinished)):
        with contextlib.suppress(OSError):  # not there yet, renamed already, or not empty
            # Not pathlib, which takes long to import.
            os.rmdir(name) if os.path.isdir(name) else os.unlink(name)  # noqa: PTH112, PTH106, PTH108
