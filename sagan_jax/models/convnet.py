"""A plain convolutional network, used as a classifier of real images and for the random features of Naeem et al."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.resampling import max_pool


class ConvNet(nn.Module):
    """A small VGG without norms: stages of two 3x3 convolutions and a 2x2 max pool, then two linear maps.

    Attributes:
        widths: the channels of each stage.
        hidden: the width of the first linear map.
        outputs: the width of the second linear map.

    Source: the architecture of Simonyan and Zisserman 2015, with our own sizes.
    """

    widths: tuple[int, ...]
    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Returns the outputs `[B, outputs]`.

        Args:
            images: `[B, R, R, C]`, floating. R is a multiple of 2 to the power of the number of stages.

        Returns:
            float32 logits, without an activation.
        """
        features = images
        for width in self.widths:
            for _ in range(2):
                features = nn.Conv(width, (3, 3), kernel_init=nn.initializers.he_normal())(features)
                features = jax.nn.relu(features)
            features = max_pool(features)
        features = features.reshape(len(features), -1)
        features = jax.nn.relu(nn.Dense(self.hidden, kernel_init=nn.initializers.he_normal())(features))
        return nn.Dense(self.outputs, dtype=jnp.float32)(features)
