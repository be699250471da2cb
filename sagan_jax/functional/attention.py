"""Self-attention over image features, as equations: arrays in, arrays out."""

import chex
import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.resampling import max_pool


def attention_map(queries: Array, keys: Array) -> Array:
    """Returns beta, the weight that each query position gives to each key position.

        s_ij = f(x_i)^T g(x_j),    beta_ji = exp(s_ij) / sum_i exp(s_ij)            (1)

    Row n is a probability distribution over key positions. Scores are *not* divided by sqrt(D), as in the paper
    and in the authors' release; `jax.nn.dot_product_attention` does divide. Scores and softmax run in float32 or
    wider whatever the operands' dtype; products follow `jax.default_matmul_precision`.

    Args:
        queries: `[..., N, D]`, floating.
        keys: `[..., M, D]`, dtype and leading axes of `queries`.

    Returns:
        `[..., N, M]`, dtype of `queries`; each row sums to one. An infinite score gives NaN.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: Zhang et al. 2018 (arXiv:1805.08318), equation 1; brain-research/self-attention-gan:non_local.py.

    >>> import jax.numpy as jnp
    >>> attention_map(jnp.zeros((3, 2)), jnp.ones((4, 2)))[0].tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    message = (
        f"attention_map needs queries [..., N, D] and keys [..., M, D] of one floating dtype; "
        f"got {queries.shape} {queries.dtype} and {keys.shape} {keys.dtype}."
    )
    chex.assert_scalar_non_negative(queries.ndim - 2, custom_message=message)
    chex.assert_type([queries, keys], float, custom_message=message)
    chex.assert_type(keys, queries.dtype, custom_message=message)
    chex.assert_shape(keys, (*queries.shape[:-2], None, queries.shape[-1]), custom_message=message)

    wide = jnp.promote_types(queries.dtype, jnp.float32)
    scores = jnp.einsum("...nd,...md->...nm", queries, keys, preferred_element_type=wide)
    return jax.nn.softmax(scores, axis=-1).astype(queries.dtype)


def attend(attention_map: Array, values: Array) -> Array:
    """Returns o, the values averaged with each query position's weights.

        o_j = sum_i beta_ji h(x_i)                                                   (2)

    Args:
        attention_map: `[..., N, M]`, floating; rows that sum to one, as `attention_map` returns them.
        values: `[..., M, E]`, dtype and leading axes of `attention_map`.

    Returns:
        `[..., N, E]`, dtype of `values`; accumulated in float32 or wider.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: Zhang et al. 2018, equation 2, without its last projection.

    >>> import jax.numpy as jnp
    >>> attend(jnp.full((1, 2), 0.5), jnp.array([[1.0, 0.0], [3.0, 4.0]])).tolist()
    [[2.0, 2.0]]
    """
    message = (
        f"attend needs an attention map [..., N, M] and values [..., M, E] of one floating dtype; "
        f"got {attention_map.shape} {attention_map.dtype} and {values.shape} {values.dtype}."
    )
    chex.assert_scalar_non_negative(attention_map.ndim - 2, custom_message=message)
    chex.assert_type([attention_map, values], float, custom_message=message)
    chex.assert_type(values, attention_map.dtype, custom_message=message)
    chex.assert_shape(values, (*attention_map.shape[:-2], attention_map.shape[-1], None), custom_message=message)

    wide = jnp.promote_types(values.dtype, jnp.float32)
    return jnp.einsum("...nm,...me->...ne", attention_map, values, preferred_element_type=wide).astype(values.dtype)


def self_attention(
    features: Array,
    query_kernel: Array,
    key_kernel: Array,
    value_kernel: Array,
    output_kernel: Array | None,
    gamma: Array | float,
    *,
    pool: int,
) -> tuple[Array, Array]:
    """Returns the features with what each position gathers from all others, and the map that it gathered with.

        beta = softmax((x W_f) pool(x W_g)^T),    o = beta pool(x W_h) W_v,    y = gamma o + x      (3)

    The kernels are 1x1 convolutions without bias. The **release** pools (`pool=2`), has D = C/8, E = C/2 and an
    output kernel; the **article** does not pool (`pool=1`), has D = C/8, E = C and no output kernel. The scores are
    not divided by sqrt(D). `gamma` starts at 0, where the layer is the identity.

    Args:
        features: `[..., H, W, C]`, floating: x.
        query_kernel: `[C, D]`, dtype of `features`: W_f, the release's theta.
        key_kernel: `[C, D]`: W_g, the release's phi.
        value_kernel: `[C, E]`: W_h, the release's g.
        output_kernel: `[E, C]`: W_v; None leaves it out and needs E = C.
        gamma: scalar gate; the release's `sigma_ratio`.
        pool: window of the max-pooling of keys and values, 1 or 2; divides H and W.

    Returns:
        The features `[..., H, W, C]` in their dtype, and the attention map `[..., H*W, (H/pool)*(W/pool)]`, whose
        positions count row by row.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: brain-research/self-attention-gan:non_local.py (release); Zhang et al. 2018, section 3 (paper).

    >>> import jax.numpy as jnp
    >>> x, k = jnp.ones((4, 6, 8)), jnp.ones((8, 1))
    >>> y, beta = self_attention(x, k, k, jnp.ones((8, 4)), jnp.ones((4, 8)), 0.0, pool=2)
    >>> bool((y == x).all()), beta.shape
    (True, (24, 6))
    """
    kernels = {"query": query_kernel, "key": key_kernel, "value": value_kernel}
    if output_kernel is not None:
        kernels["output"] = output_kernel
    message = (
        f"self_attention needs pool 1 or 2, features [..., H, W, C] with H and W divisible by it, query and key "
        f"kernels [C, D], a value kernel [C, E] and an output kernel [E, C] (or None with E = C), all of one floating "
        f"dtype; got pool={pool}, features {features.shape} {features.dtype} and "
        + ", ".join(f"{name} {kernel.shape} {kernel.dtype}" for name, kernel in kernels.items())
        + "."
    )
    chex.assert_scalar_in(pool, 1, 2, custom_message=message)
    chex.assert_scalar_non_negative(features.ndim - 3, custom_message=message)
    height, width, channels = features.shape[-3:]
    chex.assert_type(features, float, custom_message=message)
    chex.assert_type(list(kernels.values()), features.dtype, custom_message=message)
    chex.assert_is_divisible(height, pool, custom_message=message)
    chex.assert_is_divisible(width, pool, custom_message=message)
    chex.assert_shape(query_kernel, (channels, None), custom_message=message)
    chex.assert_shape(key_kernel, query_kernel.shape, custom_message=message)
    chex.assert_shape(value_kernel, (channels, channels if output_kernel is None else None), custom_message=message)
    if output_kernel is not None:
        chex.assert_shape(output_kernel, (value_kernel.shape[1], channels), custom_message=message)
    chex.assert_shape(gamma, (), custom_message=message)

    def positions(maps: Array) -> Array:
        """Merges height and width: `[..., H, W, D]` to `[..., H*W, D]`."""
        return maps.reshape(*maps.shape[:-3], -1, maps.shape[-1])

    beta = attention_map(positions(features @ query_kernel), positions(max_pool(features @ key_kernel, pool)))
    gathered = attend(beta, positions(max_pool(features @ value_kernel, pool)))
    if output_kernel is not None:
        gathered = gathered @ output_kernel
    gate = jnp.asarray(gamma, features.dtype)
    return gate * gathered.reshape(features.shape) + features, beta
