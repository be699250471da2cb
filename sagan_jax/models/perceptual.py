"""EfficientNet-Lite0 as a measure of how alike two images look: its activations, at the images' own size."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.models.lite0 import Lite0

LAYERS = ("block_0", "block_2", "block_4", "block_10", "block_15")
"""The last block of each size of the feature maps: a half, a quarter, .. and a 32nd of the image's side."""


class Lite0Activations(nn.Module):
    """The activations of `Lite0` that `functional.losses.perceptual_distance` compares.

    Its variables are those of `Lite0`. Images are not resized. The network was trained on images of 224 pixels, so in
    smaller ones it sees larger features than it knows.

    Attributes:
        dtype: of the computation; None takes that of images and parameters together.
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
