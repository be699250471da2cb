"""The two-time-scale rule: one Adam a network, each with its own rate."""

from typing import NamedTuple

import optax


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
