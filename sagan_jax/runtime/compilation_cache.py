"""Keeps compiled programs on disk, so that a second start does not compile them again.

jax has such a cache, which is off by default. This module enables it in a folder that only the user can write, because
jax runs the programs in it. The folder can be deleted at any time.
"""

import contextlib
import hashlib
import math
import os
import platform
import re
import stat
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.cache_folders import cache_folder

Notify = Callable[[str], None]

MAX_BYTES = 2**30
"""Largest size of all compiled programs. At each start, the least recently used ones beyond it are removed."""

_BEING_WRITTEN_SECONDS = 60.0  # a newer entry may still be written by another process
_TROUBLE = re.compile(
    r"Error (?P<doing>reading|writing) persistent compilation cache entry for '(?P<program>.*?)': (?P<reason>.*)", re.S
)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def enable_compilation_cache(notify: Notify = _print) -> Path | None:
    """Enables jax's persistent compilation cache in the user's cache folder.

    Every command that compiles calls this. A program that uses the package has the cache only if it calls this
    function. Call it before anything is compiled. jax's own settings have precedence: if its environment variables or
    `jax.config` name a folder or turn the cache off, nothing changes. `JAX_COMPILATION_CACHE_MAX_SIZE` replaces
    `MAX_BYTES`. All programs are stored, unless `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` says otherwise.

    The folder is `compiled` in $SAGAN_JAX_CACHE if that is set, and otherwise `sagan_jax/compiled` in $XDG_CACHE_HOME
    or ~/.cache. It has a subfolder for each version of jax and of Python and each kind of CPU. It is not used if
    another user could change its content. A program that cannot be read is compiled again.

    Several processes may use the cache at once, without a lock: jax writes each program once, and a checksum detects
    incomplete entries.

    Args:
        notify: receives a line if the cache is not used, and one each if a program cannot be read or stored.

    Returns:
        The folder of the programs; None when this cache is not used.
    """
    config: Any = jax.config
    given = config.jax_compilation_cache_dir is not None  # by JAX_COMPILATION_CACHE_DIR too, which may be empty
    if given or not config.jax_enable_compilation_cache or config.jax_compilation_cache_max_size == 0:
        return None
    try:
        base = cache_folder("auto", "compiled")
        folder = base and _private_folder(base / _kind_of_programs())
    except (InvalidInputError, OSError, RuntimeError) as error:  # RuntimeError: symbolic links form a loop
        notify(f"warning: compiled programs are not kept for the next start: {one_line(error)}")
        return None
    if folder is None:
        return None
    limit = config.jax_compilation_cache_max_size
    _remove_oldest(folder.parent, MAX_BYTES if limit < 0 else limit)
    config.update("jax_compilation_cache_max_size", -1)  # with a limit, jax may wait ten seconds for a lock per program
    config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # there are many small programs
    _explain_troubles(folder, notify)
    return folder


def disable_compilation_cache() -> None:
    """Disables jax's persistent compilation cache. Call it before anything is compiled."""
    jax.config.update("jax_enable_compilation_cache", False)


def _kind_of_programs() -> str:
    """Returns a folder name that is equal for processes that can run each other's compiled programs.

    jax's cache keys cover the rest, such as devices and XLA's flags. The version of Python is included because 3.14
    compresses programs differently, and jax's keys do not cover that.
    """
    features = [platform.machine(), *(_cpu_features() or [platform.processor()])]
    cpu = hashlib.sha256("\n".join(features).encode())
    python = ".".join(map(str, sys.version_info[:2]))
    return f"jax-{jax.__version__}-jaxlib-{jaxlib.__version__}-python-{python}-cpu-{cpu.hexdigest()[:12]}"


def _cpu_features() -> list[str]:
    """Returns the lines of /proc/cpuinfo with the model and features of the first CPU; empty outside Linux."""
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return []
    names = ("vendor_id", "cpu family", "model", "model name", "flags")  # of x86
    names += ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")  # of ARM
    return [line for line in first.splitlines() if line.partition(":")[0].strip() in names]


