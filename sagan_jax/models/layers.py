"""Layers that own parameters: each a thin module over a free function of `sagan_jax.functional`."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array

from sagan_jax.functional.attention import self_attention
from sagan_jax.functional.normalization import batch_moments, scale_and_shift, standardize

# The release initialises every convolution, linear map and embedding with it (brain-research:ops.py).
glorot = nn.initializers.xavier_uniform()

# Parameters and statistics are float32 wherever they are made, as those of flax's own layers are, x64 or not.
_FLOAT = jnp.float32


def check_choice(field: str, value: Any, choices: Any) -> None:
    """Raises ValueError unless `value` is one of a `Literal`: a misspelt word would pick another network in silence."""
    if value not in get_args(choices):
        raise ValueError(f"{field} needs to be one of {', '.join(map(repr, get_args(choices)))}; got {value!r}.")


Gain = Literal["table", "map"]
Initializer = Literal["xavier", "orthogonal"]
AttentionForm = Literal["release", "article"]
AttentionKind = Literal["release", "article", "residual"]


def kernel_initializer(name: Initializer) -> nn.initializers.Initializer:
    """Returns how kernels start: `xavier` uniform as in SAGAN's release, or `orthogonal` as in BigGAN."""
    check_choice("initializer", name, Initializer)
    return glorot if name == "xavier" else nn.initializers.orthogonal()


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and shift depend on the class; with no classes, plain batch normalisation.

    The scale starts at 1. `gain="table"` looks up one row a class (the release, not spectrally normalised);
    `gain="map"` adds 1 to a linear map of the one-hot label, whose kernels are spectrally normalised with the others
    (StudioGAN); in BigGAN that map is of a vector, and `num_classes` is how many entries the vector has. Running
    moments are biased, in collection `"batch_stats"`, and move only when it is mutable.

    Attributes:
        num_classes: 0 for one scale and shift over all.
        epsilon: added to the variance.
        decay: share of the running moments that an update keeps.
        gain: how labels give the scale.
        axis_name: mapped axis over which moments are shared; None keeps them per device.
        initializer: of the kernels of `gain="map"`.
        folded: whether the running moments are part of scale and shift already, by `sagan_jax.models.folding`: the
            layer then has parameters only, and does not normalise.

    Source: brain-research/self-attention-gan:ops.py, `ConditionalBatchNorm`.
    """

    num_classes: int = 0
    epsilon: float = 1e-5
    decay: float = 0.999
    gain: Gain = "table"
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    folded: bool = False

    @nn.compact
    def __call__(self, features: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns the normalised features.

        Args:
            features: `[B, ..., C]`, floating.
            labels: `[B]` int32, or mixtures of classes or vectors `[B, num_classes]`, floating; not read without
                classes.
            train: use the moments of this batch rather than the running ones.

        Returns:
            `[B, ..., C]`.

        Raises:
            ValueError: when `gain` is none of its choices, or a folded layer is to use the moments of a batch.
        """
        check_choice("gain", self.gain, Gain)
        channels = features.shape[-1]
        if self.folded:
            if train:
                raise ValueError("A folded network normalises with the moments that it was folded with: train=False.")
            return scale_and_shift(features, *self._scale_and_shift(labels, channels, features.dtype))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), _FLOAT)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (channels,), _FLOAT)
        if train:
            axis_name = None if self.is_initializing() else self.axis_name
            mean, variance = batch_moments(features, axis_name=axis_name)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                for running, moment in ((running_mean, mean), (running_variance, variance)):
                    moved = self.decay * running.value + (1 - self.decay) * moment
                    running.value = moved.astype(running.value.dtype)
        else:
            mean, variance = running_mean.value, running_variance.value
        scale, shift = self._scale_and_shift(labels, channels, features.dtype)
        return scale_and_shift(standardize(features, mean, variance, epsilon=self.epsilon), scale, shift)

    def _scale_and_shift(self, labels: Array | None, channels: int, dtype: jnp.dtype) -> tuple[Array, Array]:
        """Returns scale and shift, `[C]` without classes and `[B, C]` with them."""

        def scale_and_shift_of(shape: tuple[int, ...]) -> tuple[Array, Array]:
            scale = self.param("scale", nn.initializers.ones, shape, _FLOAT)
            return scale, self.param("shift", nn.initializers.zeros, shape, _FLOAT)

        if not self.num_classes:
            return scale_and_shift_of((channels,))
        shape = (self.num_classes, channels)
        # A product with a one-hot row is an exact look-up, and its gradient is not a scatter.
        if labels is not None and jnp.issubdtype(labels.dtype, jnp.floating):
            weights = labels.astype(dtype)
        else:
            weights = jax.nn.one_hot(labels, self.num_classes, dtype=dtype)

        def rows(table: Array) -> Array:
            return jnp.matmul(weights, table, precision="highest")

        if self.gain == "table":
            scale, shift = scale_and_shift_of(shape)
            return rows(scale), rows(shift)
        start = kernel_initializer(self.initializer)
        scale = rows(self.param("scale_kernel", start, shape, _FLOAT))
        shift = rows(self.param("shift_kernel", start, shape, _FLOAT))
        if self.folded:  # the 1 that is added, and what it does to the mean, have become one number a channel
            own_scale, own_shift = scale_and_shift_of((channels,))
            return own_scale[None] + scale, own_shift[None] + shift
        return 1.0 + scale, shift


