"""The BigGAN networks at 32, 64, 128 and 256 pixels: SAGAN's blocks, told by a vector what to draw.

Widths, the shared embedding and the latents' way into every block are those of ajbrock/BigGAN-PyTorch:BigGAN.py; the
released networks of Brock et al. 2019 (arXiv:1809.11096), appendix B, agree with it at 128 and 256 pixels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.models import sagan
from sagan_jax.models.layers import (
    AttentionKind,
    ConditionalBatchNorm,
    Initializer,
    attention_layer,
    check_attention,
    check_choice,
    kernel_initializer,
)

# SAGAN's, but at the sizes that its authors never released.
GENERATOR_WIDTHS = sagan.GENERATOR_WIDTHS | {64: (16, 16, 8, 4, 2)}
DISCRIMINATOR_WIDTHS = sagan.DISCRIMINATOR_WIDTHS | {32: (4, 4, 4, 4)}


class Generator(nn.Module):
    """G: latents and labels to images in [-1, 1].

    The norms of a block are told by one vector: the class's row of an embedding that all of them share, and the block's
    own part of the latent. The embedding, unlike the maps that read the vector, is never spectrally normalised.

    Attributes:
        resolution: 32, 64, 128 or 256 pixels.
        num_classes: 0 for an unconditional network.
        base_channels: the unit of the widths in `GENERATOR_WIDTHS`.
        image_channels: 3 for RGB, 1 for grey.
        attention_resolutions: feature-map sizes; the layer sits after the block whose output has that size.
        attention: what sits there.
        shared_size: entries of the shared embedding; 0 for none, each norm then has its own of the classes.
        hierarchical: whether the latent is split evenly over the first map and the blocks; else it enters once.
        norm_epsilon: added to the variances.
        norm_decay: share of the running moments that an update keeps.
        axis_name: mapped axis over which batch moments are shared.
        initializer: of the kernels.
        folded: see `ConditionalBatchNorm`.

    Source: Brock et al. 2019, figure 15 and appendix B.1; ajbrock/BigGAN-PyTorch:BigGAN.py.
    """

    resolution: int = 128
    num_classes: int = 1000
    base_channels: int = 96
    image_channels: int = 3
    attention_resolutions: tuple[int, ...] = (64,)
    attention: AttentionKind = "release"
    shared_size: int = 128
    hierarchical: bool = True
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.9
    axis_name: str | None = None
    initializer: Initializer = "orthogonal"
    folded: bool = False

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns images.

        Args:
            latents: `[B, Z]`, floating, drawn from N(0, 1); a hierarchical network needs a Z that divides evenly by one
                more than its blocks, such as 120 at 128 pixels.
            labels: `[B]` int32 in [0, num_classes), or mixtures of classes `[B, num_classes]`, floating; read only when
                the network is conditional.
            train: normalise with the moments of this batch rather than the running ones.

        Returns:
            `[B, resolution, resolution, image_channels]` in [-1, 1].

        Raises:
            ValueError: when a field is none of its choices, `attention_resolutions` names a size at which no block
                ends, or the latent does not divide evenly.
        """
        check_choice("resolution", self.resolution, sagan.Resolution)
        check_choice("attention", self.attention, AttentionKind)
        resolutions = sagan.generator_resolutions(self.resolution)
        check_attention("generator", self.attention_resolutions, resolutions)
        first, *widths = [self.base_channels * width for width in GENERATOR_WIDTHS[self.resolution]]
        start = kernel_initializer(self.initializer)

        parts: list[Array | None] = [None] * len(widths)
        if self.hierarchical:
            if latents.shape[1] % (len(widths) + 1):
                raise ValueError(
                    f"A hierarchical Generator of {self.resolution} pixels needs latents that divide evenly into "
                    f"{len(widths) + 1} parts; got {latents.shape[1]} entries."
                )
            latents, *rest = jnp.split(latents, len(widths) + 1, axis=1)
            parts = list(rest)
        shared = self._shared(labels, latents.dtype) if self.num_classes and self.shared_size else None

        features = nn.Dense(4 * 4 * first, kernel_init=start, name="linear")(latents)
        features = features.reshape(-1, 4, 4, first)
        for number, (width, size, part) in enumerate(zip(widths, resolutions, parts, strict=True), start=1):
            told_by = [vector for vector in (shared, part) if vector is not None]
            # Without a vector, the norms of a block have tables of their own, as in SAGAN.
            vector = jnp.concatenate(told_by, axis=1) if told_by else labels
            features = sagan.GeneratorBlock(
                width,
                vector.shape[1] if told_by and vector is not None else self.num_classes,
                self.norm_epsilon,
                self.norm_decay,
                "map" if told_by else "table",
                self.axis_name,
                self.initializer,
                self.folded,
                name=f"block_{number}",
            )(features, vector, train=train)
            if size in self.attention_resolutions:
                features = attention_layer(self.attention, size, self.initializer)(features)
        features = ConditionalBatchNorm(
            0, self.norm_epsilon, self.norm_decay, axis_name=self.axis_name, folded=self.folded, name="norm"
        )(features, None, train=train)
        return jnp.tanh(nn.Conv(self.image_channels, (3, 3), kernel_init=start, name="conv")(nn.relu(features)))

    def _shared(self, labels: Array | None, dtype: jnp.dtype) -> Array:
        """Returns the class's row of the shared embedding, or the mixture of rows, `[B, shared_size]`."""
        start = kernel_initializer(self.initializer)
        table = self.param("shared_embedding", start, (self.num_classes, self.shared_size), jnp.float32)
        if labels is None or not jnp.issubdtype(labels.dtype, jnp.floating):
            labels = jax.nn.one_hot(labels, self.num_classes, dtype=dtype)
        return jnp.matmul(labels.astype(dtype), table.astype(dtype), precision="highest")


class Discriminator(sagan.Discriminator):
    """D: SAGAN's, four times the base width throughout at 32 pixels, and started orthogonally.

    Source: ajbrock/BigGAN-PyTorch:BigGAN.py. (google/compare_gan leaves out the shortcut of the last block.)
    """

    base_channels: int = 96
    attention_resolutions: tuple[int, ...] = (64,)
    initializer: Initializer = "orthogonal"

    WIDTHS = DISCRIMINATOR_WIDTHS
