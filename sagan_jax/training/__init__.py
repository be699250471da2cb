"""Training: one task per file with its state and its pure step, and what all tasks share.

Use `adversarial` and `completion` through their modules: `adversarial.step(task, state, batch)`.
"""

from sagan_jax.training import adversarial, completion
from sagan_jax.training.accumulation import mean_gradient
from sagan_jax.training.adversarial import AdversarialState, AdversarialTask
from sagan_jax.training.completion import CompletionState, CompletionTask
from sagan_jax.training.flops import step_flops
from sagan_jax.training.network_state import (
    BatchStats,
    Metrics,
    NetworkState,
    Params,
    Spectral,
    Variables,
    init_network_state,
    normalize_with_vjp,
)
from sagan_jax.training.optimizers import Optimizers, muon, scheduled_rate, two_time_scale
from sagan_jax.training.protocols import (
    DiscriminatorLoss,
    DiscriminatorNetwork,
    GeneratorLoss,
    GeneratorNetwork,
    ImageAugmentation,
    NetworkOptimizer,
    PairedGeneratorLoss,
)
from sagan_jax.training.updates import moving_average
from sagan_jax.training.warm_start import load_matching_params, warm_start

__all__ = [
    "AdversarialState",
    "AdversarialTask",
    "BatchStats",
    "CompletionState",
    "CompletionTask",
    "DiscriminatorLoss",
    "DiscriminatorNetwork",
    "GeneratorLoss",
    "GeneratorNetwork",
    "ImageAugmentation",
    "Metrics",
    "NetworkOptimizer",
    "NetworkState",
    "Optimizers",
    "PairedGeneratorLoss",
    "Params",
    "Spectral",
    "Variables",
    "adversarial",
    "completion",
    "init_network_state",
    "load_matching_params",
    "mean_gradient",
    "moving_average",
    "muon",
    "normalize_with_vjp",
    "scheduled_rate",
    "step_flops",
    "two_time_scale",
    "warm_start",
]
