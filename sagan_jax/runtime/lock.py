"""A lock that allows one run in a workdir. The kernel releases it when the owner ends."""

import contextlib
import errno
import fcntl
import json
import os
import reprlib
import socket
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from sagan_jax.errors import BusyError, StorageError
from sagan_jax.runtime.leftovers import removed_at_a_signal


class WorkdirLock:
    """Locks a folder for one process, as a context manager. Creates the folder, and removes it if it stays empty.

    The lock is `flock` on the file `.lock`. The file holds the owner, and is removed at the end. A leftover file of a
    killed process is not locked, and the next run takes it over.

    Args:
        workdir: the folder.

    Raises:
        BusyError: on entering, when another process holds the lock.
        StorageError: on entering, when the folder cannot be created or written to.
    """

    def __init__(self, workdir: str | Path) -> None:
        self._workdir = Path(workdir)
        self._path = self._workdir / ".lock"

    def __enter__(self) -> Self:
        self._created: list[Path] = []
        try:
            self._make_folders()
            self._removed = removed_at_a_signal([*reversed(self._created), self._path])
            self._file = self._open_locked()
            self._removed.__enter__()
        except OSError as error:
            self._remove_empty()
            if isinstance(error, BusyError):
                raise
            raise StorageError(
                f"--workdir needs a writable folder; got {str(self._workdir)!r}: {error.strerror or error}."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the disk may be gone; closing the file releases the lock
            if self._is_ours(self._file):  # else it belongs to a run that started after the folder was replaced
                self._path.unlink()
        os.close(self._file)
        self._removed.__exit__(None, None, None)
        self._remove_empty()

    def require_held(self) -> None:
        """Raises StorageError when the folder was removed or replaced, because files written there would be lost."""
        if not self._is_ours(self._file):
            raise StorageError(f"{str(self._workdir)!r} was removed or replaced while the run used it.")

    def _is_ours(self, file: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.fstat(file).st_ino == self._path.stat().st_ino
        return False

    def _make_folders(self) -> None:
        missing = []
        folder = self._workdir
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._created.insert(0, folder)

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):  # a folder with files stays
            for folder in self._created:
                folder.rmdir()

    def _open_locked(self) -> int:
        """Returns the locked file. Tries again if the last owner removed the file before it was locked."""
        while True:
            file = self._open_regular()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = _owner(file)
                os.close(file)
                raise BusyError(
                    f"{str(self._workdir)!r} is in use by {owner}. Wait for that run, stop it, or give another "
                    f"--workdir."
                ) from error
            if self._is_ours(file):
                break
            os.close(file)
        if os.fstat(file).st_size:
            print(f"taking over {self._workdir} from {_owner(file)}, which has ended", file=sys.stderr, flush=True)
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        return file

    def _open_regular(self) -> int:
        """Returns the opened lock file. Links are not followed, because their target would be emptied."""
        # Without O_NONBLOCK, opening a pipe may wait.
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "its .lock is a pipe or a device")
        return file


def _owner(file: int) -> str:
    """Returns the process that wrote the lock file, as words for a message."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        pid, host = owner["pid"], owner["host"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    if type(pid) is not int or not isinstance(host, str):
        return "another process"
    return f"process {reprlib.repr(pid)} on {reprlib.repr(host)[1:-1]}"  # printable, and not too long
