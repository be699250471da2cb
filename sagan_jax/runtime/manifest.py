"""Records which files a command wrote into a folder, so that a later call replaces these and nothing else."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import disk_errors, read_json, write_atomically

MANIFEST = ".manifest.json"
"""A file in the folder that lists the files of each result, by the name of the result."""

_MAX_BYTES = 50_000_000


def check_results(folder: Path, results: Mapping[str, Sequence[str]], *, overwrite: bool) -> None:
    """Refuses a folder in which files of earlier results would stay beside new ones, unless `overwrite` is True.

    Args:
        folder: it need not exist.
        results: the names of the files that each result will have.
        overwrite: whether files of earlier results may be removed.

    Raises:
        InvalidInputError: an earlier result of the same name has files that the new one does not replace.
    """
    earlier = read_manifest(folder)
    stale = [
        file
        for name, files in results.items()
        for file in earlier.get(name, ())
        if file not in files and (folder / file).exists()
    ]
    if stale and not overwrite:
        raise InvalidInputError(
            f"{str(folder)!r} holds {len(stale)} files of an earlier call, such as {min(stale)!r}, which would stay "
            f"beside the new ones: give another --out, or --overwrite to remove them."
        )


def start_results(folder: Path, results: Mapping[str, Sequence[str]]) -> None:
    """Adds the files that will be written to the manifest, so that all are known even if the process is killed.

    Args:
        folder: created if it does not exist.
        results: the names of the files of each result.

    Raises:
        StorageError: a file cannot be written.
    """
    earlier = read_manifest(folder)
    _write(folder, earlier | {name: sorted({*earlier.get(name, ()), *files}) for name, files in results.items()})


def finish_results(folder: Path, results: Mapping[str, Sequence[str]]) -> None:
    """Removes files of earlier results of the same names that were not written again.

    Args:
        folder: holds the new files.
        results: as for `start_results`.

    Raises:
        StorageError: a file cannot be written.
    """
    earlier = read_manifest(folder)
    for name, files in results.items():
        for file in set(earlier.get(name, ())) - set(files):
            with disk_errors(folder / file):
                (folder / file).unlink(missing_ok=True)
    _write(folder, earlier | {name: sorted(files) for name, files in results.items()})


def read_manifest(folder: Path) -> dict[str, list[str]]:
    """Returns the files of each result in a folder; nothing without a readable manifest.

    Only plain file names count: names that lead out of the folder are left out.
    """
    path = folder / MANIFEST
    try:
        document = read_json(path, _MAX_BYTES)
    except (OSError, InvalidInputError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        name: [file for file in files if isinstance(file, str) and _is_plain(file)]
        for name, files in document.items()
        if isinstance(files, list)
    }


def _is_plain(name: str) -> bool:
    return name == Path(name).name and name not in ("", ".", "..", MANIFEST) and "\0" not in name


def _write(folder: Path, results: Mapping[str, Sequence[str]]) -> None:
    write_atomically(folder / MANIFEST, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
