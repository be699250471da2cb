"""Atomic file writes."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from sagan_jax.errors import StorageError
from sagan_jax.runtime.leftovers import removed_at_a_signal

_TEMPORARY = re.compile(r"\..+\.(\d{1,9})\.tmp", re.DOTALL)  # see `write_files_atomically`
_WRITING_SECONDS = 60.0  # a temporary file exists for as long as its content takes to write


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError in the block into a StorageError that names the path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file atomically, through a temporary file beside it. Creates missing folders.

    Args:
        path: the file. An existing file is replaced, and stays unchanged after an error.
        content: the whole content.

    Raises:
        StorageError: when the file could not be written.
    """
    write_files_atomically(Path(path).parent, {Path(path).name: content})


def write_files_atomically(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Writes files that belong together. All are written under temporary names before the first one is renamed.

    Args:
        folder: the folder; created if needed.
        contents: names to whole contents. Existing files are replaced, and stay unchanged after an error.

    Raises:
        StorageError: when a file could not be written.
    """
    folder = Path(folder)
    temporaries = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    with disk_errors(folder / ", ".join(contents)), removed_at_a_signal(temporaries.values()):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for temporary, content in zip(temporaries.values(), contents.values(), strict=True):
                temporary.write_bytes(content)
            for path, temporary in temporaries.items():
                temporary.replace(path)
        finally:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)


def sweep_temporaries(folder: str | Path) -> None:
    """Removes the temporary files that killed processes left in a folder.

    A file of the last minute stays if its process still runs on this machine: that process may be writing it.

    Args:
        folder: it need not exist; folders in it are not searched.

    Raises:
        StorageError: when the folder cannot be listed, or a file cannot be removed.
    """
    folder = Path(folder)
    with disk_errors(folder):
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            named = _TEMPORARY.fullmatch(path.name)
            if named and not path.is_dir() and not _is_being_written(path, int(named[1])):
                path.unlink(missing_ok=True)


def _is_being_written(path: Path, process: int) -> bool:
    if process == os.getpid():  # in a container each start may get the same number
        return False
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime < _WRITING_SECONDS and _is_running(process)
    return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
