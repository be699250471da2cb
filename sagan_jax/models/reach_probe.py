"""The reach probe: a network with a small receptive field, except for one layer in the middle."""

from functools import partial

import flax.linen as nn
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.models.attention import Attention, attention_layer
from sagan_jax.models.layers import Conv, Dense, glorot, plain_convolution, sum_positions

RESIDUAL_POSITIONS = 5
"""The receptive field of `ResidualControl` in positions: that of two 3x3 convolutions."""


class ReachProbe(nn.Module):
    """Maps an image to one logit. Only the layer in the middle can relate distant parts of the image.

        logit = w^T sum_p f_p(window_p) + b

    3x3 convolutions with ReLU precede and follow the layer. Then come the sum over the positions p and a linear map.
    Without the layer, f_p depends on a window with sides of `receptive_field()` pixels. If no window contains pixels of
    two parts, the logit is a sum of one term per part. Such a logit can count hues but cannot compare them.

    Attributes:
        attention: the layer in the middle: a name, or a user-defined layer.
        channels: the channels of all feature maps, at least 1.
        strides_before: the strides of the convolutions before the layer.
        strides_after: the strides of the convolutions after the layer. There must be at least one, so that the output
            of `uniform` passes through a ReLU.
        dtype: the dtype of the computation; None infers it from images and parameters.
    """

    attention: Attention = "release"
    channels: int = 32
    strides_before: tuple[int, ...] = (2, 1)
    strides_after: tuple[int, ...] = (1,)
    dtype: DTypeLike | None = None

    def receptive_field(self, positions: int = 1) -> int:
        """Returns the receptive field of the last features: the side of the window in pixels.

        Args:
            positions: the receptive field of the layer in the middle, in positions: 1 without a layer, and
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
        features = (images + 1) / 2  # black is 0, like the padding
        for number, stride in enumerate(self.strides_before, start=1):
            features = nn.relu(conv(strides=(stride, stride), name=f"before_{number}")(features))
        features = attention_layer(self.attention, features.shape[1], dtype=self.dtype)(features)
        zeros = 0 * sum_positions(features)  # passes on a NaN, which XLA's ReLU turns into 0 on a CPU
        for number, stride in enumerate(self.strides_after, start=1):
            features = nn.relu(conv(strides=(stride, stride), name=f"after_{number}")(features))
        return Dense(1, kernel_init=glorot, name="linear")(sum_positions(features) + zeros)[:, 0]
