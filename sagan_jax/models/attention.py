"""Layers for the attention positions of a network: built-in layers by name, and user-defined layers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.functional.attention import attend_positions, attention_map
from sagan_jax.functional.resampling import max_pool
from sagan_jax.models.layers import (
    Dense,
    Initializer,
    ResidualControl,
    SelfAttention,
    attention_widths,
    check_choice,
    kernel_initializer,
)

AttentionKind = Literal["release", "article", "multi_head", "uniform", "squeeze_excite", "residual", "none"]

# Parameters are created in float32, as in `sagan_jax.models.layers`.
_FLOAT = jnp.float32


class AttentionModule(Protocol):
    """The interface of a user-defined layer: features in, features of the same shape out.

    It is a flax linen module, a module class, or a function. A class is constructed without arguments at each position;
    if it has a field `dtype`, that is set to the dtype of the computation. The layer has only parameters. It gets no
    `train` argument, so it can have no running statistics and no dropout. Parameters whose names end in `kernel` are
    spectrally normalised if the network is. A scalar parameter `gamma` is logged.

    A layer that calls `self.sow("intermediates", "attention_map", weights)` appears in all attention figures. The
    weights are `[B, N, M]` or `[B, heads, N, M]`, floating and nonnegative, and rows sum to one. There are N = H W
    query positions and M = (H/p) (W/p) key positions, with p = 1 for keys that are not pooled. Both are in row-major
    order. Figures show the mean over the heads.
    """

    def __call__(self, features: Array, /) -> Array:
        """Returns new features.

        Args:
            features: `[B, H, W, C]`, floating; H and W are the feature-map size at this position.

        Returns:
            `[B, H, W, C]` in the dtype of `features`. A wider floating dtype is cast to it.
        """
        ...


Attention = AttentionKind | AttentionModule | Callable[..., Any]
"""The name of a built-in layer, or a user-defined layer; see `AttentionModule`."""


class BrokenContractError(ValueError):
    """A user-defined layer did not return features of the shape and dtype of its input."""


class UniformAttention(nn.Module):
    """Self-attention with uniform weights instead of a learned map: a control for the value of the release's map.

        o_j = 1/M sum_i h(x_i),    y = gamma o W_v + x

    It has the parameters of `SelfAttention` in the release's form, initialised to the same values for the same seed.
    The kernels of queries and keys are unused and get no gradient. It sows the same intermediates as that layer; each
    entry of the map is 1/M.

    Attributes:
        initializer: the initializer of the kernels.
        dtype: the dtype of the computation; None infers it from features and parameters. The mean is computed in
            float32 or wider.
    """

    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]`, H and W even, plus gamma times the mean."""
        kernel_init = kernel_initializer(self.initializer)
        channels = features.shape[-1]
        keys, values = attention_widths(channels)
        features, _, _, value_kernel, output_kernel = promote_dtype(
            features,
            self.param("query_kernel", kernel_init, (channels, keys), _FLOAT),
            self.param("key_kernel", kernel_init, (channels, keys), _FLOAT),
            self.param("value_kernel", kernel_init, (channels, values), _FLOAT),
            self.param("output_kernel", kernel_init, (values, channels), _FLOAT),
            dtype=self.dtype,
        )
        gamma = self.param("gamma", nn.initializers.zeros, (), _FLOAT)
        pooled = max_pool(features @ value_kernel, 2)
        if self.is_mutable_collection("intermediates"):
            batch, height, width, _ = features.shape
            # Equal scores make equal weights.
            queries = jnp.zeros((batch, height * width, 1), features.dtype)
            keys = jnp.zeros((batch, pooled.shape[1] * pooled.shape[2], 1), features.dtype)
            _sow_map(self, queries, keys)
        wide = jnp.promote_types(features.dtype, _FLOAT)
        mean = pooled.mean(axis=(1, 2), keepdims=True, dtype=wide).astype(features.dtype)
        return _gated(gamma, mean @ output_kernel, features)


