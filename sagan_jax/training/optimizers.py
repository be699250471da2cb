"""Optimisers: the two-time-scale update rule with Adam, and Muon for convolutional networks."""

from typing import Any, NamedTuple

import jax
import optax
from jax import Array
from optax import contrib


class Optimizers(NamedTuple):
    """One optax transformation for each network."""

    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def two_time_scale(
    *,
    generator_learning_rate: optax.ScalarOrSchedule = 1e-4,
    discriminator_learning_rate: optax.ScalarOrSchedule = 4e-4,
    beta1: float = 0.0,
    beta2: float = 0.9,
    epsilon: float = 1e-8,
) -> Optimizers:
    """Returns one Adam optimiser per network. By default D has the larger learning rate.

    The paper's beta2 is 0.9; the authors' release leaves it at TensorFlow's 0.999.

    Args:
        generator_learning_rate: a positive number, or a schedule.
        discriminator_learning_rate: a positive number, or a schedule.
        beta1: the decay of the first moment, in [0, 1).
        beta2: the decay of the second moment, in [0, 1).
        epsilon: added to the root of the second moment.

    Source: Heusel et al. 2017 (arXiv:1706.08500); Zhang et al. 2018, section 4.
    """

    def adam(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        return optax.adam(learning_rate, b1=beta1, b2=beta2, eps=epsilon)

    return Optimizers(adam(generator_learning_rate), adam(discriminator_learning_rate))


def scheduled_rate(
    learning_rate: float, *, warmup_steps: int = 0, falls_until: int = 0, updates_per_step: int = 1
) -> optax.ScalarOrSchedule:
    """Returns a learning-rate schedule with optional linear warm-up from 0 and optional linear decay to 0.

    Args:
        learning_rate: the peak value, positive.
        warmup_steps: the number of warm-up steps; 0 for no warm-up.
        falls_until: the step at which the decay reaches 0, above `warmup_steps`; 0 for no decay.
        updates_per_step: the number of optimiser updates per step.

    Returns:
        The learning rate itself if it is constant, else a schedule: a function of the number of completed updates.

    Examples:
        >>> rate = scheduled_rate(8.0, warmup_steps=2, falls_until=6)
        >>> [float(rate(step)) for step in range(7)]
        [0.0, 4.0, 8.0, 6.0, 4.0, 2.0, 0.0]
        >>> scheduled_rate(8.0)
        8.0
    """
    if not (warmup_steps or falls_until):
        return learning_rate
    last = optax.constant_schedule(learning_rate)
    if falls_until:
        last = optax.linear_schedule(learning_rate, 0.0, falls_until - warmup_steps)
    growing = [optax.linear_schedule(0.0, learning_rate, warmup_steps)] if warmup_steps else []
    schedule = optax.join_schedules([*growing, last], [warmup_steps] if warmup_steps else [])

    def rate(count: Any) -> Any:
        return schedule(count // updates_per_step)

    return rate


def muon(
    learning_rate: optax.ScalarOrSchedule, *, beta1: float = 0.9, beta2: float = 0.99
) -> optax.GradientTransformation:
    """Returns Muon for the kernels of convolutions and of attention, and Adam with Nesterov momentum for the rest.

    Muon replaces the momentum of a matrix by the nearest matrix whose singular values are all about one. A kernel
    `[h, w, in, out]` is treated as the matrix `[h w in, out]`. Updates are scaled to the root mean square of Adam's
    updates, so both use the same learning rate. The decay of Muon's momentum is 0.95. Kernels of dense layers use Adam:
    they are large, and Muon gains too little on them.

    Args:
        learning_rate: a positive number, or a schedule.
        beta1: the decay of Adam's first moment, in [0, 1).
        beta2: the decay of Adam's second moment, in [0, 1).

    Source: Jordan et al. 2024 (github.com/KellerJordan/Muon); the scale of Liu et al. 2025 (arXiv:2502.16982).
    """

    def matrix_axes(path: tuple[Any, ...], leaf: Array) -> contrib.MuonDimensionNumbers | None:
        name = path[-1].key
        if name.endswith("_kernel") and leaf.ndim == 2:
            return contrib.MuonDimensionNumbers(0, 1)
        if name == "kernel" and leaf.ndim == 4:
            return contrib.MuonDimensionNumbers((0, 1, 2), 3)
        return None

    return contrib.muon(
        learning_rate,
        consistent_rms=0.2,
        adam_b1=beta1,
        adam_b2=beta2,
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(matrix_axes, params),
    )
