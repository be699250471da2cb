"""A trained discriminator."""

import dataclasses
from typing import Any

import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class TrainedDiscriminator:
    """A trained discriminator; spectral normalisation is folded into its weights.

    Attributes:
        discriminator: the flax module.
        variables: the normalised `params`, and `batch_stats` if it has any.
        num_classes: 0 when it is unconditional.
        step: the number of generator updates that it was trained for.
    """

    discriminator: nn.Module
    variables: dict[str, Any] = dataclasses.field(repr=False)
    num_classes: int
    step: int
