"""The first line that a command prints: what it does, before its slow imports."""

import sys


def announce(activity: str, *, compilation_cache: bool | None = None) -> None:
    """Prints what a command is about to do. Call it after all checks that need no jax, and before jax is imported.

    Prints nothing if jax is already imported, for example in a program that calls several commands.

    Args:
        activity: what the command does, such as "drawing samples".
        compilation_cache: whether to keep compiled programs on disk. None does not change the setting of the cache.
    """
    if "jax" not in sys.modules:
        print(f"{activity} (loading jax; the first compilation can take minutes)", flush=True)
    if compilation_cache is None:
        return
    from sagan_jax.runtime.compilation_cache import disable_compilation_cache, enable_compilation_cache

    if compilation_cache:
        enable_compilation_cache()
    else:
        disable_compilation_cache()
