"""A network that sees only a few pixels at a time, around a layer that may look farther: the probe of reach."""

from functools import partial

import flax.linen as nn
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.models.attention import Attention, attention_layer
from sagan_jax.models.layers import Conv, Dense, glorot, plain_convolution, sum_positions

RESIDUAL_POSITIONS = 5
"""A position of `ResidualControl` depends on so many positions a side: two 3x3 convolutions."""


class ReachProbe(nn.Module):
    """Gives an image one logit that depends on distant parts together only if the layer in its middle looks far.

        logit = w^T sum_p f_p(window_p) + b

    Convolutions of 3x3 and ReLU stand before the layer and after it. Then come the sum over the positions p and a
    linear map. Without the layer, f_p sees a window of `receptive_field()` pixels a side. Where no window holds pixels
    of two parts, the logit is a sum of what is seen of each part. It can count hues, and cannot compare them.

    Attributes:
        attention: the layer: a name, or a layer of one's own.
        channels: of all features, at least 1.
        strides_before: of the convolutions before the layer.
        strides_after: of the convolutions after it. One at least, or what `uniform` adds meets no ReLU.
        dtype: the dtype of the computation; None takes that of the images and the parameters together.
    """

    attention: Attention = "release"
    channels: int = 32
    strides_before: tuple[int, ...] = (2, 1)
    strides_after: tuple[int, ...] = (1,)
    dtype: DTypeLike | None = None

    def receptive_field(self, positions: int = 1) -> int:
        """Returns how many pixels a side an entry of the last features can see.

        Args:
            positions: how many positions a side the layer in the middle sees: 1 without one, and
                `RESIDUAL_POSITIONS` for a residual block.

        Examples:
            >>> ReachProbe().receptive_field(), ReachProbe().receptive_field(RESIDUAL_POSITIONS)
            (11, 19)
        """
        pixels, stride = 1, 1
        for step in self.strides_before:
            pixels, stride = pixels + 2 * stride, stride * step
        pixels += (positions - 1) * stride
        for step in self.strides_after:
            pixels, stride = pixels + 2 * stride, stride * step
        return pixels

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Returns logits `[B]` of images `[B, R, R, 3]`, floating in [-1, 1]."""
        conv = partial(
            Conv,
            self.channels,
            (3, 3),
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            conv_general_dilated=plain_convolution,
        )
        features = (images + 1) / 2  # black is 0, as the padding is
        for number, stride in enumerate(self.strides_before, start=1):
            features = nn.relu(conv(strides=(stride, stride), name=f"before_{number}")(features))
        features = attention_layer(self.attention, features.shape[1], dtype=self.dtype)(features)
        zeros = 0 * sum_positions(features)  # a NaN of the layer reaches the logit; XLA's ReLU makes it 0 on a CPU
        for number, stride in enumerate(self.strides_after, start=1):
            features = nn.relu(conv(strides=(stride, stride), name=f"after_{number}")(features))
        return Dense(1, kernel_init=glorot, name="linear")(sum_positions(features) + zeros)[:, 0]
