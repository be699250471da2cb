"""Self-attention for image generation in JAX.

`sagan_jax.functional` holds the equations and needs only jax, numpy and chex; `train` and `load_run` do in Python
what the commands do, and are imported when first used so that the functions stay light.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_run", "train"]


def __getattr__(name: str) -> Any:
    if name in ("train", "load_run"):
        from sagan_jax.cli import wiring

        return getattr(wiring, name)
    raise AttributeError(f"module 'sagan_jax' has no attribute {name!r}")
