"""Checks whether packages are installed, and in which version."""

import importlib.metadata
import importlib.util


def is_installed(package: str) -> bool:
    """Returns whether a package is installed, without importing it.

    A folder of that name in the current folder does not count, such as the folder `wandb` that wandb itself writes.

    Args:
        package: its import name.

    Examples:
        >>> is_installed("jax"), is_installed("no_such_package")
        (True, False)
    """
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def installed_version(distribution: str) -> str | None:
    """Returns the version of an installed distribution, or None if it is not installed.

    Args:
        distribution: the name that pip uses.

    Examples:
        >>> installed_version("no-such-distribution") is None
        True
    """
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
