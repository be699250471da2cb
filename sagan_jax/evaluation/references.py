"""What scores need of the real images, worked out once for each content: moments, features, a classifier."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax.errors import StorageError
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.processes import gather, is_first


def cached(
    folder: Path | None, facts: tuple[Any, ...], work_out: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns what `work_out` returns, from the folder where it was kept under the same facts.

    A kept file is whole or absent; one that is damaged, which its checksums show, is worked out again, and a disk that
    refuses is done without. Where there are processes, either all read or all work.

    Args:
        folder: None keeps nothing.
        facts: everything that the arrays are decided by.
        work_out: returns arrays by name.
    """
    path = folder / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.npz" if folder else None
    kept = _read(path) if path else None
    if all(found.all() for found in gather(np.array([kept is not None]))) and kept is not None:
        return kept
    arrays = dict(work_out())
    if path and is_first():
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        with contextlib.suppress(StorageError):  # it is only worked out again next time
            write_atomically(path, content.getvalue())
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError):
        return None


def as_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of a tree by path, as `from_arrays` takes them."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in flat}


def from_arrays(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns the tree of the template's structure whose leaves `as_arrays` gave."""
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(template)[0]
    ]
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[path] for path in paths])
