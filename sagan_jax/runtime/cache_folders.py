"""The folders of caches and downloaded weights: in the user's cache folder, or set by environment variables."""

import os
from pathlib import Path

from sagan_jax.errors import InvalidInputError


def cache_folder(name: str, kind: str = "images") -> Path | None:
    """Returns the cache folder that `name` stands for, or None for no cache.

    Args:
        name: a path, "" for no cache, or `auto`. `auto` means $SAGAN_JAX_CACHE if that is set, and otherwise
            `sagan_jax/KIND` in $XDG_CACHE_HOME or ~/.cache. Without a home folder, `auto` then gives no cache.
        kind: what the cache holds. Images are in the named folder itself, other kinds in a subfolder named KIND.

    Raises:
        InvalidInputError: when `name` begins with `~` and that home folder is unknown.
    """
    if name == "auto" and "SAGAN_JAX_CACHE" not in os.environ:
        base = _user_cache()
        return base and base / kind
    name = os.environ["SAGAN_JAX_CACHE"] if name == "auto" else name
    try:
        return Path(name).expanduser() / ("" if kind == "images" else kind) if name else None
    except RuntimeError:
        raise InvalidInputError(
            f'The cache {name!r} begins with an unknown home folder: give a folder, or "" for no cache.'
        ) from None


def weights_folder() -> Path | None:
    """Returns the default folder for downloaded weights, or None for a user without a home folder.

    The folder is `weights` in $SAGAN_JAX_CACHE if this variable is set and not empty. Otherwise it is
    `sagan_jax/weights` in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        InvalidInputError: when $SAGAN_JAX_CACHE begins with `~` and that home folder is unknown.
    """
    base = _user_cache()
    return cache_folder("auto", "weights") or (base and base / "weights")


def _user_cache() -> Path | None:
    """Returns the folder for the caches of this user; None without a home folder, as in some containers."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sagan_jax"
    except RuntimeError:  # HOME is not set, and the user is not in the password database
        return None
