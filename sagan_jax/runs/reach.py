"""The probe of reach: tests whether a layer lets a network compare parts that are too far apart for its convolutions.

A network with the layer in its middle learns to separate images whose two parts have the same hue from other images.
Without the layer its receptive field is 11 of the 32 pixels. Its accuracy on parts farther apart is then exactly one
half.
"""

import difflib
import math
from collections.abc import Callable
from functools import cache, partial
from statistics import NormalDist
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.data.quartets import Quartets, draw_quartets
from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.import_paths import is_import_path
from sagan_jax.models.attention import Attention, AttentionKind
from sagan_jax.models.programs import bind_static
from sagan_jax.models.reach_probe import ReachProbe
from sagan_jax.runs.attention_kinds import check_layer, find_attention
from sagan_jax.training import reach
from sagan_jax.training.network_state import Metrics, Params
from sagan_jax.training.reach import ReachState, ReachTask

RULE, RESOLUTION = Pairs(hues=6, forms=1, size=6), 32
BINS = (2, 5), (6, 9), (10, 17), (18, 20)
"""Ranges of empty pixels between the parts. Without a layer, the convolutions see both parts in the first two bins.
With a residual block, they see both in the first three. In the last bin, only a long-range layer sees both."""
STEPS, QUARTETS, LEARNING_RATE, WARMUP_STEPS = 1500, 16, 3e-3, 50
HELD_OUT, CURVE_STEPS, CURVE_QUARTETS = 512, 100, 128
"""Held-out quartets of each bin; steps between two points of the curve; quartets of the last bin for each point."""
_TRAINING, _HELD_OUT = 0, 1  # two random streams; the held-out images are the same for all seeds


