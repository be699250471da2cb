"""The SAGAN networks of the authors' release, at 32 to 512 pixels, conditional or unconditional.

Both are plain modules without a loss. Spectral normalisation is applied to their parameters from outside, by
`sagan_jax.functional.spectral_normalize_tree`. Source: brain-research/self-attention-gan, generator.py and
discriminator.py. Widths at 32 and 64 pixels are from POSTECH-CVLab/PyTorch-StudioGAN:src/models/resnet.py. Widths at
512 pixels, which neither code base has, are from ajbrock/BigGAN-PyTorch:BigGAN.py.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.functional.resampling import average_pool, upsample_nearest
from sagan_jax.models.attention import Attention, attention_layer, check_attention
from sagan_jax.models.layers import (
    ConditionalBatchNorm,
    Conv,
    Dense,
    Gain,
    Initializer,
    check_attention_resolutions,
    check_choice,
    check_image_size,
    kernel_initializer,
    plain_convolution,
    pooling_convolution,
    projection_logits,
    sum_positions,
    upsampling_convolution,
)

Resolution = Literal[32, 64, 128, 256, 512]
Shortcut = Literal["before_relu", "after_relu"]
DiscriminatorNorm = Literal["none", "batch"]

# Widths in multiples of `base_channels`: at 4x4, then after each block.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
# After each block. Each block halves the image, except the last one (the last two at 32 pixels).
DISCRIMINATOR_WIDTHS = {
    32: (2, 2, 2, 2),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}


def generator_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the feature-map size after each block of G.

    Examples:
        >>> generator_resolutions(64)
        (8, 16, 32, 64)
    """
    return tuple(4 * 2**block for block in range(1, len(GENERATOR_WIDTHS[resolution])))


def discriminator_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the feature-map size after each block of D.

    Examples:
        >>> discriminator_resolutions(64), discriminator_resolutions(32)
        ((32, 16, 8, 4, 4), (16, 8, 8, 8))
    """
    blocks = len(DISCRIMINATOR_WIDTHS[resolution])
    halvings = blocks - 2 if resolution == 32 else blocks - 1
    return tuple(resolution // 2 ** min(block, halvings) for block in range(1, blocks + 1))


class GeneratorBlock(nn.Module):
    """Norm, ReLU, nearest upsampling, conv 3x3, norm, ReLU, conv 3x3. The shortcut upsamples the input features.

    Source: brain-research/self-attention-gan:generator.py, `block`.
    """

    channels: int
    num_classes: int = 0
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.999
    conditional_gain: Gain = "table"
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    folded: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns `[B, 2H, 2W, channels]` of features `[B, H, W, C]`."""
        kernel_init = kernel_initializer(self.initializer)
        conv = partial(Conv, self.channels, dtype=self.dtype, kernel_init=kernel_init)

        def norm(name: str) -> ConditionalBatchNorm:
            return ConditionalBatchNorm(
                self.num_classes,
                self.norm_epsilon,
                self.norm_decay,
                self.conditional_gain,
                self.axis_name,
                self.initializer,
                self.folded,
                self.dtype,
                name=name,
            )

        # A 1x1 convolution commutes with nearest upsampling. Before upsampling it is four times cheaper.
        shortcut = conv(kernel_size=(1, 1), name="shortcut")(features)
        shortcut = upsample_nearest(shortcut)
        hidden = nn.relu(norm("norm_1")(features, labels, train=train))
        hidden = conv(kernel_size=(3, 3), conv_general_dilated=upsampling_convolution, name="conv_1")(hidden)
        hidden = nn.relu(norm("norm_2")(hidden, labels, train=train))
        return shortcut + conv(kernel_size=(3, 3), conv_general_dilated=plain_convolution, name="conv_2")(hidden)


class Generator(nn.Module):
    """G: maps latents and labels to images in [-1, 1].

    Attributes:
        resolution: 32, 64, 128, 256 or 512 pixels.
        num_classes: the number of classes; 0 for an unconditional network.
        base_channels: the unit of the widths in `GENERATOR_WIDTHS`.
        image_channels: 3 for RGB, 1 for grey.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size.
        attention: the layer at these sizes: a name, or a user-defined layer.
        norm_epsilon: added to the variance in each norm.
        norm_decay: the decay of the running moments in the conditional norms.
        final_norm_decay: the decay of the running moments in the last norm, which is unconditional.
        conditional_gain: see `ConditionalBatchNorm`.
        axis_name: the mapped axis over which batch moments are averaged, or None.
        initializer: the initializer of the kernels.
        folded: see `ConditionalBatchNorm`.
        dtype: the dtype of the computation; None infers it from inputs and parameters. Images are float32 or wider.
    """

    resolution: int = 128
    num_classes: int = 1000
    base_channels: int = 64
    image_channels: int = 3
    attention_resolutions: tuple[int, ...] = (32,)
    attention: Attention = "release"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.999
    final_norm_decay: float = 0.9999
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
            features = GeneratorBlock(
                width,
                self.num_classes,
                self.norm_epsilon,
                self.norm_decay,
                self.conditional_gain,
                self.axis_name,
                self.initializer,
                self.folded,
                self.dtype,
                name=f"block_{number}",
            )(features, labels, train=train)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer, self.dtype)(features)
        features = ConditionalBatchNorm(
            0,
            self.norm_epsilon,
            self.final_norm_decay,
            axis_name=self.axis_name,
            folded=self.folded,
            dtype=self.dtype,
            name="norm",
        )(features, None, train=train)
        # No dtype is given, so the images are float32 like the parameters.
        return jnp.tanh(Conv(self.image_channels, (3, 3), kernel_init=kernel_init, name="conv")(nn.relu(features)))


