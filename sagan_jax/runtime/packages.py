"""Checks whether an optional package is installed."""

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
