"""The DCGAN networks at 32 and 64 pixels: convolutions, and attention layers as an option.

Layers and widths at 32 pixels are those of StudioGAN, which has no norm after the first linear map. At 64 pixels each
network has one more block. Source: Radford et al. 2016 (arXiv:1511.06434);
POSTECH-CVLab/PyTorch-StudioGAN:src/models/deep_conv.py.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.models.attention import Attention, attention_layer, check_attention
from sagan_jax.models.layers import (
    ConditionalBatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Gain,
    Initializer,
    check_attention_resolutions,
    check_choice,
    check_image_size,
    kernel_initializer,
    plain_convolution,
    projection_logits,
    sum_positions,
)
from sagan_jax.models.sagan import DiscriminatorNorm

Resolution = Literal[32, 64]

# Widths in multiples of `base_channels`: at 4x4, then after each block.
GENERATOR_WIDTHS = {32: (8, 4, 2, 1), 64: (16, 8, 4, 2, 1)}
# After each block, which halves the image, then after the last convolution.
DISCRIMINATOR_WIDTHS = {32: (1, 2, 4, 8), 64: (1, 2, 4, 8, 16)}


def generator_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the feature-map size after each block of G.

    Examples:
        >>> generator_resolutions(32)
        (8, 16, 32)
    """
    return tuple(4 * 2**block for block in range(1, len(GENERATOR_WIDTHS[resolution])))


def discriminator_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the feature-map size after each block of D.

    Examples:
        >>> discriminator_resolutions(64)
        (32, 16, 8, 4)
    """
    return tuple(resolution // 2**block for block in range(1, len(DISCRIMINATOR_WIDTHS[resolution])))


class Generator(nn.Module):
    """G: maps latents to images in [-1, 1], by transposed 4x4 convolutions of stride 2, each with norm and ReLU.

    Attributes:
        resolution: 32 or 64 pixels.
        num_classes: 0 for an unconditional network, as in DCGAN. Otherwise the norms are conditional, as in SAGAN.
        base_channels: the unit of the widths in `GENERATOR_WIDTHS`.
        image_channels: 3 for RGB, 1 for grey.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size. DCGAN has
            none.
        attention: the layer at these sizes: a name, or a user-defined layer.
        norm_epsilon: added to the variance in each norm.
        norm_decay: the decay of the running moments.
        conditional_gain: see `ConditionalBatchNorm`.
        axis_name: the mapped axis over which batch moments are averaged, or None.
        initializer: the initializer of the kernels.
        folded: see `ConditionalBatchNorm`.
        dtype: the dtype of the computation; None infers it from inputs and parameters. Images are float32 or wider.
    """

    resolution: int = 32
    num_classes: int = 0
    base_channels: int = 64
    image_channels: int = 3
    attention_resolutions: tuple[int, ...] = ()
    attention: Attention = "release"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.9
    conditional_gain: Gain = "table"
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    folded: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating, drawn from N(0, 1).
            labels: `[B]` int32 in [0, num_classes), or mixtures of classes, floating `[B, num_classes]`. An
                unconditional network ignores them.
            train: whether to normalise with the moments of this batch instead of the running moments.

        Returns:
            `[B, resolution, resolution, image_channels]` in [-1, 1].

        Raises:
            ValueError: when a field has an unknown value, or `attention_resolutions` names a size at which no block
                ends.
        """
        check_choice("resolution", self.resolution, Resolution)
        check_attention(self.attention)
        resolutions = generator_resolutions(self.resolution)
        check_attention_resolutions("generator", self.attention_resolutions, resolutions)
        first, *widths = [self.base_channels * width for width in GENERATOR_WIDTHS[self.resolution]]
        kernel_init = kernel_initializer(self.initializer)

        features = Dense(4 * 4 * first, dtype=self.dtype, kernel_init=kernel_init, name="linear")(latents)
        features = features.reshape(-1, 4, 4, first)
        for number, (width, size) in enumerate(zip(widths, resolutions, strict=True), start=1):
            features = ConvTranspose(
                width, (4, 4), (2, 2), dtype=self.dtype, kernel_init=kernel_init, name=f"conv_{number}"
            )(features)
            features = ConditionalBatchNorm(
                self.num_classes,
                self.norm_epsilon,
                self.norm_decay,
                self.conditional_gain,
                self.axis_name,
                self.initializer,
                self.folded,
                self.dtype,
                name=f"norm_{number}",
            )(features, labels, train=train)
            features = nn.relu(features)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer, self.dtype)(features)
        # No dtype is given, so the images are float32 like the parameters.
        return jnp.tanh(Conv(self.image_channels, (3, 3), kernel_init=kernel_init, name="conv")(features))