class DiscriminatorBlock(nn.Module):
    """ReLU, conv 3x3, ReLU, conv 3x3, average pooling. The shortcut is a conv 1x1 if the size or the width changes.

    The first block of the network has no ReLU in front, because its input is an image.
    Source: brain-research/self-attention-gan:discriminator.py, `block` and `optimized_block`.
    """

    channels: int
    downsample: bool
    first: bool = False
    shortcut: Shortcut = "before_relu"
    norm: DiscriminatorNorm = "none"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.999
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array, *, train: bool) -> Array:
        """Returns `[B, H/2, W/2, channels]` of `[B, H, W, C]`; without downsampling `[B, H, W, channels]`."""
        kernel_init = kernel_initializer(self.initializer)
        conv = partial(Conv, self.channels, dtype=self.dtype, kernel_init=kernel_init)

        def activate(hidden: Array, name: str) -> Array:
            if self.norm == "batch":
                hidden = ConditionalBatchNorm(
                    0, self.norm_epsilon, self.norm_decay, axis_name=self.axis_name, dtype=self.dtype, name=name
                )(hidden, None, train=train)
            return nn.relu(hidden)

        shortcut = hidden = features
        if not self.first:
            hidden = activate(hidden, "norm_1")
            if self.shortcut == "after_relu":
                shortcut = hidden
        hidden = conv(kernel_size=(3, 3), conv_general_dilated=plain_convolution, name="conv_1")(hidden)
        last = pooling_convolution if self.downsample else plain_convolution
        hidden = conv(kernel_size=(3, 3), conv_general_dilated=last, name="conv_2")(activate(hidden, "norm_2"))
        if self.downsample:
            # A 1x1 convolution commutes with average pooling. After pooling it is four times cheaper.
            shortcut = average_pool(shortcut)
        if self.downsample or features.shape[-1] != self.channels:
            shortcut = conv(kernel_size=(1, 1), name="shortcut")(shortcut)
        return shortcut + hidden


class Discriminator(nn.Module):
    """D: maps each image with its label to one logit, by projection of the labels.

    The class embedding is stored as the kernel of a linear map, `projection/kernel` `[features, classes]`. So spectral
    normalisation treats it like any kernel, and its `u` has one entry per class, as in the release.

    Attributes:
        resolution: 32, 64, 128, 256 or 512 pixels.
        num_classes: the number of classes; 0 for an unconditional network.
        base_channels: the unit of the widths in `DISCRIMINATOR_WIDTHS`.
        attention_resolutions: feature-map sizes; the layer sits after the first block whose output has that size.
        attention: the layer at these sizes: a name, or a user-defined layer.
        shortcut: whether the shortcuts after the first block read the features before or after the ReLU.
        norm: `"batch"` puts a batch norm before each ReLU of the blocks, for networks without spectral norm.
        norm_epsilon: added to the variance in each norm.
        norm_decay: the decay of the running moments.
        axis_name: the mapped axis over which batch moments are averaged, or None.
        initializer: the initializer of the kernels.
        dtype: the dtype of the computation; None infers it from inputs and parameters. Logits are float32 or wider.
    """

    resolution: int = 128
    num_classes: int = 1000
    base_channels: int = 64
    attention_resolutions: tuple[int, ...] = (32,)
    attention: Attention = "release"
    shortcut: Shortcut = "before_relu"
    norm: DiscriminatorNorm = "none"
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.999
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    WIDTHS = DISCRIMINATOR_WIDTHS  # not a field; a subclass may set other widths

    @nn.compact
    def __call__(self, images: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns logits: large for images that D classifies as real images of their class.

        Args:
            images: `[B, resolution, resolution, image_channels]`, floating, in [-1, 1].
            labels: `[B]` int32 in [0, num_classes). An unconditional network ignores them.
            train: whether batch norms use the moments of this batch; used only with `norm="batch"`.

        Returns:
            `[B]`.

        Raises:
            ValueError: when a field has an unknown value, `attention_resolutions` names a size at which no block
                ends, or the images have another size.
        """
        for field, choices in (
            ("resolution", Resolution),
            ("shortcut", Shortcut),
            ("norm", DiscriminatorNorm),
        ):
            check_choice(field, getattr(self, field), choices)
        check_attention(self.attention)
        check_image_size(images, self.resolution)
        resolutions = discriminator_resolutions(self.resolution)
        check_attention_resolutions("discriminator", self.attention_resolutions, resolutions)
        widths = [self.base_channels * width for width in self.WIDTHS[self.resolution]]

        features, size, placed = images, self.resolution, set()
        for number, (width, next_size) in enumerate(zip(widths, resolutions, strict=True), start=1):
            features = DiscriminatorBlock(
                width,
                downsample=next_size < size,
                first=number == 1,
                shortcut=self.shortcut,
                norm=self.norm,
                norm_epsilon=self.norm_epsilon,
                norm_decay=self.norm_decay,
                axis_name=self.axis_name,
                initializer=self.initializer,
                dtype=self.dtype,
                name=f"block_{number}",
            )(features, train=train)
            size = next_size
            if size in self.attention_resolutions and size not in placed:
                features = attention_layer(self.attention, size, self.initializer, self.dtype)(features)
                placed.add(size)

        pooled = sum_positions(nn.relu(features))
        return projection_logits(pooled, labels, self.num_classes, self.initializer)
