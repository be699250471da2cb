"""Networks that compile fast and have the parts of the large ones: conditional norm, attention, moments."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from sagan_jax.models.layers import ConditionalBatchNorm, SelfAttention


class SmallGenerator(nn.Module):
    """A linear layer, a conditional norm, attention if wanted, and a convolution to images in [-1, 1].

    `record` is called with "generator", the latents, the labels and the images of each pass.
    """

    image_shape: tuple[int, int, int] = (4, 4, 2)
    num_features: int = 3
    num_classes: int = 5
    norm_decay: float = 0.9
    attention: bool = False
    axis_name: str | None = None
    record: Callable[..., None] | None = None

    @nn.compact
    def __call__(self, latents, labels, *, train):
        height, width, channels = self.image_shape
        features = nn.Dense(height * width * self.num_features, name="linear")(latents)
        features = features.reshape(-1, height, width, self.num_features)
        norm = ConditionalBatchNorm(self.num_classes, decay=self.norm_decay, axis_name=self.axis_name, name="norm")
        features = nn.relu(norm(features, labels, train=train))
        if self.attention:
            features = SelfAttention(name="attention_4")(features)
        images = jnp.tanh(nn.Conv(channels, (3, 3), name="conv")(features))
        if self.record:
            jax.debug.callback(partial(self.record, "generator"), latents, labels, images, ordered=True)
        return images


class SmallDiscriminator(nn.Module):
    """A convolution, a norm whose moments devices share, and a linear layer on the mean over positions."""

    num_features: int = 5
    norm_decay: float = 0.9
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, labels, *, train):
        features = nn.Conv(self.num_features, (3, 3), name="conv")(images)
        norm = ConditionalBatchNorm(0, decay=self.norm_decay, axis_name=self.axis_name, name="norm")
        return nn.Dense(1, name="linear")(nn.relu(norm(features, None, train=train)).mean(axis=(1, 2)))[:, 0]