class Discriminator(nn.Module):
    """D: maps each image to one logit.

    A block is a 3x3 convolution and a 4x4 convolution of stride 2, each with norm and ReLU. A conditional network
    uses SAGAN's label projection, with the same parameters.

    Attributes:
        resolution: 32 or 64 pixels.
        num_classes: 0 for an unconditional network, as in DCGAN.
        base_channels: the unit of the widths in `DISCRIMINATOR_WIDTHS`.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size.
        attention: the layer at these sizes: a name, or a user-defined layer.
        norm: `"batch"` as in DCGAN, or `"none"` for networks with spectral normalisation.
        norm_epsilon: added to the variance in each norm.
        norm_decay: the decay of the running moments.
        axis_name: the mapped axis over which batch moments are averaged, or None.
        initializer: the initializer of the kernels.
        dtype: the dtype of the computation; None infers it from inputs and parameters. Logits are float32 or wider.
    """

    resolution: int = 32
    num_classes: int = 0
    base_channels: int = 64
    attention_resolutions: tuple[int, ...] = ()
    attention: Attention = "release"
    norm: DiscriminatorNorm = "batch"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.9
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns logits: large for images that D classifies as real.

        Args:
            images: `[B, resolution, resolution, image_channels]`, floating, in [-1, 1].
            labels: `[B]` int32 in [0, num_classes). An unconditional network ignores them.
            train: whether to normalise with the moments of this batch instead of the running moments.

        Returns:
            `[B]`.

        Raises:
            ValueError: when a field has an unknown value, `attention_resolutions` names a size at which no block
                ends, or the images have another size.
        """
        for field, choices in (("resolution", Resolution), ("norm", DiscriminatorNorm)):
            check_choice(field, getattr(self, field), choices)
        check_attention(self.attention)
        check_image_size(images, self.resolution)
        resolutions = discriminator_resolutions(self.resolution)
        check_attention_resolutions("discriminator", self.attention_resolutions, resolutions)
        *widths, last = [self.base_channels * width for width in DISCRIMINATOR_WIDTHS[self.resolution]]
        kernel_init = kernel_initializer(self.initializer)

        def layer(features: Array, width: int, name: str, size: int = 3, stride: int = 1) -> Array:
            features = Conv(
                width,
                (size, size),
                (stride, stride),
                dtype=self.dtype,
                kernel_init=kernel_init,
                conv_general_dilated=plain_convolution,
                name=f"conv_{name}",
            )(features)
            if self.norm == "batch":
                features = ConditionalBatchNorm(
                    0,
                    self.norm_epsilon,
                    self.norm_decay,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"norm_{name}",
                )(features, None, train=train)
            return nn.relu(features)

        features = images
        for number, (width, size) in enumerate(zip(widths, resolutions, strict=True), start=1):
            features = layer(features, width, f"{number}a")
            features = layer(features, width, f"{number}b", size=4, stride=2)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer, self.dtype)(features)
        pooled = sum_positions(layer(features, last, f"{len(widths) + 1}"))
        return projection_logits(pooled, labels, self.num_classes, self.initializer)
