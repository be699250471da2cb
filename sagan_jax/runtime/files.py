"""Writes files atomically, and reads only regular files that are not too large."""

import contextlib
import errno
import io
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.leftovers import removed_at_a_signal

MAX_DOCUMENT_BYTES = 10_000_000
"""Largest size of a JSON document such as `config.json`."""

MAX_WEIGHTS_BYTES = 2**33
"""Largest size of a file of weights, which is read as a whole."""

_TEMPORARY = re.compile(r"\..+\.(\d{1,9})\.tmp", re.DOTALL)  # see `write_files_atomically`
_READ_BYTES = 2**20
_WRITING_SECONDS = 60.0  # a temporary file that is older is not being written any more


def open_regular(path: str | Path) -> io.BufferedReader:
    """Opens a regular file for reading. Never waits for a pipe, and never reads a device, which may have no end.

    Args:
        path: the file, or a link to it.

    Raises:
        InvalidInputError: when it is a folder, a pipe, a socket or a device.
        OSError: when it is absent or cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidInputError(f"{str(path)!r} needs to be a regular file; it is a folder, a pipe or a device.")
    return os.fdopen(file, "rb")


def read_regular(path: str | Path, max_bytes: int) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: the file, or a link to it.
        max_bytes: the largest size that is read.

    Raises:
        InvalidInputError: when it is not a regular file, or larger than `max_bytes`.
        OSError: when it is absent or cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= max_bytes:
            content = file.read(size)
            # The file may grow, and kernel files report a size of 0. Small reads, because each allocates its full size.
            while len(content) <= max_bytes and (more := file.read(_READ_BYTES)):
                content += more
            if len(content) <= max_bytes:
                return content
    raise InvalidInputError(f"{str(path)!r} needs to have at most {max_bytes:,} bytes; it is larger. Is it damaged?")


def read_json(path: str | Path, max_bytes: int = MAX_DOCUMENT_BYTES) -> Any:
    """Returns the JSON value in a regular file.

    Args:
        path: the file, or a link to it.
        max_bytes: the largest size that is read.

    Raises:
        InvalidInputError: when it is not a regular file, too large, or not JSON.
        OSError: when it is absent or cannot be read.
    """
    content = read_regular(path, max_bytes)
    try:
        return json.loads(content)
    except RecursionError:
        raise InvalidInputError(f"{str(path)!r} cannot be read as JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be read as JSON: {error}.") from error


# Errors that the user's path or disk causes. Others, such as ENOENT, may be bugs of the program.
_OF_A_PATH = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EROFS}
_OF_A_PATH |= {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EFBIG}


def system_error(error: BaseException) -> StorageError | None:
    """Returns a one-line error for a path that the system refused, such as one without read permission, else None."""
    if not isinstance(error, OSError) or error.errno not in _OF_A_PATH or error.filename is None:
        return None
    return StorageError(f"{os.fsdecode(error.filename)!r} could not be used: {error.strerror}.")


@contextlib.contextmanager
def disk_errors(path: Path, action: str = "written") -> Iterator[None]:
    """Turns an OSError in the block into a StorageError that names the path, and the action that failed."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be {action}: {error.strerror or error}") from error


def check_can_write(path: str | Path) -> None:
    """Refuses a path that cannot be written to, before work is done that would be lost. Nothing is written.

    Args:
        path: the path of a file. The folders above it need not exist yet.

    Raises:
        InvalidInputError: it is a folder, or a file is where one of its folders would be.
        StorageError: there is no write permission for its folder, or for the lowest existing folder above it.
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidInputError(f"{str(path)!r} cannot be written as a file: it is a folder.")
    lowest = next(folder for folder in path.absolute().parents if folder.exists())
    if not lowest.is_dir():
        raise InvalidInputError(f"{str(path)!r} cannot be written: {str(lowest)!r} is a file, not a folder.")
    if not os.access(lowest, os.W_OK):
        raise StorageError(f"{str(path)!r} cannot be written: there is no write permission for {str(lowest)!r}.")


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

    A file that is less than a minute old stays if its process still runs on this machine. The process may still be
    writing it. A file with this process's own id is a leftover, and is removed at any age.

    Args:
        folder: the folder, which need not exist. Folders inside it are not searched.

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
    if process == os.getpid():  # a leftover: in containers, each start may get the same process id
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
