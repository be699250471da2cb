"""Files written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from sagan_jax.errors import StorageError


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all, through a temporary name beside it; makes the folders above.

    Args:
        path: replaced if it exists; after a failure it is as it was.
        content: all of the file.

    Raises:
        StorageError: when the disk refused.
    """
    write_together(Path(path).parent, {Path(path).name: content})


def write_together(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Writes files that belong together: none takes its name before all of them are on the disk.

    Args:
        folder: made where there is none, with those above it.
        contents: names to all of each file; one that exists is replaced, and after a failure is as it was.

    Raises:
        StorageError: when the disk refused.
    """
    folder = Path(folder)
    temporaries = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    with disk_errors(folder / ", ".join(contents)):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for temporary, content in zip(temporaries.values(), contents.values(), strict=True):
                temporary.write_bytes(content)
            for path, temporary in temporaries.items():
                temporary.replace(path)
        finally:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)
