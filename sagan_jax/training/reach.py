"""Training of the reach probe: its task, its state and its pure step function."""

import dataclasses
from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.models.programs import bind_static
from sagan_jax.training.network_state import Metrics, Params


@dataclasses.dataclass(frozen=True)
class ReachTask:
    """The static part of the training.

    Attributes:
        probe: maps images `[B, R, R, 3]`, floating in [-1, 1], to logits `[B]`.
        optimizer: the optimiser of its parameters.
    """

    probe: nn.Module
    optimizer: optax.GradientTransformation


@flax.struct.dataclass
class ReachState:
    """The parameters and optimiser state of a run."""

    params: Params
    optimizer: optax.OptState


def initial_state(task: ReachTask, seed: int, resolution: int) -> ReachState:
    """Returns the state before the first step.

    Args:
        task: the probe and its optimiser.
        seed: in [0, 2**32).
        resolution: R, the height and width of the images.
    """
    return bind_static(_initial_state, task, resolution)(np.uint32(seed))


@partial(jax.jit, static_argnums=(0, 1))
def _initial_state(task: ReachTask, resolution: int, seed: Array) -> ReachState:
    params = task.probe.init(jax.random.key(seed), jnp.zeros((1, resolution, resolution, 3)))["params"]
    return ReachState(params, task.optimizer.init(params))


def step(task: ReachTask, state: ReachState, images: Array) -> tuple[ReachState, Metrics]:
    """Returns the state after one update, and the metrics before the update: `loss` and `accuracy`.

    The loss is the binary cross-entropy of "this image follows the rule". A logit that is a sum of one term per part
    cannot do better than the constant 0, whose loss is ln 2. At this constant, the gradient is zero on each quartet.

    Args:
        task: the probe and its optimiser.
        state: the state before the step.
        images: `[N, 4, R, R, 3]` uint8, as in `sagan_jax.data.quartets.Quartets`.
    """

    def objective(params: Params) -> tuple[Array, Array]:
        logits = quartet_logits(task.probe, params, images)
        wrong = jnp.concatenate([-logits[:, :2], logits[:, 2:]], axis=1)
        return nn.softplus(wrong).mean(), logits

    (loss, logits), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer = task.optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss, "accuracy": comparisons(logits).mean()}
    return ReachState(params, optimizer), metrics  # pyrefly: ignore[bad-argument-type]


def quartet_logits(probe: nn.Module, params: Params, images: Array) -> Array:
    """Returns logits `[N, 4]` of images `[N, 4, R, R, 3]` uint8, computed with float32 products on all platforms."""
    flat = images.reshape(-1, *images.shape[2:]).astype(jnp.float32) / 127.5 - 1
    with jax.default_matmul_precision("float32"):
        return probe.apply({"params": params}, flat).reshape(images.shape[:2])  # pyrefly: ignore[missing-attribute]


def comparisons(logits: Array) -> Array:
    """Compares the logit of each image that follows the rule with that of a copy in which one part has another hue.

    AA is compared with AB, and BB with BA. A logit that is a sum of one term per part wins exactly one of the two
    comparisons, or ties in both. So its accuracy is exactly one half. The comparison needs no threshold.

    Args:
        logits: `[N, 4]` of quartets: AA, BB, AB, BA.

    Returns:
        `[N, 2]` float32: 1 if the image that follows the rule has the greater logit, 0 if it has the smaller logit,
        and 0.5 for a tie.

    Examples:
        >>> import jax.numpy as jnp
        >>> comparisons(jnp.array([[4.0, 0.0, 2.0, 2.0], [1.0, 1.0, -1.0, 1.0]])).tolist()
        [[1.0, 0.0], [1.0, 0.5]]
    """
    return (1 + jnp.sign(logits[:, :2] - logits[:, 2:])) / 2
