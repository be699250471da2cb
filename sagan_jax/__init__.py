"""Self-attention for image generation in JAX.

`sagan_jax.functional` holds the equations and needs only jax, numpy and chex; `train`, `load_run` and `evaluate` do in
Python what the commands do, `Experiment` is what they take, and `interop` reads the weights of others. All are imported
when first used, so that the functions stay light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Experiment", "__version__", "evaluate", "interop", "load_run", "train"]

_HOMES = {
    "Experiment": "sagan_jax.config",
    "evaluate": "sagan_jax.cli.evaluate",
    "load_run": "sagan_jax.cli.wiring",
    "train": "sagan_jax.cli.running",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "interop":
        return importlib.import_module("sagan_jax.interop")
    raise AttributeError(f"module 'sagan_jax' has no attribute {name!r}")
