"""A cache on disk for arrays that are costly to compute, keyed by everything that determines them."""

import contextlib
import hashlib
import io
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax.errors import StorageError
from sagan_jax.runtime.files import open_regular, write_atomically
from sagan_jax.runtime.processes import gather, is_main_process

Arrays = dict[str, np.ndarray]


def cached(folder: Path | None, key: tuple[Any, ...], compute: Callable[[], Mapping[str, np.ndarray]]) -> Arrays:
    """Returns the arrays of `compute`, or loads them if they were stored under the same key.

    Files are written atomically. Damaged files, detected by their checksums, are computed again. A folder that cannot
    be written is ignored. With several processes, either all of them read or all of them compute. If several runs need
    the same arrays at the same time, one computes them and the others wait.

    Args:
        folder: the cache folder; None disables the cache.
        key: everything that determines the arrays. The file name is a hash of its `repr`.
        compute: returns arrays by name.
    """
    found = stored(folder, key)
    if found is not None:
        return found
    if folder is None:
        return dict(compute())
    path = _path(folder, key)
    with _locked(path) if jax.process_count() == 1 else contextlib.nullcontext():
        found = stored(folder, key)  # another run may have stored them while this one waited
        if found is not None:
            return found
        arrays = dict(compute())
        if is_main_process():
            content = io.BytesIO()
            np.savez(content, allow_pickle=False, **arrays)
            with contextlib.suppress(StorageError):  # the next run then computes the arrays again
                write_atomically(path, content.getvalue())
    return arrays


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock for a file. Waits, with a notice, while another run holds it. Goes on unlocked if locking fails."""
    with contextlib.ExitStack() as held:
        try:
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            # Without O_NONBLOCK, opening a named pipe may block.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            file = held.enter_context(os.fdopen(os.open(path.with_suffix(".lock"), flags, 0o666), "rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another run that computes the same for {str(path)!r}", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            held.callback(fcntl.flock, file, fcntl.LOCK_UN)  # a forked process may keep the file open
        except (ImportError, OSError):
            pass  # no file locks, or a folder that cannot be written
        yield


def stored(folder: Path | None, key: tuple[Any, ...]) -> Arrays | None:
    """Returns the arrays that `cached` stored under a key, or None if any process cannot read them."""
    found = _read(_path(folder, key)) if folder else None
    return found if all(there.all() for there in gather(np.array([found is not None]))) else None


def _path(folder: Path, key: tuple[Any, ...]) -> Path:
    return folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz"


def _read(path: Path) -> Arrays | None:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error, KeyError, EOFError):
        return None


def as_arrays(tree: Any) -> Arrays:
    """Returns the leaves of a pytree by path, as input for `from_arrays`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in flat}


def from_arrays(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns a pytree with the structure of `template` and the leaves that `as_arrays` returned."""
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(template)[0]
    ]
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[path] for path in paths])
