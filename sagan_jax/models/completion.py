"""A conditional variational autoencoder that fills the hole of an image, at 64 and 128 pixels, attention optional.

    q(z | v, m) = N(mu, diag sigma^2),    p(z) = N(0, I),    y = m * decoder(z, features) + (1 - m) * x

m is the mask, v the image with its hole set to zero, x the image, and `features` the encoder's. The encoder sees v and
m alone, in training too: nothing here ever sees what was in the hole, and completions of one image differ by as much as
the loss lets the latents vary. Visible pixels come back bit for bit. No loss is in here.

With `skips` the decoder is handed the encoder's feature maps as well, all but the narrowest, and so what is visible in
more detail than latents hold: a variational autoencoder whose decoder is conditioned on what is visible. Without, it is
the classic one, of the image with its hole. There are no norms: an image's completion does not depend on its batch.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.resampling import average_pool, upsample_nearest
from sagan_jax.models.layers import AttentionKind, attention_layer, check_attention, check_choice, glorot

Resolution = Literal[64, 128]

PATCH = 4
"""Images are cut into squares of this many pixels a side: the widest feature map is a quarter of the image."""

# Widths in multiples of `base_channels`, by feature-map size.
WIDTHS = {32: 1, 16: 2, 8: 4, 4: 8}

# What a branch adds to its shortcut starts small: there are no norms to hold it.
_small = nn.initializers.variance_scaling(0.1, "fan_avg", "uniform")
_smaller = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
_positions = nn.initializers.normal(0.02)


def completion_resolutions(resolution: int) -> tuple[int, ...]:
    """Returns the sizes of the feature maps, widest first; the decoder has the same in the opposite order.

    >>> completion_resolutions(64), completion_resolutions(128)
    ((16, 8, 4), (32, 16, 8, 4))
    """
    return tuple(size for size in WIDTHS if size <= resolution // PATCH)


def patches(images: Array, size: int) -> Array:
    """Returns the squares of `size` pixels of images `[B, H, W, C]`, each as one position: `[B, H/s, W/s, s*s*C]`.

    >>> patches(jnp.arange(8.0).reshape(1, 2, 4, 1), 2).tolist()
    [[[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]]
    """
    batch, height, width, channels = images.shape
    squares = images.reshape(batch, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, height // size, width // size, size * size * channels)


def unpatch(squares: Array, size: int) -> Array:
    """Returns the images `[B, s*H, s*W, C]` whose patches are `[B, H, W, s*s*C]`: undoes `patches`.

    >>> unpatch(patches(jnp.arange(8.0).reshape(1, 2, 4, 1), 2), 2)[0, :, :, 0].tolist()
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    batch, height, width, channels = squares.shape
    images = squares.reshape(batch, height, width, size, size, channels // size**2).transpose(0, 1, 3, 2, 4, 5)
    return images.reshape(batch, height * size, width * size, channels // size**2)


class Encoded(NamedTuple):
    """What the encoder makes of the visible part of images."""

    mean: Array
    """mu, `[B, latent_size]`."""
    log_variance: Array
    """log sigma^2, `[B, latent_size]`."""
    features: tuple[Array, ...]
    """What skips the latents: `[B, S, S, C]` for each size S but the narrowest, widest first; empty without skips."""

    def latents(self, key: Array) -> Array:
        """Returns a draw out of N(mu, diag sigma^2) for each image, `[B, latent_size]`."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * jax.random.normal(key, self.mean.shape, self.mean.dtype)


class Completion(NamedTuple):
    """Completed images, and the distributions out of which their latents came."""

    images: Array
    """`[B, H, W, C]`: inside the hole the network's, in [-1, 1]; elsewhere what was given, bit for bit."""
    mean: Array
    """mu, `[B, latent_size]`."""
    log_variance: Array
    """log sigma^2, `[B, latent_size]`."""


class ResidualBlock(nn.Module):
    """SiLU, conv 3x3, SiLU, conv 3x3 around an identity shortcut."""

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` with what the branch adds."""
        channels = features.shape[-1]
        hidden = nn.Conv(channels, (3, 3), kernel_init=glorot, name="conv_1")(nn.silu(features))
        return features + nn.Conv(channels, (3, 3), kernel_init=_small, name="conv_2")(nn.silu(hidden))


class Encoder(nn.Module):
    """The visible part of images and the mask, to the distribution of the latents; fields as in `CompletionNetwork`."""

    resolution: int
    base_channels: int
    latent_size: int
    attention_resolutions: tuple[int, ...]
    attention: AttentionKind
    blocks: int
    skips: bool

    @nn.compact
    def __call__(self, images: Array, masks: Array) -> Encoded:
        """Returns what the encoder makes of images `[B, H, W, C]` without what masks `[B, H, W]` cover."""
        holes = masks[..., None]
        visible = jnp.where(holes, 0, images)  # a product would let what is not a number through
        features = patches(jnp.concatenate([visible, holes.astype(images.dtype)], axis=-1), PATCH)
        kept = []
        for number, size in enumerate(completion_resolutions(self.resolution)):
            width = self.base_channels * WIDTHS[size]
            if number:
                kept.append(features)
                features = average_pool(features)
            kernel = (1, 1) if number else (3, 3)
            features = nn.Conv(width, kernel, kernel_init=glorot, name=f"widen_{size}")(features)
            features = _level(self, features)
        flat = nn.silu(features).reshape(len(features), -1)
        mean = nn.Dense(self.latent_size, kernel_init=glorot, name="mean")(flat)
        log_variance = nn.Dense(
            self.latent_size, kernel_init=_smaller, bias_init=nn.initializers.constant(-2.0), name="log_variance"
        )(flat)
        return Encoded(mean, log_variance, tuple(kept) if self.skips else ())


class Decoder(nn.Module):
    """Latents, and perhaps feature maps of the encoder, to whole images; fields as in `CompletionNetwork`."""

    resolution: int
    image_channels: int
    base_channels: int
    attention_resolutions: tuple[int, ...]
    attention: AttentionKind
    blocks: int

    @nn.compact
    def __call__(self, latents: Array, kept: tuple[Array, ...]) -> Array:
        """Returns images `[B, H, W, C]` in [-1, 1] of latents `[B, Z]` and `Encoded.features`."""
        *wider, narrowest = completion_resolutions(self.resolution)
        width = self.base_channels * WIDTHS[narrowest]
        features = nn.Dense(narrowest**2 * width, kernel_init=glorot, name="linear")(latents)
        features = _level(self, features.reshape(-1, narrowest, narrowest, width))
        for size in reversed(wider):
            width = self.base_channels * WIDTHS[size]
            # A 1x1 convolution commutes with nearest upsampling: before it, it is four times cheaper.
            features = upsample_nearest(nn.Conv(width, (1, 1), kernel_init=glorot, name=f"narrow_{size}")(features))
            if kept:
                skip = kept[wider.index(size)]
                features += nn.Conv(width, (1, 1), kernel_init=glorot, name=f"skip_{size}")(skip)
            features = _level(self, features)
        squares = nn.Conv(PATCH**2 * self.image_channels, (3, 3), kernel_init=_small, name="conv")(nn.silu(features))
        squares += self.param("mean_image", nn.initializers.zeros, squares.shape[1:], jnp.float32)[None]
        return jnp.tanh(unpatch(squares, PATCH))


def _level(network: Encoder | Decoder, features: Array) -> Array:
    """Returns features of the same shape: what both networks do at one size, with layers that `network` owns.

    The learned map of positions says what a convolution cannot know; it is there with and without attention.
    """
    size = features.shape[1]
    features += network.param(f"positions_{size}", _positions, features.shape[1:], jnp.float32)[None]
    for number in range(1, network.blocks + 1):
        features = ResidualBlock(name=f"block_{size}_{number}")(features)
    if size in network.attention_resolutions:
        features = attention_layer(network.attention, size)(features)
    return features


class CompletionNetwork(nn.Module):
    """Images with holes to completions, one a draw of the latents; see the top of the file for what it is.

    Attributes:
        resolution: 64 or 128 pixels.
        image_channels: any number.
        base_channels: the unit of the widths in `WIDTHS`.
        latent_size: Z, how many latents an image has.
        attention_resolutions: feature-map sizes; the layer sits after the blocks of that size, in encoder and decoder.
        attention: what sits there.
        blocks: residual blocks a size, in encoder and decoder.
        skips: hand the encoder's feature maps to the decoder; without, only the latents.
    """

    resolution: int = 64
    image_channels: int = 3
    base_channels: int = 32
    latent_size: int = 256
    attention_resolutions: tuple[int, ...] = (16,)
    attention: AttentionKind = "release"
    blocks: int = 1
    skips: bool = True

    def setup(self) -> None:
        """Makes the two networks."""
        check_choice("resolution", self.resolution, Resolution)
        check_choice("attention", self.attention, AttentionKind)
        check_attention("completion network", self.attention_resolutions, completion_resolutions(self.resolution))
        for field in ("image_channels", "base_channels", "latent_size", "blocks"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} needs to be at least 1; got {getattr(self, field)}.")
        shared = {name: getattr(self, name) for name in ("resolution", "base_channels", "attention_resolutions")}
        shared |= {"attention": self.attention, "blocks": self.blocks}
        self.encoder = Encoder(latent_size=self.latent_size, skips=self.skips, **shared)
        self.decoder = Decoder(image_channels=self.image_channels, **shared)

    def encode(self, images: Array, masks: Array) -> Encoded:
        """Returns q(z | v, m), and the features that the decoder is handed.

        Args:
            images: `[B, resolution, resolution, image_channels]`, floating, in [-1, 1] where visible; in the hole
                anything, NaN too: it is not read.
            masks: `[B, resolution, resolution]` bool, True in the hole.

        Raises:
            ValueError: a field is none of its choices, `attention_resolutions` names a size at which no block ends, or
                images and masks do not fit.
        """
        size, channels = self.resolution, self.image_channels
        if images.shape[1:] != (size, size, channels) or masks.shape != images.shape[:3] or masks.dtype != jnp.bool_:
            raise ValueError(
                f"CompletionNetwork needs images [B, {size}, {size}, {channels}] and bool masks [B, {size}, {size}]; "
                f"got {list(images.shape)} and {masks.dtype} {list(masks.shape)}."
            )
        return self.encoder(images, masks)

    def decode(self, latents: Array, features: tuple[Array, ...]) -> Array:
        """Returns whole images `[B, resolution, resolution, image_channels]` in [-1, 1], known pixels redrawn too.

        Args:
            latents: `[B, latent_size]`.
            features: those of `encode`.
        """
        return self.decoder(latents, features)

    def __call__(self, images: Array, masks: Array, key: Array | None = None) -> Completion:
        """Returns one completion of each image.

        Args:
            images: as for `encode`.
            masks: as for `encode`.
            key: draws the latents; None takes the mean of their distribution, which makes the completion a function of
                what is visible.

        Raises:
            ValueError: as for `encode`.
        """
        encoded = self.encode(images, masks)
        latents = encoded.mean if key is None else encoded.latents(key)
        drawn = self.decode(latents, encoded.features)
        return Completion(jnp.where(masks[..., None], drawn, images), encoded.mean, encoded.log_variance)
