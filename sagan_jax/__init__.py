"""Self-attention for image generation in JAX.

`sagan_jax.functional` holds the equations and needs only jax, numpy and chex. `train`, `load_run` and `evaluate` are
the Python counterparts of the commands. An `Experiment` is the config that `train` takes. `models`, `training`, `data`,
`evaluation` and `interop` hold the parts that these functions use.

Submodules are imported on first use: `import sagan_jax` loads none of its dependencies.
"""

import importlib

TYPE_CHECKING = False  # not from typing: that import takes longer than the rest of a command's startup
if TYPE_CHECKING:
    from sagan_jax import data, errors, evaluation, functional, interop, models, training
    from sagan_jax.config import (
        CompletionExperiment,
        CompletionNetworks,
        CompletionTraining,
        Data,
        Evaluation,
        Experiment,
        Networks,
        Recording,
        Training,
    )
    from sagan_jax.runs.evaluate import evaluate
    from sagan_jax.runs.load import (
        CompletionRun,
        GenerationRun,
        load_completer,
        load_run,
        open_completion_run,
        open_run,
    )
    from sagan_jax.runs.pretrained import Pretrained, load_pretrained
    from sagan_jax.runs.train import train
    from sagan_jax.runtime.callbacks import Callback, RunStart

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "CompletionExperiment",
    "CompletionNetworks",
    "CompletionRun",
    "CompletionTraining",
    "Data",
    "Evaluation",
    "Experiment",
    "GenerationRun",
    "Networks",
    "Pretrained",
    "Recording",
    "RunStart",
    "Training",
    "__version__",
    "data",
    "errors",
    "evaluate",
    "evaluation",
    "functional",
    "interop",
    "load_completer",
    "load_pretrained",
    "load_run",
    "models",
    "open_completion_run",
    "open_run",
    "train",
    "training",
]

_CONFIG = ("Data", "Networks", "Training", "Recording", "Evaluation", "Experiment")
_CONFIG += ("CompletionNetworks", "CompletionTraining", "CompletionExperiment")
_LOAD = ("CompletionRun", "GenerationRun", "load_completer", "load_run", "open_completion_run", "open_run")
_MODULE_OF = {
    **dict.fromkeys(_CONFIG, "sagan_jax.config"),
    **dict.fromkeys(_LOAD, "sagan_jax.runs.load"),
    **dict.fromkeys(("Callback", "RunStart"), "sagan_jax.runtime.callbacks"),
    **dict.fromkeys(("Pretrained", "load_pretrained"), "sagan_jax.runs.pretrained"),
    "evaluate": "sagan_jax.runs.evaluate",
    "train": "sagan_jax.runs.train",
}


if not TYPE_CHECKING:  # a type checker reads the imports above; this function would hide misspelt names from it

    def __getattr__(name: str):
        if name in _MODULE_OF:
            return getattr(importlib.import_module(_MODULE_OF[name]), name)
        if name in __all__:
            return importlib.import_module(f"sagan_jax.{name}")
        raise AttributeError(f"module 'sagan_jax' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