class ReachBin(NamedTuple):
    """The accuracy for one range of distances between the parts."""

    least_gap: int
    greatest_gap: int
    """in pixels, as is `least_gap`; both are included"""
    quartets: int
    accuracy: float
    """the share of correct comparisons; one half by chance"""

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval (1927). It counts quartets, because the two comparisons of a quartet are dependent.

        Examples:
            >>> [round(bound, 4) for bound in ReachBin(18, 20, 512, 1.0).interval]
            [0.9926, 1.0]
        """
        z = NormalDist().inv_cdf(0.975)
        share, count = self.accuracy, self.quartets
        middle = share + z**2 / (2 * count)
        half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
        return (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)


class ReachResult(NamedTuple):
    """The result of a probe. All accuracies are on held-out images, which are the same for each seed."""

    attention: str
    seed: int
    steps: int
    parameters: int
    """number of parameters of the whole probe"""
    bins: tuple[ReachBin, ...]
    """by distance; the last bin is beyond the reach of all convolutions, including those of a residual block"""
    curve: tuple[tuple[int, float], ...]
    """pairs of a step and the accuracy in the last bin after it"""
    gamma: float | None
    """gamma of the layer after training, if it has a scalar parameter of this name"""

    @property
    def beyond_reach(self) -> ReachBin:
        """The last bin."""
        return self.bins[-1]

    def first_step(self, accuracy: float = 0.9) -> int | None:
        """Returns the first step of the curve with at least this accuracy; None if there is none."""
        return next((step for step, reached in self.curve if reached >= accuracy), None)


def measure_reach(
    attention: str | Attention,
    *,
    seed: int = 0,
    steps: int = STEPS,
    on_progress: Callable[[int, float], Any] | None = None,
) -> ReachResult:
    """Trains a probe with a layer in its middle, and measures its accuracy by the distance of the parts.

    A comparison has two images that differ only in the hue of one part. It is correct if the image with equal hues has
    the greater logit. A network that only sums over the parts has an accuracy of exactly one half.

    Args:
        attention: a name, an import path such as `layers.py:Layer`, or a layer; see `AttentionModule`.
        seed: seed of the initial parameters and of the training images, in [0, 2**32).
        steps: number of training steps, more than the 50 of the warm-up.
        on_progress: called with the step and the accuracy of each point of the curve.

    Raises:
        InvalidInputError: there is no such layer, it breaks its contract, or a number is out of its range.
        NonFiniteError: the loss became NaN or infinite.
    """
    if not 0 <= seed < 2**32 or steps <= WARMUP_STEPS:
        raise InvalidInputError(
            f"The probe of reach needs a seed from 0 to 2**32 - 1 and more than {WARMUP_STEPS} steps; got seed {seed} "
            f"and {steps} steps."
        )
    name = attention if isinstance(attention, str) else getattr(attention, "__name__", type(attention).__name__)
    probe = ReachProbe(attention=probe_layer(attention, name))
    task = ReachTask(probe, _optimizer(steps))
    state = reach.initial_state(task, seed, RESOLUTION)
    take_step = bind_static(_take_step, task)
    held_out = [_held_out(number) for number in range(len(BINS))]
    curve = []
    for number in range(1, steps + 1):
        state, metrics = take_step(state, _training_batch(seed, number).images)
        if number % CURVE_STEPS == 0 or number == steps:
            if not math.isfinite(metrics["loss"]):
                raise NonFiniteError(f"The loss of the probe is {metrics['loss']} at step {number}.", number)
            curve.append((number, _accuracy(task, state.params, held_out[-1][:CURVE_QUARTETS])))
            if on_progress:
                on_progress(*curve[-1])
    bins = tuple(
        ReachBin(*gaps, len(images), _accuracy(task, state.params, images))
        for gaps, images in zip(BINS, held_out, strict=True)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return ReachResult(name, seed, steps, count, bins, tuple(curve), _gamma(state.params))


def probe_layer(attention: str | Attention, name: str) -> Attention:
    """Returns the layer of a name. The contract of a user's layer is checked.

    Raises:
        InvalidInputError: there is no such layer, or it breaks its contract.
    """
    names = get_args(AttentionKind)
    if isinstance(attention, str) and not is_import_path(attention) and attention not in names:
        near = difflib.get_close_matches(attention, names, 1)
        hint = f" Perhaps you meant {near[0]!r}." if near else ""
        raise InvalidInputError(
            f"attention needs to be one of {', '.join(names)}, or a layer such as layers.py:Layer; got "
            f"{attention!r}.{hint}"
        )
    layer = find_attention(attention, "attention") if isinstance(attention, str) else attention
    if not isinstance(layer, str):
        where = name.rpartition(":")[0] or getattr(layer, "__module__", type(layer).__module__)
        check_layer(layer, f"attention {name}", where, {RESOLUTION // 2: ReachProbe().channels})
    return layer


@cache
def _optimizer(steps: int) -> optax.GradientTransformation:
    """Returns the optimiser. Equal numbers of steps get the same object, so that seeds share a compiled step."""
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP_STEPS, steps))


@partial(jax.jit, static_argnums=0)
def _take_step(task: ReachTask, state: ReachState, images: Array) -> tuple[ReachState, Metrics]:
    return reach.step(task, state, images)


def _training_batch(seed: int, number: int) -> Quartets:
    """Returns the quartets of a step. All gaps are equally likely."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_TRAINING, number)))
    return draw_quartets(RULE, QUARTETS, RESOLUTION, (BINS[0][0], BINS[-1][1]), random)


def _held_out(number: int) -> np.ndarray:
    """Returns the images of the quartets of a bin, `[N, 4, R, R, 3]`."""
    random = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(_HELD_OUT, number)))
    return draw_quartets(RULE, HELD_OUT, RESOLUTION, BINS[number], random).images


@partial(jax.jit, static_argnums=0)
def _logits(probe: ReachProbe, params: Params, images: Array) -> Array:
    return reach.quartet_logits(probe, params, images)


def _accuracy(task: ReachTask, params: Params, images: np.ndarray) -> float:
    """Returns the share of correct comparisons, computed in batches of the training size."""
    logits = bind_static(_logits, task.probe)
    parts = [logits(params, images[first : first + QUARTETS]) for first in range(0, len(images), QUARTETS)]
    return float(reach.comparisons(jnp.concatenate(parts)).mean())


def _gamma(params: Params) -> float | None:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return next((float(leaf) for path, leaf in leaves if path[-1].key == "gamma" and leaf.ndim == 0), None)
