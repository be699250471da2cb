"""How parameters follow gradients: the two-time-scale rule, and Muon for networks of convolutions."""

from typing import Any, NamedTuple

import jax
import optax
from optax import contrib


class Optimizers(NamedTuple):
    """One optax transformation a network."""

    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def two_time_scale(
    *,
    generator_learning_rate: float = 1e-4,
    discriminator_learning_rate: float = 4e-4,
    beta1: float = 0.0,
    beta2: float = 0.9,
    epsilon: float = 1e-8,
) -> Optimizers:
    """Returns an Adam for each network, D's faster than G's.

    The paper's beta2 is 0.9; the release leaves it at TensorFlow's 0.999.

    Args:
        generator_learning_rate: positive.
        discriminator_learning_rate: positive.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        epsilon: added to the root of the second moment.

    Returns:
        The two transformations.

    Source: Heusel et al. 2017 (arXiv:1706.08500); Zhang et al. 2018, section 4.
    """

    def adam(learning_rate: float) -> optax.GradientTransformation:
        return optax.adam(learning_rate, b1=beta1, b2=beta2, eps=epsilon)

    return Optimizers(adam(generator_learning_rate), adam(discriminator_learning_rate))


def muon(learning_rate: optax.ScalarOrSchedule, *, beta1: float = 0.9, beta2: float = 0.99) -> Any:
    """Returns Muon for the kernels of convolutions and of attention, and Adam, Nesterov's, for everything else.

    Muon turns the momentum of a matrix into the nearest one whose singular values are all one, about; a kernel
    `[h, w, in, out]` is the matrix `[h w in, out]`. Scaled so that an entry moves as far as with Adam, both take the
    same rate. The kernels of dense layers are left to Adam: they are large, and what they gain does not pay for it.

    Args:
        learning_rate: positive, or a schedule.
        beta1: decay of Adam's first moment, in [0, 1).
        beta2: decay of Adam's second moment, in [0, 1).

    Returns:
        An optax transformation.

    Source: Jordan et al. 2024 (github.com/KellerJordan/Muon); the scale of Liu et al. 2025 (arXiv:2502.16982).
    """

    def matrix(path: Any, leaf: Any) -> Any:
        name = path[-1].key
        if name.endswith("_kernel"):
            return contrib.MuonDimensionNumbers(0, 1)
        if name == "kernel" and leaf.ndim == 4:
            return contrib.MuonDimensionNumbers((0, 1, 2), 3)
        return None

    return contrib.muon(
        learning_rate,
        consistent_rms=0.2,
        adam_b1=beta1,
        adam_b2=beta2,
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(matrix, params),
    )
