"""The BigGAN networks at 32 to 512 pixels: SAGAN's blocks, conditioned on a vector.

Widths, the shared embedding and the hierarchical latents follow ajbrock/BigGAN-PyTorch:BigGAN.py. At 128 and 256 pixels
this agrees with the released networks of Brock et al. 2019 (arXiv:1809.11096), appendix B.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.models import sagan
from sagan_jax.models.attention import Attention, attention_layer, check_attention
from sagan_jax.models.layers import (
    ConditionalBatchNorm,
    Conv,
    Dense,
    Initializer,
    check_attention_resolutions,
    check_choice,
    kernel_initializer,
)

# SAGAN's widths, except at resolutions that the authors of BigGAN did not release.
GENERATOR_WIDTHS = sagan.GENERATOR_WIDTHS | {64: (16, 16, 8, 4, 2)}
DISCRIMINATOR_WIDTHS = sagan.DISCRIMINATOR_WIDTHS | {32: (4, 4, 4, 4)}


class Generator(nn.Module):
    """G: maps latents and labels to images in [-1, 1].

    One vector conditions the norms of a block: the shared embedding of the class, joined with the block's own chunk of
    the latent. The linear maps that read the vector are spectrally normalised. The embedding is not.

    Attributes:
        resolution: 32, 64, 128, 256 or 512 pixels.
        num_classes: the number of classes; 0 for an unconditional network.
        base_channels: the unit of the widths in `GENERATOR_WIDTHS`.
        image_channels: 3 for RGB, 1 for grey.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size.
        attention: the layer at these sizes: a name, or a user-defined layer.
        shared_size: the size of the shared class embedding. With 0, each norm has its own table of the classes. A
            hierarchical network with classes needs at least 1.
        hierarchical: whether the latent is split evenly over the first linear map and the blocks.
        norm_epsilon: added to the variance in each norm.
        norm_decay: the decay of the running moments.
        axis_name: the mapped axis over which batch moments are averaged, or None.
        initializer: the initializer of the kernels.
        folded: see `ConditionalBatchNorm`.
        dtype: the dtype of the computation; None infers it from inputs and parameters. Images are float32 or wider.

    Source: Brock et al. 2019, figure 15 and appendix B.1; ajbrock/BigGAN-PyTorch:BigGAN.py.
    """

    resolution: int = 128
    num_classes: int = 1000
    base_channels: int = 96
    image_channels: int = 3
    attention_resolutions: tuple[int, ...] = (64,)
    attention: Attention = "release"
    shared_size: int = 128
    hierarchical: bool = True
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.9
    axis_name: str | None = None
    initializer: Initializer = "orthogonal"
    folded: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating, drawn from N(0, 1). In a hierarchical network, Z is a multiple of the number of
                blocks plus one, such as 120 at 128 pixels.
            labels: `[B]` int32 in [0, num_classes), or mixtures of classes, floating `[B, num_classes]`. An
                unconditional network ignores them.
            train: whether to normalise with the moments of this batch instead of the running moments.

        Returns:
            `[B, resolution, resolution, image_channels]` in [-1, 1].

        Raises:
            ValueError: when a field has an unknown value, or `attention_resolutions` names a size at which no block
                ends. In a hierarchical network also when the latent cannot be split evenly, or when there are classes
                and `shared_size` is 0.
        """
        check_choice("resolution", self.resolution, sagan.Resolution)
        check_attention(self.attention)
        resolutions = sagan.generator_resolutions(self.resolution)
        check_attention_resolutions("generator", self.attention_resolutions, resolutions)
        first, *widths = [self.base_channels * width for width in GENERATOR_WIDTHS[self.resolution]]
        kernel_init = kernel_initializer(self.initializer)

        chunks: list[Array | None] = [None] * len(widths)
        if self.hierarchical:
            if self.num_classes and not self.shared_size:
                raise ValueError(
                    f"A hierarchical Generator with classes needs shared_size of at least 1, or its images would not "
                    f"depend on the class; got num_classes={self.num_classes} and shared_size=0."
                )
            if latents.shape[1] % (len(widths) + 1):
                raise ValueError(
                    f"A hierarchical Generator of {self.resolution} pixels needs latents that divide evenly into "
                    f"{len(widths) + 1} parts; got {latents.shape[1]} entries."
                )
            latents, *rest = jnp.split(latents, len(widths) + 1, axis=1)
            chunks = list(rest)
        embedded = self._embed(labels, latents.dtype) if self.num_classes and self.shared_size else None

        features = Dense(4 * 4 * first, dtype=self.dtype, kernel_init=kernel_init, name="linear")(latents)
        features = features.reshape(-1, 4, 4, first)
        for number, (width, size, chunk) in enumerate(zip(widths, resolutions, chunks, strict=True), start=1):
            conditions = [condition for condition in (embedded, chunk) if condition is not None]
            # Without a vector, each norm looks up the class in its own table, as in SAGAN.
            vector = jnp.concatenate(conditions, axis=1) if conditions else labels
            features = sagan.GeneratorBlock(
                width,
                vector.shape[1] if conditions and vector is not None else self.num_classes,
                self.norm_epsilon,
                self.norm_decay,
                "map" if conditions else "table",
                self.axis_name,
                self.initializer,
                self.folded,
                self.dtype,
                name=f"block_{number}",
            )(features, vector, train=train)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer, self.dtype)(features)
        features = ConditionalBatchNorm(
            0,
            self.norm_epsilon,
            self.norm_decay,
            axis_name=self.axis_name,
            folded=self.folded,
            dtype=self.dtype,
            name="norm",
        )(features, None, train=train)
        # No dtype is given, so the images are float32 like the parameters.
        return jnp.tanh(Conv(self.image_channels, (3, 3), kernel_init=kernel_init, name="conv")(nn.relu(features)))

    def _embed(self, labels: Array | None, dtype: jnp.dtype) -> Array:
        """Returns the shared embedding of the labels or of the mixtures of classes, `[B, shared_size]`."""
        kernel_init = kernel_initializer(self.initializer)
        table = self.param("shared_embedding", kernel_init, (self.num_classes, self.shared_size), jnp.float32)
        if labels is None or not jnp.issubdtype(labels.dtype, jnp.floating):
            labels = jax.nn.one_hot(labels, self.num_classes, dtype=dtype)
        return jnp.matmul(labels.astype(dtype), table.astype(dtype), precision="highest")


class Discriminator(sagan.Discriminator):
    """D: SAGAN's discriminator with an orthogonal initializer. At 32 pixels all widths are four times the base width.

    Source: ajbrock/BigGAN-PyTorch:BigGAN.py. (google/compare_gan omits the shortcut of the last block.)
    """

    base_channels: int = 96
    attention_resolutions: tuple[int, ...] = (64,)
    initializer: Initializer = "orthogonal"

    WIDTHS = DISCRIMINATOR_WIDTHS
