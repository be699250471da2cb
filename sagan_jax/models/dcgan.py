"""The DCGAN networks at 32 and 64 pixels: convolutions only, unless attention is put between them.

Layers and widths at 32 pixels are StudioGAN's, which have no norm after the first linear map; at 64 pixels there is one
more pair of them. Source: Radford et al. 2016 (arXiv:1511.06434);
POSTECH-CVLab/PyTorch-StudioGAN:src/models/deep_conv.py.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from sagan_jax.models.layers import (
    AttentionKind,
    ConditionalBatchNorm,
    Gain,
    Initializer,
    attention_layer,
    check_attention,
    check_choice,
    check_image_size,
    kernel_initializer,
    projection_logits,
)
from sagan_jax.models.sagan import DiscriminatorNorm

Resolution = Literal[32, 64]

# Widths in multiples of `base_channels`: of the 4x4 features, then after each block.
GENERATOR_WIDTHS = {32: (8, 4, 2, 1), 64: (16, 8, 4, 2, 1)}
# After each block, which halves the image, then of the convolution that follows the last.
DISCRIMINATOR_WIDTHS = {32: (1, 2, 4, 8), 64: (1, 2, 4, 8, 16)}


def generator_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the feature-map size after each block of G.

    >>> generator_resolutions(32)
    (8, 16, 32)
    """
    return tuple(4 * 2**block for block in range(1, len(GENERATOR_WIDTHS[resolution])))


def discriminator_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the feature-map size after each block of D.

    >>> discriminator_resolutions(64)
    (32, 16, 8, 4)
    """
    return tuple(resolution // 2**block for block in range(1, len(DISCRIMINATOR_WIDTHS[resolution])))


class Generator(nn.Module):
    """G: latents to images in [-1, 1], by transposed 4x4 convolutions of stride 2, each with a norm and a ReLU.

    Attributes:
        resolution: 32 or 64 pixels.
        num_classes: 0 for an unconditional network, as DCGAN is; else the norms are conditional, as in SAGAN.
        base_channels: the unit of the widths in `GENERATOR_WIDTHS`.
        image_channels: 3 for RGB, 1 for grey.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size. None in
            DCGAN.
        attention: what sits there.
        norm_epsilon: added to the variances.
        norm_decay: share of the running moments that an update keeps.
        conditional_gain: see `ConditionalBatchNorm`.
        axis_name: mapped axis over which batch moments are shared.
        initializer: of the kernels.
        folded: see `ConditionalBatchNorm`.
    """

    resolution: int = 32
    num_classes: int = 0
    base_channels: int = 64
    image_channels: int = 3
    attention_resolutions: tuple[int, ...] = ()
    attention: AttentionKind = "release"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.9
    conditional_gain: Gain = "table"
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    folded: bool = False

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating, drawn from N(0, 1).
            labels: `[B]` int32 in [0, num_classes), or mixtures of classes `[B, num_classes]`, floating; read only when
                the network is conditional.
            train: normalise with the moments of this batch rather than the running ones.

        Returns:
            `[B, resolution, resolution, image_channels]` in [-1, 1].

        Raises:
            ValueError: when a field is none of its choices, or `attention_resolutions` names a size at which no block
                ends.
        """
        check_choice("resolution", self.resolution, Resolution)
        check_choice("attention", self.attention, AttentionKind)
        resolutions = generator_resolutions(self.resolution)
        check_attention("generator", self.attention_resolutions, resolutions)
        first, *widths = [self.base_channels * width for width in GENERATOR_WIDTHS[self.resolution]]
        start = kernel_initializer(self.initializer)

        features = nn.Dense(4 * 4 * first, kernel_init=start, name="linear")(latents)
        features = features.reshape(-1, 4, 4, first)
        for number, (width, size) in enumerate(zip(widths, resolutions, strict=True), start=1):
            features = nn.ConvTranspose(width, (4, 4), (2, 2), kernel_init=start, name=f"conv_{number}")(features)
            features = ConditionalBatchNorm(
                self.num_classes,
                self.norm_epsilon,
                self.norm_decay,
                self.conditional_gain,
                self.axis_name,
                self.initializer,
                self.folded,
                name=f"norm_{number}",
            )(features, labels, train=train)
            features = nn.relu(features)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer)(features)
        return jnp.tanh(nn.Conv(self.image_channels, (3, 3), kernel_init=start, name="conv")(features))


class Discriminator(nn.Module):
    """D: images to one logit each, by pairs of a 3x3 convolution and a 4x4 one of stride 2, each with norm and ReLU.

    With classes it has SAGAN's projection of the label, stored in the same way.

    Attributes:
        resolution: 32 or 64 pixels.
        num_classes: 0 for an unconditional network, as DCGAN is.
        base_channels: the unit of the widths in `DISCRIMINATOR_WIDTHS`.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size.
        attention: what sits there.
        norm: `"batch"` is DCGAN's; none where spectral norm is to take its place.
        norm_epsilon: added to the variances.
        norm_decay: share of the running moments that an update keeps.
        axis_name: mapped axis over which batch moments are shared.
        initializer: of the kernels.
    """

    resolution: int = 32
    num_classes: int = 0
    base_channels: int = 64
    attention_resolutions: tuple[int, ...] = ()
    attention: AttentionKind = "release"
    norm: DiscriminatorNorm = "batch"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.9
    axis_name: str | None = None
    initializer: Initializer = "xavier"

    @nn.compact
    def __call__(self, images: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns logits: large where D takes the image for a real one.

        Args:
            images: `[B, resolution, resolution, image_channels]`, floating, in [-1, 1].
            labels: `[B]` int32 in [0, num_classes); read only when the network is conditional.
            train: normalise with the moments of this batch rather than the running ones.

        Returns:
            `[B]`.

        Raises:
            ValueError: when a field is none of its choices, `attention_resolutions` names a size at which no block
                ends, or the images have another size.
        """
        for field, choices in (("resolution", Resolution), ("attention", AttentionKind), ("norm", DiscriminatorNorm)):
            check_choice(field, getattr(self, field), choices)
        check_image_size(images, self.resolution)
        resolutions = discriminator_resolutions(self.resolution)
        check_attention("discriminator", self.attention_resolutions, resolutions)
        *widths, last = [self.base_channels * width for width in DISCRIMINATOR_WIDTHS[self.resolution]]
        start = kernel_initializer(self.initializer)

        def layer(features: Array, width: int, name: str, size: int = 3, stride: int = 1) -> Array:
            features = nn.Conv(width, (size, size), (stride, stride), kernel_init=start, name=f"conv_{name}")(features)
            if self.norm == "batch":
                features = ConditionalBatchNorm(
                    0, self.norm_epsilon, self.norm_decay, axis_name=self.axis_name, name=f"norm_{name}"
                )(features, None, train=train)
            return nn.relu(features)

        features = images
        for number, (width, size) in enumerate(zip(widths, resolutions, strict=True), start=1):
            features = layer(features, width, f"{number}a")
            features = layer(features, width, f"{number}b", size=4, stride=2)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer)(features)
        pooled = layer(features, last, f"{len(widths) + 1}").sum(axis=(1, 2))
        return projection_logits(pooled, labels, self.num_classes, self.initializer)
