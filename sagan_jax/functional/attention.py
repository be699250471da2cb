"""Self-attention over image features, as equations: arrays in, arrays out."""

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.resampling import max_pool
from sagan_jax.functional.shape_checks import check_arrays, check_that


def attention_map(queries: Array, keys: Array) -> Array:
    """Returns beta, the weight that each query position gives to each key position.

        s_ij = f(x_i)^T g(x_j),    beta_ji = exp(s_ij) / sum_i exp(s_ij)            (1)

    Row j is a probability distribution over key positions i. As in the paper and in the authors' release, scores are
    *not* divided by sqrt(D); `jax.nn.dot_product_attention` does divide. Scores and softmax run in float32 or wider
    for every dtype of the operands. Products follow `jax.default_matmul_precision`.

    Args:
        queries: `[..., N, D]`, floating.
        keys: `[..., M, D]`, dtype and leading axes of `queries`.

    Returns:
        `[..., N, M]`, dtype of `queries`; each row sums to one. An infinite score gives NaN.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: Zhang et al. 2018 (arXiv:1805.08318), equation 1; brain-research/self-attention-gan:non_local.py.

    Examples:
        >>> import jax.numpy as jnp
        >>> attention_map(jnp.zeros((3, 2)), jnp.ones((4, 2)))[0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    check_arrays(
        "attention_map",
        one_dtype=True,
        queries=(queries, "floating [..., N, D]"),
        keys=(keys, "floating [..., M, D]"),
    )
    wide = jnp.promote_types(queries.dtype, jnp.float32)
    scores = jnp.einsum("...nd,...md->...nm", queries, keys, preferred_element_type=wide)
    return jax.nn.softmax(scores, axis=-1).astype(queries.dtype)


def attend(attention_map: Array, values: Array) -> Array:
    """Returns o, the average of the values under the weights of each query position.

        o_j = sum_i beta_ji h(x_i)                                                   (2)

    Args:
        attention_map: `[..., N, M]`, floating; rows that sum to one, as `attention_map` returns them.
        values: `[..., M, E]`, dtype and leading axes of `attention_map`.

    Returns:
        `[..., N, E]`, dtype of `values`; accumulated in float32 or wider.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: Zhang et al. 2018, equation 2, without the projection v.

    Examples:
        >>> import jax.numpy as jnp
        >>> attend(jnp.full((1, 2), 0.5), jnp.array([[1.0, 0.0], [3.0, 4.0]])).tolist()
        [[2.0, 2.0]]
    """
    check_arrays(
        "attend",
        one_dtype=True,
        attention_map=(attention_map, "floating [..., N, M]"),
        values=(values, "floating [..., M, E]"),
    )
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
    """Returns the features plus what each position gathers from all positions, and the attention map.

        beta = softmax((x W_f) pool(x W_g)^T),    o = beta pool(x W_h) W_v,    y = gamma o + x      (3)

    The kernels are 1x1 convolutions without bias. The **release** pools (`pool=2`) and has D = C/8, E = C/2 and an
    output kernel. The **article** does not pool (`pool=1`) and has D = C/8, E = C and no output kernel. Scores are not
    divided by sqrt(D). `gamma` starts at 0, where the layer is the identity.

    Args:
        features: `[..., H, W, C]`, floating: x. A batch of 0 gives an empty result.
        query_kernel: `[C, D]`, dtype of `features`: W_f, the release's theta.
        key_kernel: `[C, D]`: W_g, the release's phi.
        value_kernel: `[C, E]`: W_h, the release's g.
        output_kernel: `[E, C]`: W_v; None leaves it out and needs E = C.
        gamma: scalar gate; the release's `sigma_ratio`.
        pool: window of the max-pooling of keys and values: 1 or 2, a divisor of H and W.

    Returns:
        y `[..., H, W, C]` in the dtype of `features`, and the attention map `[..., H*W, (H/pool)*(W/pool)]`. Positions
        count row by row.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: brain-research/self-attention-gan:non_local.py (release); Zhang et al. 2018, section 3 (paper).

    Examples:
        >>> import jax.numpy as jnp
        >>> x, k = jnp.ones((4, 6, 8)), jnp.ones((8, 1))
        >>> y, beta = self_attention(x, k, k, jnp.ones((8, 4)), jnp.ones((4, 8)), 0.0, pool=2)
        >>> bool((y == x).all()), beta.shape
        (True, (24, 6))
    """
    sizes = check_arrays(
        "self_attention",
        one_dtype=True,
        features=(features, "floating [..., H, W, C]"),
        query_kernel=(query_kernel, "floating [C, D]"),
        key_kernel=(key_kernel, "floating [C, D]"),
        value_kernel=(value_kernel, "floating [C, E]"),
        output_kernel=(output_kernel, "floating [E, C]"),
        gamma=(gamma, "[]"),
    )
    fits = output_kernel is not None or sizes["E"] == sizes["C"]
    check_that("self_attention", fits, "an output_kernel, or E = C", f"None and value_kernel {value_kernel.shape}")
    fits = isinstance(pool, int) and pool in (1, 2) and sizes["H"] % pool == sizes["W"] % pool == 0
    check_that("self_attention", fits, "pool 1 or 2 that divides H and W", f"{pool} for features {features.shape}")

    # The gradient of x is summed in the order of these products; another order changes its last bits.
    queries = _merge_positions(features @ query_kernel)
    keys = _merge_positions(max_pool(features @ key_kernel, pool))
    beta = attention_map(queries, keys)
    gathered = attend(beta, _merge_positions(max_pool(features @ value_kernel, pool)))
    if output_kernel is not None:
        gathered = gathered @ output_kernel
    # In float32 or wider: the gradient of gamma is a sum over all features, which bfloat16 cannot hold.
    wide = jnp.promote_types(features.dtype, jnp.float32)
    gated = jnp.asarray(gamma, wide) * gathered.reshape(features.shape).astype(wide)
    return (gated + features.astype(wide)).astype(features.dtype), beta


def _merge_positions(features: Array) -> Array:
    """Merges height and width: `[..., H, W, D]` to `[..., H*W, D]`."""
    *leading, height, width, depth = features.shape
    return features.reshape(*leading, height * width, depth)  # not -1, which an empty batch leaves open