class SelfAttention(nn.Module):
    """The attention layer of SAGAN; sows its `attention_map` `[B, N, M]` into `"intermediates"`.

    `form="release"`: keys C/8 and values C/2 wide, both max-pooled, and an output kernel back to C.
    `form="article"`: keys C/8 and values C wide, no pooling, no output kernel.

    Source: brain-research/self-attention-gan:non_local.py, `sn_non_local_block_sim`.
    """

    form: AttentionForm = "release"
    initializer: Initializer = "xavier"

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` with what each position gathered."""
        check_choice("form", self.form, AttentionForm)
        start = kernel_initializer(self.initializer)
        channels = features.shape[-1]
        release = self.form == "release"
        narrow, halved = attention_widths(channels)
        values = halved if release else channels
        operands = promote_dtype(
            features,
            self.param("query_kernel", start, (channels, narrow), _FLOAT),
            self.param("key_kernel", start, (channels, narrow), _FLOAT),
            self.param("value_kernel", start, (channels, values), _FLOAT),
            self.param("output_kernel", start, (values, channels), _FLOAT) if release else None,
            self.param("gamma", nn.initializers.zeros, (), _FLOAT),
            dtype=None,
        )
        features, attention_map = self_attention(*operands, pool=2 if release else 1)
        self.sow("intermediates", "attention_map", attention_map)
        return features


def attention_widths(channels: int) -> tuple[int, int]:
    """Returns the widths of keys and of values in the release's attention layer: C/8 and C/2, at least 1.

    >>> attention_widths(256)
    (32, 128)
    """
    return max(1, channels // 8), max(1, channels // 2)


def attention_parameters(channels: int) -> int:
    """Returns how many parameters the release's attention layer has: C^2/4 + C^2 + 1 where 8 divides C.

    >>> attention_parameters(256)
    81921
    """
    narrow, values = attention_widths(channels)
    return 2 * channels * narrow + 2 * channels * values + 1


def residual_parameters(channels: int, width: int) -> int:
    """Returns how many parameters the bottleneck C -> width -> C of two 3x3 convolutions has, biases included.

    >>> residual_parameters(256, 18)
    83218
    """
    return 2 * 9 * channels * width + width + channels


def residual_width(channels: int) -> int:
    """Returns the bottleneck's width whose parameters come nearest to those of the attention layer.

    >>> residual_width(256)
    18
    """
    wanted = attention_parameters(channels)
    return min(range(1, channels + 1), key=lambda width: abs(residual_parameters(channels, width) - wanted))


class ResidualControl(nn.Module):
    """The control of the paper's Table 1: as many parameters as attention, but every step is local.

    A pre-activated bottleneck of two 3x3 convolutions around an identity shortcut. The authors did not release
    theirs; the paper says only that the layer is replaced by a residual block with the same number of parameters.
    """

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` with what the bottleneck adds."""
        channels = features.shape[-1]
        hidden = nn.Conv(residual_width(channels), (3, 3), kernel_init=glorot, name="conv_1")(nn.relu(features))
        return features + nn.Conv(channels, (3, 3), kernel_init=glorot, name="conv_2")(nn.relu(hidden))


def attention_layer(kind: AttentionKind, resolution: int, initializer: Initializer = "xavier") -> nn.Module:
    """Returns what sits at an attention place of a network; its name carries the feature-map size."""
    name = f"attention_{resolution}"
    if kind == "residual":
        return ResidualControl(name=name)
    return SelfAttention(form=kind, initializer=initializer, name=name)


def check_attention(network: str, wanted: tuple[int, ...], resolutions: tuple[int, ...]) -> None:
    """Raises ValueError unless some block of the network ends at each of the wanted feature-map sizes."""
    absent = [size for size in wanted if size not in resolutions]
    if absent:
        raise ValueError(
            f"attention_resolutions of the {network} needs feature-map sizes out of {sorted(set(resolutions))}; "
            f"got {list(wanted)}, and no block ends at {absent[0]}."
        )


def check_image_size(images: Array, resolution: int) -> None:
    """Raises ValueError unless images `[B, H, W, C]` are squares of that many pixels a side."""
    if images.shape[1:3] != (resolution, resolution):
        raise ValueError(f"Discriminator needs images [B, {resolution}, {resolution}, C]; got {list(images.shape)}.")


def projection_logits(pooled: Array, labels: Array | None, num_classes: int, initializer: Initializer) -> Array:
    """Returns the logits `[B]` of pooled features `[B, C]`, with projection of the labels where there are classes.

    To be called inside a network, which owns the layers `linear` and `projection` that are made here.
    """
    start = kernel_initializer(initializer)
    logits = nn.Dense(1, kernel_init=start, name="linear")(pooled)[:, 0]
    if not num_classes:
        return logits
    projected = nn.Dense(num_classes, use_bias=False, kernel_init=start, name="projection")(pooled)
    return logits + (projected * jax.nn.one_hot(labels, num_classes, dtype=projected.dtype)).sum(axis=1)
