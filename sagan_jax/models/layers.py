"""Layers with parameters. Each is a thin flax module over a function of `sagan_jax.functional`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax
from jax.typing import DTypeLike

from sagan_jax.functional.attention import attention_map, attention_operands, self_attention
from sagan_jax.functional.convolution import convolve
from sagan_jax.functional.normalization import batch_moments, normalize, scale_and_shift
from sagan_jax.functional.resampling import convolve_pool, upsample_convolve

# The release uses this initializer for all convolutions, linear maps and embeddings (brain-research:ops.py).
glorot = nn.initializers.xavier_uniform()

# Parameters and statistics are created in float32, as in flax's own layers, even with x64 enabled.
_FLOAT = jnp.float32


def check_choice(field: str, value: Any, choices: Any) -> None:
    """Raises ValueError unless `value` is one of the values of the `Literal` type `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{field} needs to be one of {', '.join(map(repr, get_args(choices)))}; got {value!r}.")


Gain = Literal["table", "map", "free_map", "scaled_map"]
Initializer = Literal["xavier", "orthogonal"]
AttentionForm = Literal["release", "article"]


def kernel_initializer(name: Initializer) -> nn.initializers.Initializer:
    """Returns the initializer of kernels: Xavier uniform as in SAGAN's release, or orthogonal as in BigGAN."""
    check_choice("initializer", name, Initializer)
    return glorot if name == "xavier" else nn.initializers.orthogonal()


def _promote_operands(
    inputs: Array, kernel: Array, bias: Array | None, *, dtype: DTypeLike | None
) -> tuple[Array, Array, Array | None]:
    """Promotes inputs and kernel as flax does, but keeps the bias in float32.

    The gradient of a bias is a sum over all positions of all images, for which bfloat16 is too coarse.
    """
    inputs, kernel = promote_dtype(inputs, kernel, dtype=dtype)
    return inputs, kernel, bias


class Dense(nn.Dense):
    """`flax.linen.Dense` with the bias added in float32 or wider. The result is cast to `dtype`."""

    promote_dtype: Callable[..., Any] = _promote_operands

    def __call__(self, inputs: Array) -> Array:
        """Returns `[..., features]` of inputs `[..., C]`."""
        outputs = super().__call__(inputs)
        return outputs if self.dtype is None else outputs.astype(self.dtype)


class Conv(nn.Conv):
    """`flax.linen.Conv` with the bias added as in `Dense`."""

    promote_dtype: Callable[..., Any] = _promote_operands

    def __call__(self, inputs: Array) -> Array:
        """Returns `[B, ..., features]` of inputs `[B, ..., C]`."""
        outputs = super().__call__(inputs)
        return outputs if self.dtype is None else outputs.astype(self.dtype)


class ConvTranspose(nn.ConvTranspose):
    """`flax.linen.ConvTranspose` with the bias added as in `Dense`."""

    promote_dtype: Callable[..., Any] = _promote_operands

    def __call__(self, inputs: Array) -> Array:
        """Returns `[B, ..., features]` of inputs `[B, ..., C]`."""
        outputs = super().__call__(inputs)
        return outputs if self.dtype is None else outputs.astype(self.dtype)


def plain_convolution(
    features: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Any,
    *,
    precision: lax.PrecisionLike = None,
    **_: Any,
) -> Array:
    """Calls `convolve` with the signature that `flax.linen.Conv` expects of `conv_general_dilated`.

    The layer must be two-dimensional, with equal strides and without dilation or groups.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(features.shape[1:3], kernel.shape[:2], strides, padding)
    vertical, horizontal = padding
    return convolve(features, kernel, stride=strides[0], padding=(vertical, horizontal), precision=precision)


def upsampling_convolution(
    features: Array, kernel: Array, *_: Any, precision: lax.PrecisionLike = None, **__: Any
) -> Array:
    """Calls `upsample_convolve` with the signature that a 3x3 `flax.linen.Conv` expects of `conv_general_dilated`."""
    return upsample_convolve(features, kernel, precision=precision)


def pooling_convolution(
    features: Array, kernel: Array, *_: Any, precision: lax.PrecisionLike = None, **__: Any
) -> Array:
    """Calls `convolve_pool` with the signature that a 3x3 `flax.linen.Conv` expects of `conv_general_dilated`."""
    return convolve_pool(features, kernel, precision=precision)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and shift depend on the class. Without classes, plain batch normalisation.

    With K classes and C channels, `gain` is one of the following forms. Spectral norm of G applies to leaves whose
    names end in `kernel`.

    - "table", as in the release: scale and shift are rows of tables `[K, C]`, initialised to 1 and 0. They are never
      spectrally normalised.
    - "map", as in StudioGAN: the shift is a linear map of the one-hot label, and the scale is 1 plus another linear
      map. Their kernels, `scale_kernel` and `shift_kernel` `[K, C]`, are spectrally normalised. So the root mean square
      of a kernel's entries is at most 1/sqrt(max(K, C)); see `sagan_jax.models.class_gains`.
    - "free_map", as in mmgeneration: the same with kernels `scale_map` and `shift_map`. They are never spectrally
      normalised and not part of the orthogonal penalty.
    - "scaled_map": the same as "map", with each kernel multiplied by a learned factor: `scale_size sqrt(max(K, C))` and
      `shift_size sqrt(max(K, C))`. So a size is the largest root mean square that the entries of the product can have.
      It is initialised to 1/sqrt(max(K, C)), where the layer equals "map". One step of Adam moves it as far as an entry
      of a table.

    In BigGAN the input of the maps is a vector, and `num_classes` is its size. The running moments are biased estimates
    in the collection `"batch_stats"`. They are updated only when that collection is mutable.

    Attributes:
        num_classes: the number of classes; 0 for an unconditional scale and shift.
        epsilon: added to the variance.
        decay: the decay of the running moments.
        gain: how scale and shift depend on the label.
        axis_name: the mapped axis over which moments are averaged; with None, each device uses its own.
        initializer: the initializer of the kernels of the maps.
        folded: whether `sagan_jax.models.folding` has folded the running moments into scale and shift. The layer then
            has no running moments and only scales and shifts.
        dtype: the dtype of the result; None keeps that of the features. The layer computes in float32 or wider.

    Source: brain-research/self-attention-gan:ops.py, `ConditionalBatchNorm`;
    POSTECH-CVLab/PyTorch-StudioGAN:src/utils/ops.py, `ConditionalBatchNorm2d`;
    open-mmlab/mmgeneration:mmgen/models/architectures/sngan_proj/modules.py, `SNConditionNorm`. The scaled map is ours.
    """

    num_classes: int = 0
    epsilon: float = 1e-5
    decay: float = 0.999
    gain: Gain = "table"
    axis_name: str | None = None
    initializer: Initializer = "xavier"
    folded: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array, labels: Array | None, *, train: bool) -> Array:
        """Returns the normalised features.

        Args:
            features: `[B, ..., C]`, floating.
            labels: `[B]` int32, or mixtures of classes or vectors, floating `[B, num_classes]`. An unconditional layer
                ignores them.
            train: whether to use the moments of this batch instead of the running moments.

        Returns:
            `[B, ..., C]`.

        Raises:
            ValueError: when `gain` has an unknown value, or a folded layer is called with `train=True`.
        """
        check_choice("gain", self.gain, Gain)
        channels = features.shape[-1]
        dtype = features.dtype if self.dtype is None else self.dtype
        features = features.astype(jnp.promote_types(features.dtype, _FLOAT))
        if self.folded:
            if train:
                raise ValueError("A folded network has no running moments and needs train=False; got train=True.")
            scale, shift = self._scale_and_shift(labels, channels, features.dtype)
            return scale_and_shift(features, scale, shift).astype(dtype)
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
        return normalize(features, mean, variance, scale, shift, epsilon=self.epsilon).astype(dtype)

    def _scale_and_shift(self, labels: Array | None, channels: int, dtype: jnp.dtype) -> tuple[Array, Array]:
        """Returns scale and shift: `[C]` without classes, `[B, C]` with classes."""

        def scale_and_shift_of(shape: tuple[int, ...]) -> tuple[Array, Array]:
            scale = self.param("scale", nn.initializers.ones, shape, _FLOAT)
            return scale, self.param("shift", nn.initializers.zeros, shape, _FLOAT)

        if not self.num_classes:
            return scale_and_shift_of((channels,))
        shape = (self.num_classes, channels)
        # A product with a one-hot vector is an exact look-up, and its gradient needs no scatter.
        if labels is not None and jnp.issubdtype(labels.dtype, jnp.floating):
            weights = labels.astype(dtype)
        else:
            weights = jax.nn.one_hot(labels, self.num_classes, dtype=dtype)

        def rows(table: Array) -> Array:
            return jnp.matmul(weights, table, precision="highest")

        if self.gain == "table":
            scale, shift = scale_and_shift_of(shape)
            return rows(scale), rows(shift)
        scale, shift = map(rows, self._kernels(shape))
        if self.folded:  # folding turned the constant 1 and the mean into a scale and a shift per channel
            channel_scale, channel_shift = scale_and_shift_of((channels,))
            return channel_scale[None] + scale, channel_shift[None] + shift
        return 1.0 + scale, shift

    def _kernels(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Returns the kernels `[K, C]` of both maps. Folded layers have the leaves of "map" for every form of map."""
        # Spectral norm applies to leaves whose names end in `kernel`.
        leaf = "map" if self.gain == "free_map" and not self.folded else "kernel"
        kernel_init = kernel_initializer(self.initializer)
        scale = self.param(f"scale_{leaf}", kernel_init, shape, _FLOAT)
        shift = self.param(f"shift_{leaf}", kernel_init, shape, _FLOAT)
        if self.gain != "scaled_map" or self.folded:
            return scale, shift
        root = math.sqrt(max(shape))
        size_init = nn.initializers.constant(1 / root)
        scale_size = self.param("scale_size", size_init, (), _FLOAT)
        shift_size = self.param("shift_size", size_init, (), _FLOAT)
        return scale_size * root * scale, shift_size * root * shift


class SelfAttention(nn.Module):
    """The self-attention layer of SAGAN. It sows its `attention_map` `[B, N, M]` into `"intermediates"`.

    It also sows the map's operands, `attention_queries` `[B, N, D]` and `attention_keys` `[B, M, D]`. The output is
    computed without the map, so memory is linear in the number of positions unless the map is used. Under jit, a map
    that is sown but not used costs nothing.

    With `form="release"`, keys have C/8 channels and values C/2, both are max-pooled, and an output kernel maps back to
    C channels. With `form="article"`, keys have C/8 channels and values C, without pooling or output kernel.

    Attributes:
        form: "release" or "article".
        initializer: the initializer of the kernels.
        dtype: the dtype of the computation; None infers it from features and parameters. Scores and softmax are
            computed in float32 or wider.

    Source: brain-research/self-attention-gan:non_local.py, `sn_non_local_block_sim`.
    """

    form: AttentionForm = "release"
    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` plus gamma times the attention output."""
        check_choice("form", self.form, AttentionForm)
        kernel_init = kernel_initializer(self.initializer)
        channels = features.shape[-1]
        release = self.form == "release"
        keys, halved = attention_widths(channels)
        values = halved if release else channels
        features, query_kernel, key_kernel, value_kernel, output_kernel = promote_dtype(
            features,
            self.param("query_kernel", kernel_init, (channels, keys), _FLOAT),
            self.param("key_kernel", kernel_init, (channels, keys), _FLOAT),
            self.param("value_kernel", kernel_init, (channels, values), _FLOAT),
            self.param("output_kernel", kernel_init, (values, channels), _FLOAT) if release else None,
            dtype=self.dtype,
        )
        gamma = self.param("gamma", nn.initializers.zeros, (), _FLOAT)
        pool = 2 if release else 1
        if self.is_mutable_collection("intermediates"):
            queries, keys = attention_operands(features, query_kernel, key_kernel, pool=pool)
            self.sow("intermediates", "attention_map", attention_map(queries, keys))
            self.sow("intermediates", "attention_queries", queries)
            self.sow("intermediates", "attention_keys", keys)
        kernels = query_kernel, key_kernel, value_kernel, output_kernel
        return self_attention(features, *kernels, gamma, pool=pool, return_map=False)


def attention_widths(channels: int) -> tuple[int, int]:
    """Returns the channels of keys and of values in the release's attention layer: C/8 and C/2, at least 1.

    Examples:
        >>> attention_widths(256)
        (32, 128)
    """
    return max(1, channels // 8), max(1, channels // 2)


def attention_parameter_count(channels: int) -> int:
    """Returns the number of parameters of the release's attention layer: C^2/4 + C^2 + 1 if 8 divides C.

    Examples:
        >>> attention_parameter_count(256)
        81921
    """
    keys, values = attention_widths(channels)
    return 2 * channels * keys + 2 * channels * values + 1


def residual_parameter_count(channels: int, width: int) -> int:
    """Returns the number of parameters of two 3x3 convolutions C -> width -> C, biases included.

    Examples:
        >>> residual_parameter_count(256, 18)
        83218
    """
    return 2 * 9 * channels * width + width + channels


def residual_width(channels: int) -> int:
    """Returns the bottleneck width for which the parameter count of `ResidualControl` is closest to attention's.

    Examples:
        >>> residual_width(256)
        18
    """
    wanted = attention_parameter_count(channels)
    return min(range(1, channels + 1), key=lambda width: abs(residual_parameter_count(channels, width) - wanted))


class ResidualControl(nn.Module):
    """The residual control of the paper's Table 1: as many parameters as attention, but only local operations.

    It is a pre-activation bottleneck of two 3x3 convolutions with an identity shortcut. The authors did not release
    theirs. The paper only states that a residual block with the same number of parameters replaces the layer.

    Attributes:
        dtype: the dtype of the computation; None infers it from features and parameters.
    """

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` plus the output of the bottleneck."""
        channels = features.shape[-1]
        conv = partial(
            Conv, kernel_size=(3, 3), dtype=self.dtype, kernel_init=glorot, conv_general_dilated=plain_convolution
        )
        hidden = conv(residual_width(channels), name="conv_1")(nn.relu(features))
        return features + conv(channels, name="conv_2")(nn.relu(hidden))


