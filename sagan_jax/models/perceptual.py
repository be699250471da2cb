"""EfficientNet-Lite0 activations for a perceptual distance, computed without resizing the images."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.models.lite0 import Lite0

LAYERS = ("block_0", "block_2", "block_4", "block_10", "block_15")
"""The last block at each feature-map size: 1/2, 1/4, ..., 1/32 of the image side."""


class Lite0Activations(nn.Module):
    """The activations of `Lite0` that `functional.losses.perceptual_distance` compares.

    Its variables are those of `Lite0`. Images are not resized. The network was trained at 224 pixels, so objects in
    smaller images have another scale than in training.

    Attributes:
        dtype: the dtype of the computation; None infers it from images and parameters.
    """

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Array) -> list[Array]:
        """Returns the activations of the layers in `LAYERS`, each `[B, ceil(H / s), ceil(W / s), C]`, s from 2 to 32.

        Args:
            images: `[B, H, W, 3]`, RGB, or `[B, H, W, 1]`, grey, floating, in [-1, 1].
        """
        network = Lite0(dtype=self.dtype)
        nn.share_scope(self, network)
        pixels = 127.5 * images + 127.5
        colours = jnp.broadcast_to((pixels - 127) / 128, (*images.shape[:-1], 3))
        outputs = network(colours, with_activations=True)
        return [outputs[layer] for layer in LAYERS]
