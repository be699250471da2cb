"""Downloads a published run from the Hugging Face hub."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.files import system_error


def downloaded(repository: str, revision: str | None, names: Sequence[str]) -> Path:
    """Returns the folder with files of a repository, in the cache of `huggingface_hub`. Cached files are reused.

    Args:
        repository: its name on the hub, such as `owner/name`.
        revision: a branch, a tag or a commit. Defaults to the newest commit of the main branch.
        names: the names of the files. A file that the repository lacks is missing from the folder.

    Raises:
        InvalidInputError: `huggingface_hub` is not installed, there is no such repository or revision, or the hub
            cannot be reached.
        StorageError: a file cannot be written.
    """
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise InvalidInputError(
            f"There is no folder {repository!r}, and a repository of the Hugging Face hub needs the package "
            f"huggingface_hub: pip install 'sagan-jax[hub]'"
        ) from error
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(names)))
    except Exception as error:  # the package raises errors of its own, of its HTTP client and of the system
        refused = system_error(error)
        if refused:
            raise refused from error
        at = f" at {revision!r}" if revision else ""
        raise InvalidInputError(
            f"There is no folder {repository!r}, and the hub did not give a repository of that name{at}: "
            f"{type(error).__name__}: {one_line(error)}."
        ) from error
