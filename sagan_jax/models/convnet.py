"""A plain convolutional network: the classifier of real images, and the random features of Naeem et al."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.resampling import max_pool


class ConvNet(nn.Module):
    """Stages of two 3x3 convolutions and a 2x2 max pool, then two linear maps: a small VGG without normalisation.

    Attributes:
        widths: channels of each stage.
        hidden: width of the first linear map.
        outputs: width of the second.

    Source: Simonyan and Zisserman 2015, the form; the sizes are ours.
    """

    widths: tuple[int, ...]
    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Returns the outputs `[B, outputs]`.

        Args:
            images: `[B, R, R, C]`, floating; R divisible by 2 to the number of stages.

        Returns:
            float32, without an activation.
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
