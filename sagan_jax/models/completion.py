"""A conditional variational autoencoder (VAE) that completes images with holes, at 64 and 128 pixels.

    q(z | v, m) = N(mu, diag sigma^2),    p(z) = N(0, I),    y = m * decoder(z, features) + (1 - m) * x

m is the mask, x the image, v the image with zeros in the hole, and `features` the feature maps of the encoder. The
encoder sees v and m only, in training too. No part of the network sees the original content of the hole. The loss
decides how much the latents, and so the completions of an image, may vary. Visible pixels are returned bit for bit.
This module has no loss.

With `skips`, the decoder also receives the encoder's feature maps, except the one of the smallest size. They hold more
detail of the visible part than the latents. The result is a VAE whose decoder is conditioned on the visible part.
Without `skips`, it is a plain VAE of the image with its hole. The network has no norms, so the completion of an image
does not depend on its batch. Attention layers are optional.
"""

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.functional.resampling import average_pool, upsample_nearest
from sagan_jax.models.attention import Attention, attention_layer, check_attention
from sagan_jax.models.layers import (
    Conv,
    Dense,
    check_attention_resolutions,
    check_choice,
    glorot,
    plain_convolution,
)

Resolution = Literal[64, 128]

PATCH_SIZE = 4
"""Images are cut into patches of this side in pixels. The largest feature map has a quarter of the image's side."""

# Widths in multiples of `base_channels`, by feature-map size.
WIDTHS = {32: 1, 16: 2, 8: 4, 4: 8}

# Residual branches start small, because there are no norms that bound them.
_small_init = nn.initializers.variance_scaling(0.1, "fan_avg", "uniform")
_tiny_init = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
_position_init = nn.initializers.normal(0.02)