def _private_folder(folder: Path) -> Path:
    """Creates a folder that only this user can change, if it is missing, and returns its path without links.

    Raises:
        InvalidInputError: another user could change it, or a folder above it.
        OSError: it cannot be created.
    """
    folder = folder.resolve()
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    existing = missing[-1] if missing else folder
    _require_private(*([] if missing else [folder]), above=existing)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process starts too
            path.mkdir(mode=0o700)
    _require_private(folder, folder.parent, above=folder)  # again: another process may have created them
    return folder


def _require_private(*folders: Path, above: Path) -> None:
    """Raises InvalidInputError unless the folders belong to this user, and the folders above a path are safe.

    A folder above may belong to root. Others may write into it only if it is sticky, like /tmp.
    """
    if not hasattr(os, "geteuid"):  # on Windows, access lists protect a user's folders
        return
    for path in dict.fromkeys([*folders, *above.parents]):
        status, own = path.stat(), path in folders
        wanted = "give SAGAN_JAX_CACHE a folder of your own, or --no-compilation-cache."
        if status.st_uid != os.geteuid() and (own or status.st_uid != 0):
            raise InvalidInputError(f"jax runs cached programs, and {str(path)!r} belongs to another user: {wanted}")
        sticky = status.st_mode & stat.S_ISVTX and not own
        if _others_may_write(status) and not sticky:
            raise InvalidInputError(f"jax runs cached programs, and others may write into {str(path)!r}: {wanted}")


def _others_may_write(status: os.stat_result) -> bool:
    """Returns whether other users may write into a folder. A user's private group does not count as others."""
    own_group = status.st_gid == os.getgid() == os.getuid()
    return bool(status.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP))


def _remove_oldest(base: Path, max_bytes: int) -> None:
    """Removes the least recently used programs, of all versions, until the others fit into `max_bytes`."""
    found = []
    for folder in base.glob("jax-*-jaxlib-*-python-*-cpu-*"):  # leaves other files alone
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)  # noqa: PTH118  there may be many thousands
                with contextlib.suppress(OSError):  # another process may remove files too
                    status = os.lstat(path)
                    found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    size = sum(one for _, one, _ in found)
    for _, one, path in sorted(found):
        if size <= max_bytes:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
        size -= one


def _explain_troubles(folder: Path, notify: Notify) -> None:
    """Turns jax's warnings about cache entries that it cannot read or write into one line, and removes bad entries."""
    show, said = warnings.showwarning, set[str]()

    def explain(message: Warning | str, *where: object, **more: object) -> None:
        trouble = _TROUBLE.fullmatch(str(message))
        if not trouble:
            show(message, *where, **more)  # pyrefly: ignore[bad-argument-type]
            return
        doing, reason = trouble["doing"], " ".join(trouble["reason"].split())
        entries = _entries(folder, trouble["program"])
        if doing == "reading" and any(time.time() - changed < _BEING_WRITTEN_SECONDS for changed in entries.values()):
            return
        for path in entries:
            with contextlib.suppress(OSError):
                path.unlink()  # jax would leave it; on a full disk it is incomplete
        if doing == "writing":
            # Stop writing; existing entries are still read.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
            line = f"warning: compiled programs are no longer stored in {str(folder)!r} ({reason})"
        else:
            line = f"warning: a compiled program in {str(folder)!r} cannot be read ({reason}), and is compiled again"
        if doing not in said:
            said.add(doing)
            notify(line)

    warnings.showwarning = explain
    warnings.filterwarnings("always", message="Error (reading|writing) persistent compilation cache entry")


def _entries(folder: Path, program: str) -> dict[Path, float]:
    """Returns the cache entries of a program, for all its shapes, with their modification times."""
    found = {}
    with contextlib.suppress(OSError):
        for path in folder.glob("*-cache"):
            if path.name.startswith(f"{program}-"):
                with contextlib.suppress(FileNotFoundError):
                    found[path] = path.stat().st_mtime
    return found