class MultiHeadAttention(nn.Module):
    """Multi-head attention as in a transformer, with SAGAN's gate: y = gamma MultiHead(x) + x, where gamma starts at 0.

        o = concat_h softmax(q_h k_h^T / sqrt(d)) v_h,    y = gamma o W_o + x,    d = C / heads

    Keys are not pooled, and there are no biases. The layer sows its map `attention_map` `[B, heads, N, N]`. It also
    sows the operands of the map, `attention_queries` (divided by sqrt(d)) and `attention_keys`, both
    `[B, heads, N, d]`. As in `SelfAttention`, the output is computed without the map.

    Attributes:
        num_heads: the maximum number of heads. The layer uses the greatest common divisor of this and C.
        initializer: the initializer of the kernels, each `[C, C]`.
        dtype: the dtype of the computation; None infers it from features and parameters. Scores and softmax are
            computed in float32 or wider.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2; `flax.linen.MultiHeadDotProductAttention`.
    """

    num_heads: int = 4
    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]` plus gamma times the attention output."""
        kernel_init = kernel_initializer(self.initializer)
        batch, height, width, channels = features.shape
        heads = math.gcd(self.num_heads, channels)
        names = ("query_kernel", "key_kernel", "value_kernel", "output_kernel")
        features, query_kernel, key_kernel, value_kernel, output_kernel = promote_dtype(
            features, *(self.param(name, kernel_init, (channels, channels), _FLOAT) for name in names), dtype=self.dtype
        )
        gamma = self.param("gamma", nn.initializers.zeros, (), _FLOAT)

        def split(kernel: Array) -> Array:
            projected = (features @ kernel).reshape(batch, height * width, heads, channels // heads)
            return projected.swapaxes(1, 2)

        queries, keys, values = split(query_kernel), split(key_kernel), split(value_kernel)
        queries = queries * (channels // heads) ** -0.5
        if self.is_mutable_collection("intermediates"):
            _sow_map(self, queries, keys)
        gathered = attend_positions(queries, keys, values).swapaxes(1, 2).reshape(features.shape)
        return _gated(gamma, gathered @ output_kernel, features)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: one weight for each channel of each image, the same at all positions. It sows no map.

        s = mean_j x_j,    e = sigmoid(relu(s W_1 + b_1) W_2 + b_2),    y_j = e x_j

    Attributes:
        reduction: the first layer has C / reduction channels, at least 1.
        initializer: the initializer of the kernels.
        dtype: the dtype of the computation; None infers it from features and parameters. The mean is computed in
            float32 or wider.

    Source: Hu et al. 2018 (arXiv:1709.01507), equations 2 to 4, with the biases of its released code.
    """

    reduction: int = 16
    initializer: Initializer = "xavier"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the features `[B, H, W, C]`, each channel scaled by a number in (0, 1)."""
        kernel_init = kernel_initializer(self.initializer)
        channels = features.shape[-1]
        wide = jnp.promote_types(features.dtype, _FLOAT)
        squeezed = features.mean(axis=(1, 2), dtype=wide).astype(features.dtype)
        hidden = Dense(max(1, channels // self.reduction), dtype=self.dtype, kernel_init=kernel_init, name="squeeze")
        excite = Dense(channels, dtype=self.dtype, kernel_init=kernel_init, name="excite")
        weights = jax.nn.sigmoid(excite(nn.relu(hidden(squeezed))))
        return features * weights[:, None, None].astype(features.dtype)


class FunctionLayer(nn.Module):
    """Wraps a function of features as a module, which owns the modules that the function creates."""

    function: Callable[..., Any]

    @nn.compact
    def __call__(self, features: Array) -> Any:
        """Returns the output of the function."""
        return self.function(features)


def check_attention(attention: Any) -> None:
    """Raises ValueError unless `attention` is the name of a built-in layer, a class, a module or a function."""
    if not callable(attention):
        check_choice("attention", attention, AttentionKind)


def attention_layer(
    attention: Attention, resolution: int, initializer: Initializer = "xavier", dtype: DTypeLike | None = None
) -> Callable[[Array], Array]:
    """Returns the layer for one of a network's `attention_resolutions`. Its name contains the feature-map size.

    Call this inside a compact method. The calling module owns the layer.

    Args:
        attention: a name, or a user-defined layer. Each call checks the output of a user-defined layer, and raises
            `BrokenContractError` if its shape or dtype is wrong.
        resolution: the feature-map size.
        initializer: the initializer of the kernels of built-in layers.
        dtype: the dtype of the computation.
    """
    name = f"attention_{resolution}"
    if callable(attention):
        return _checked(_users_layer(attention, name, dtype), attention)
    if attention == "none":
        return lambda features: features
    if attention == "residual":
        return ResidualControl(dtype=dtype, name=name)
    if attention == "uniform":
        return UniformAttention(initializer, dtype, name=name)
    if attention == "multi_head":
        return MultiHeadAttention(initializer=initializer, dtype=dtype, name=name)
    if attention == "squeeze_excite":
        return SqueezeExcite(initializer=initializer, dtype=dtype, name=name)
    return SelfAttention(form=attention, initializer=initializer, dtype=dtype, name=name)


def _users_layer(given: Any, name: str, dtype: DTypeLike | None) -> Callable[[Array], Any]:
    """Returns a user's class, module or function as a named module, which the calling module owns."""
    is_class = isinstance(given, type) and issubclass(given, nn.Module)
    if not is_class and not isinstance(given, nn.Module):
        return FunctionLayer(given, name=name)
    fields = [field.name for field in dataclasses.fields(given) if field.init and field.name not in ("parent", "name")]
    values = {} if is_class else {field: getattr(given, field) for field in fields}
    if dtype is not None and "dtype" in fields and values.get("dtype") is None:
        values["dtype"] = dtype
    made: Any = given if is_class else type(given)
    return made(**values, name=name)


def _checked(layer: Callable[[Array], Any], given: Any) -> Callable[[Array], Array]:
    """Returns the layer with a check of its output."""

    def call(features: Array) -> Array:
        found = layer(features)
        shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
        is_array = shape is not None and dtype is not None
        wide_enough = is_array and jnp.promote_types(dtype, features.dtype) == dtype
        if not wide_enough or shape != features.shape or not jnp.issubdtype(dtype, jnp.floating):
            got = f"{dtype} {list(shape)}" if is_array else f"a {type(found).__name__}"
            raise BrokenContractError(
                f"The attention layer {getattr(given, '__name__', type(given).__name__)} needs to return features "
                f"of {features.dtype} {list(features.shape)}, like its input; got {got}."
            )
        return found.astype(features.dtype)

    return call


def _sow_map(layer: nn.Module, queries: Array, keys: Array) -> None:
    """Sows a map and its operands. Under jit, sown values that are not used cost nothing."""
    layer.sow("intermediates", "attention_map", attention_map(queries, keys))
    layer.sow("intermediates", "attention_queries", queries)
    layer.sow("intermediates", "attention_keys", keys)


def _gated(gamma: Array, gathered: Array, features: Array) -> Array:
    """Returns `gamma gathered + features`, summed as in `sagan_jax.functional.self_attention`."""
    wide = jnp.promote_types(features.dtype, _FLOAT)
    return (gamma.astype(wide) * gathered.astype(wide) + features.astype(wide)).astype(features.dtype)
