"""One run a workdir: a lock that the kernel lets go of when its owner dies."""

import contextlib
import fcntl
import json
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from sagan_jax.errors import BusyError, StorageError


class WorkdirLock:
    """Holds a folder for one process, as a context manager; makes it, and removes it again if it stayed empty.

    The lock is `flock` on the file `.lock`, which says who holds it and is removed at the end. A file that a dead
    process left behind is not locked, and is taken over.

    Args:
        workdir: the folder.

    Raises:
        BusyError: on entering, when another process holds it.
        StorageError: on entering, when the folder cannot be made or written to.
    """

    def __init__(self, workdir: str | Path) -> None:
        self._workdir = Path(workdir)
        self._path = self._workdir / ".lock"

    def __enter__(self) -> Self:
        self._made: list[Path] = []
        try:
            self._make_folders()
            self._file = self._open_locked()
        except OSError as error:
            self._remove_empty()
            if isinstance(error, BusyError):
                raise
            raise StorageError(
                f"--workdir needs a folder that can be written to; {str(self._workdir)!r}: {error.strerror or error}."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the disk may be gone; closing the file is what gives the lock back
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._remove_empty()

    def require_held(self) -> None:
        """Raises StorageError when the folder was removed or replaced meanwhile: what is written there is lost."""
        if not self._is_ours(self._file):
            raise StorageError(f"{str(self._workdir)!r} was removed or replaced while the run was in it.")

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
            self._made.insert(0, folder)

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):  # what is not empty stays
            for folder in self._made:
                folder.rmdir()

    def _open_locked(self) -> int:
        """Returns the file, locked, and still the one of that name: its last owner may have removed it meanwhile."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = _owner(file)
                os.close(file)
                raise BusyError(
                    f"{str(self._workdir)!r} is in use by {owner}: wait for that run, stop it, or give another "
                    f"--workdir."
                ) from error
            if self._is_ours(file):
                break
            os.close(file)
        if os.fstat(file).st_size:
            print(f"taking over {self._workdir} from {_owner(file)}, which is gone", file=sys.stderr, flush=True)
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        return file


def _owner(file: int) -> str:
    """Returns who wrote the lock file, for a person."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
