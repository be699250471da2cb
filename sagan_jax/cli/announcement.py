"""The first line of a command: what it does, before it is slow."""

import sys


def announce(activity: str, *, compilation_cache: bool | None = None) -> None:
    """Prints what a command is going to do. Call it when all is checked that needs no jax, and before jax is imported.

    Prints nothing where jax is loaded already, as in a program that calls commands one after the other: then there is
    no wait to explain.

    Args:
        activity: such as "drawing samples".
        compilation_cache: for a command that compiles: whether compiled programs are kept for the next start.
    """
    if "jax" not in sys.modules:
        print(f"{activity} (loading jax; what is compiled for the first time can take minutes)", flush=True)
    if compilation_cache is None:
        return
    from sagan_jax.runtime.compilation_cache import disable_compilation_cache, enable_compilation_cache

    if compilation_cache:
        enable_compilation_cache()
    else:
        disable_compilation_cache()