def check_attention_resolutions(network: str, wanted: tuple[int, ...], resolutions: tuple[int, ...]) -> None:
    """Raises ValueError unless a block of the network ends at each of the wanted feature-map sizes."""
    absent = [size for size in wanted if size not in resolutions]
    if absent:
        raise ValueError(
            f"attention_resolutions of the {network} need to be among the feature-map sizes "
            f"{sorted(set(resolutions))}; got {list(wanted)}, and no block ends at {absent[0]}."
        )


def check_image_size(images: Array, resolution: int) -> None:
    """Raises ValueError unless images have the shape `[B, resolution, resolution, C]`."""
    if images.shape[1:3] != (resolution, resolution):
        raise ValueError(f"Discriminator needs images [B, {resolution}, {resolution}, C]; got {list(images.shape)}.")


def sum_positions(features: Array) -> Array:
    """Returns the sum over height and width, `[B, C]`, in float32 or wider, for features `[B, H, W, C]`."""
    return features.sum(axis=(1, 2), dtype=jnp.promote_types(features.dtype, _FLOAT))


def projection_logits(pooled: Array, labels: Array | None, num_classes: int, initializer: Initializer) -> Array:
    """Returns the logits `[B]` of pooled features `[B, C]`. With classes, the projection of the labels is added.

    Call this inside a compact method. The calling module owns the layers `linear` and `projection`.
    """
    kernel_init = kernel_initializer(initializer)
    logits = Dense(1, kernel_init=kernel_init, name="linear")(pooled)[:, 0]
    if not num_classes:
        return logits
    projected = Dense(num_classes, use_bias=False, kernel_init=kernel_init, name="projection")(pooled)
    return logits + (projected * jax.nn.one_hot(labels, num_classes, dtype=projected.dtype)).sum(axis=1)