def completion_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the sizes of the encoder's feature maps, largest first. The decoder has them in reverse order.

    Examples:
        >>> completion_resolutions(64), completion_resolutions(128)
        ((16, 8, 4), (32, 16, 8, 4))
    """
    return tuple(size for size in WIDTHS if size <= resolution // PATCH_SIZE)


def patchify(images: Array, size: int) -> Array:
    """Returns the patches of images `[B, H, W, C]`, each as one position: `[B, H/s, W/s, s*s*C]`.

    Examples:
        >>> patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), 2).tolist()
        [[[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]]
    """
    batch, height, width, channels = images.shape
    squares = images.reshape(batch, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, height // size, width // size, size * size * channels)


def unpatchify(squares: Array, size: int) -> Array:
    """Returns the images `[B, s*H, s*W, C]` of patches `[B, H, W, s*s*C]`: the inverse of `patchify`.

    Examples:
        >>> unpatchify(patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), 2), 2)[0, :, :, 0].tolist()
        [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    batch, height, width, channels = squares.shape
    images = squares.reshape(batch, height, width, size, size, channels // size**2).transpose(0, 1, 3, 2, 4, 5)
    return images.reshape(batch, height * size, width * size, channels // size**2)


class Encoded(NamedTuple):
    """The output of the encoder for the visible part of images."""

    mean: Array
    """mu, `[B, latent_size]`."""
    log_variance: Array
    """log sigma^2, `[B, latent_size]`."""
    features: tuple[Array, ...]
    """For the decoder: `[B, S, S, C]` for each size S except the smallest, largest first; empty without `skips`."""

    def sample(self, key: Array) -> Array:
        """Returns one sample of N(mu, diag sigma^2) for each image, `[B, latent_size]`."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * jax.random.normal(key, self.mean.shape, self.mean.dtype)


class Completion(NamedTuple):
    """Completed images, and the distributions of their latents."""

    images: Array
    """`[B, H, W, C]`: in the hole the network's pixels, in [-1, 1]; elsewhere the given pixels, bit for bit."""
    mean: Array
    """mu, `[B, latent_size]`."""
    log_variance: Array
    """log sigma^2, `[B, latent_size]`."""


class ResidualBlock(nn.Module):
    """SiLU, conv 3x3, SiLU, conv 3x3, with an identity shortcut."""

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` plus the output of the residual branch."""
        channels = features.shape[-1]
        conv = partial(Conv, channels, (3, 3), dtype=self.dtype, conv_general_dilated=plain_convolution)
        hidden = conv(kernel_init=glorot, name="conv_1")(nn.silu(features))
        return features + conv(kernel_init=_small_init, name="conv_2")(nn.silu(hidden))


class Encoder(nn.Module):
    """Maps visible pixels and masks to the distribution of the latents. The fields are those of `CompletionNetwork`."""

    resolution: int
    base_channels: int
    latent_size: int
    attention_resolutions: tuple[int, ...]
    attention: Attention
    blocks: int
    skips: bool
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Array, masks: Array) -> Encoded:
        """Returns the encoding of images `[B, H, W, C]` outside the holes of masks `[B, H, W]`."""
        holes = masks[..., None]
        visible = jnp.where(holes, 0, images)  # a product would keep NaN
        features = patchify(jnp.concatenate([visible, holes.astype(images.dtype)], axis=-1), PATCH_SIZE)
        skips = []
        for number, size in enumerate(completion_resolutions(self.resolution)):
            width = self.base_channels * WIDTHS[size]
            if number:
                skips.append(features)
                features = average_pool(features)
            kernel = (1, 1) if number else (3, 3)
            features = Conv(width, kernel, dtype=self.dtype, kernel_init=glorot, name=f"widen_{size}")(features)
            features = _stage(self, features)
        flat = nn.silu(features).reshape(len(features), -1)
        # No dtype is given, so the distribution is float32 like the parameters.
        mean = Dense(self.latent_size, kernel_init=glorot, name="mean")(flat)
        log_variance = Dense(
            self.latent_size, kernel_init=_tiny_init, bias_init=nn.initializers.constant(-2.0), name="log_variance"
        )(flat)
        return Encoded(mean, log_variance, tuple(skips) if self.skips else ())


class Decoder(nn.Module):
    """Maps latents, and optionally feature maps, to whole images. The fields are those of `CompletionNetwork`."""

    resolution: int
    image_channels: int
    base_channels: int
    attention_resolutions: tuple[int, ...]
    attention: Attention
    blocks: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, latents: Array, skips: tuple[Array, ...]) -> Array:
        """Returns images `[B, H, W, C]` in [-1, 1] for latents `[B, Z]` and the features of `Encoded`."""
        *larger, smallest = completion_resolutions(self.resolution)
        width = self.base_channels * WIDTHS[smallest]
        features = Dense(smallest**2 * width, dtype=self.dtype, kernel_init=glorot, name="linear")(latents)
        features = _stage(self, features.reshape(-1, smallest, smallest, width))
        conv = partial(Conv, kernel_size=(1, 1), dtype=self.dtype, kernel_init=glorot)
        for size in reversed(larger):
            width = self.base_channels * WIDTHS[size]
            # A 1x1 convolution commutes with nearest upsampling. Before upsampling it is four times cheaper.
            features = upsample_nearest(conv(width, name=f"narrow_{size}")(features))
            if skips:
                skip = skips[larger.index(size)]
                features += conv(width, name=f"skip_{size}")(skip)
            features = _stage(self, features)
        # No dtype is given, so the images are float32 like the parameters.
        last = Conv(PATCH_SIZE**2 * self.image_channels, (3, 3), kernel_init=_small_init, name="conv")
        squares = last(nn.silu(features))
        squares += self.param("mean_image", nn.initializers.zeros, squares.shape[1:], jnp.float32)[None]
        return jnp.tanh(unpatchify(squares, PATCH_SIZE))


def _stage(network: Encoder | Decoder, features: Array) -> Array:
    """Returns the features after the layers of one size, which `network` owns. Encoder and decoder use equal layers.

    The learned position map provides absolute positions. It is present with and without attention.
    """
    size = features.shape[1]
    positions = network.param(f"positions_{size}", _position_init, features.shape[1:], jnp.float32)
    features = (features + positions[None]).astype(features.dtype)
    for number in range(1, network.blocks + 1):
        features = ResidualBlock(network.dtype, name=f"block_{size}_{number}")(features)
    if size in network.attention_resolutions:
        features = attention_layer(network.attention, size, dtype=network.dtype)(features)
    return features


class CompletionNetwork(nn.Module):
    """Maps images with holes to completed images, one for each sample of the latents. See the module docstring.

    Attributes:
        resolution: 64 or 128 pixels.
        image_channels: the number of channels, at least 1.
        base_channels: the unit of the widths in `WIDTHS`.
        latent_size: Z, the number of latents.
        attention_resolutions: feature-map sizes; the layer sits after the blocks of that size, in encoder and decoder.
        attention: the layer at these sizes: a name, or a user-defined layer.
        blocks: the number of residual blocks at each size, in encoder and decoder.
        skips: whether the decoder receives the encoder's feature maps. Otherwise it receives only the latents.
        dtype: the dtype of the computation; None infers it from inputs and parameters. Images, and the distribution of
            the latents, are float32 or wider.
    """

    resolution: int = 64
    image_channels: int = 3
    base_channels: int = 32
    latent_size: int = 256
    attention_resolutions: tuple[int, ...] = (16,)
    attention: Attention = "release"
    blocks: int = 1
    skips: bool = True
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        """Creates the encoder and the decoder."""
        check_choice("resolution", self.resolution, Resolution)
        check_attention(self.attention)
        check_attention_resolutions(
            "completion network", self.attention_resolutions, completion_resolutions(self.resolution)
        )
        for field in ("image_channels", "base_channels", "latent_size", "blocks"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} needs to be at least 1; got {getattr(self, field)}.")
        shared = {name: getattr(self, name) for name in ("resolution", "base_channels", "attention_resolutions")}
        shared |= {"attention": self.attention, "blocks": self.blocks, "dtype": self.dtype}
        self.encoder = Encoder(latent_size=self.latent_size, skips=self.skips, **shared)
        self.decoder = Decoder(image_channels=self.image_channels, **shared)

    def encode(self, images: Array, masks: Array) -> Encoded:
        """Returns q(z | v, m), and the features for the decoder.

        Args:
            images: `[B, resolution, resolution, image_channels]`, floating, in [-1, 1] where visible. Pixels in the
                hole are not read and may be NaN.
            masks: `[B, resolution, resolution]` bool, True in the hole.

        Raises:
            ValueError: when a field has an unknown value, `attention_resolutions` names a size at which no block ends,
                or the shapes of images and masks do not fit.
        """
        size, channels = self.resolution, self.image_channels
        if images.shape[1:] != (size, size, channels) or masks.shape != images.shape[:3] or masks.dtype != jnp.bool_:
            raise ValueError(
                f"CompletionNetwork needs images [B, {size}, {size}, {channels}] and bool masks [B, {size}, {size}]; "
                f"got {list(images.shape)} and {masks.dtype} {list(masks.shape)}."
            )
        return self.encoder(images, masks)

    def decode(self, latents: Array, features: tuple[Array, ...]) -> Array:
        """Returns whole images `[B, resolution, resolution, image_channels]` in [-1, 1], visible pixels included.

        Args:
            latents: `[B, latent_size]`.
            features: the features that `encode` returned.
        """
        return self.decoder(latents, features)

    def __call__(self, images: Array, masks: Array, key: Array | None = None) -> Completion:
        """Returns one completion of each image.

        Args:
            images: as for `encode`.
            masks: as for `encode`.
            key: the PRNG key of the latents. With None the latents are the mean of their distribution, and the
                completion is deterministic.

        Raises:
            ValueError: as for `encode`.
        """
        encoded = self.encode(images, masks)
        latents = encoded.mean if key is None else encoded.sample(key)
        drawn = self.decode(latents, encoded.features)
        return Completion(jnp.where(masks[..., None], drawn, images), encoded.mean, encoded.log_variance)
