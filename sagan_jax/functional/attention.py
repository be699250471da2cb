"""Self-attention over image features, as equations: arrays in, arrays out."""

import math
from functools import partial
from typing import Literal, overload

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.fused_attention import fused_attention, has_fused_attention, takes_fused
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
        `[..., N, M]`, dtype of `queries`; each row sums to one. A score of +inf, or only -inf in a row, gives NaN.

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


def attend_positions(queries: Array, keys: Array, values: Array) -> Array:
    """Returns `attend(attention_map(queries, keys), values)`, with memory linear in the number of positions.

    A large attention map is computed in blocks of queries, and each block is recomputed in the backward pass. A small
    map is computed at once. Scores and softmax run in float32 or wider. Derivatives of any order, forward mode, `vmap`
    and `jit` work.

    On CUDA devices of compute capability 8 or more, bfloat16 operands use cuDNN's fused attention if it supports their
    sizes: E a multiple of 8 up to 128, D at most E. Forward mode raises an error there.

    Args:
        queries: `[..., N, D]`, floating.
        keys: `[..., M, D]`, dtype and leading axes of `queries`.
        values: `[..., M, E]`, dtype and leading axes of `queries`.

    Returns:
        `[..., N, E]`, dtype of `values`. A score of +inf, or only -inf in a row of the map, gives NaN.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Source: Zhang et al. 2018, equations 1 and 2; in blocks as in Rabe and Staats 2021 (arXiv:2112.05682).

    Examples:
        >>> import jax.numpy as jnp
        >>> values = jnp.array([[1.0, 0.0], [3.0, 4.0]])
        >>> attend_positions(jnp.zeros((1, 5)), jnp.ones((2, 5)), values).tolist()
        [[2.0, 2.0]]
    """
    sizes = check_arrays(
        "attend_positions",
        one_dtype=True,
        queries=(queries, "floating [..., N, D]"),
        keys=(keys, "floating [..., M, D]"),
        values=(values, "floating [..., M, E]"),
    )
    *leading, _, _ = queries.shape
    operands = [x.reshape(math.prod(leading), *x.shape[-2:]) for x in (queries, keys, values)]
    fused = {"cuda": fused_attention(_attend_in_parallel)} if takes_fused(*operands) and has_fused_attention() else {}
    gathered = jax.lax.platform_dependent(*operands, cpu=_attend_on_cpu, default=_attend_in_parallel, **fused)
    return gathered.reshape(*leading, sizes["N"], sizes["E"])


# Numbers of map entries. On a CPU, a block of rows and its gradients should fit in the cache; measured by
# experiments/benchmarks/attention_speed.py. Up to 2**21 entries, whole maps are as fast as blocks.
_CPU_WHOLE, _CPU_BLOCK = 2**21, 2**20
# Products with fewer rows are slow: with 64 rows of 16384 keys, a forward pass took 1.5 times as long.
_CPU_LEAST_ROWS = 128
# Other devices process all images in parallel. Maps of an image are whole up to 64x64 positions with pooled keys.
# Larger maps are computed in blocks of 4 MiB per image in float32. Not tuned.
_IMAGE_WHOLE, _IMAGE_BLOCK = 2**22, 2**20


def _attend_on_cpu(queries: Array, keys: Array, values: Array) -> Array:
    """Attends `[B, N, D]` with whole maps if they are small. Otherwise takes some images, or rows of one, at a time."""
    batch, rows = queries.shape[:2]
    image_size = rows * keys.shape[1]
    if not isinstance(batch, int):  # a symbolic batch size, in an exported function
        return _attend_in_parallel(queries, keys, values)
    if batch * image_size <= _CPU_WHOLE:
        return attend(attention_map(queries, keys), values)
    images = _CPU_BLOCK // image_size
    attend_image = partial(_attend_rows, rows=rows if images else max(_CPU_LEAST_ROWS, _CPU_BLOCK // keys.shape[1]))
    operands = (queries, keys, values)
    if images <= 1:  # a batch of one image would be slower
        return jax.lax.map(lambda image: attend_image(*image), operands)
    return jax.lax.map(lambda image: attend_image(*image), operands, batch_size=images)


def _attend_in_parallel(queries: Array, keys: Array, values: Array) -> Array:
    """Attends `[B, N, D]` for all images in parallel, with whole maps if they are small, else in blocks of rows."""
    if queries.shape[1] * keys.shape[1] <= _IMAGE_WHOLE:
        return attend(attention_map(queries, keys), values)
    return jax.vmap(partial(_attend_rows, rows=max(1, _IMAGE_BLOCK // keys.shape[1])))(queries, keys, values)


def _attend_rows(queries: Array, keys: Array, values: Array, *, rows: int) -> Array:
    """Attends `[N, D]` in blocks of `rows` rows of the map. The backward pass recomputes each block."""
    # Gradients of keys and values are sums over the blocks. Wide operands make these sums float32.
    wide_keys, wide_values = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (keys, values))

    @partial(jax.checkpoint, prevent_cse=False)  # inside a loop, XLA cannot merge the recomputation
    def attend_block(block: Array) -> Array:
        beta = attention_map(block, wide_keys.astype(keys.dtype))
        return attend(beta, wide_values.astype(values.dtype))

    count = -(-len(queries) // rows)
    if count == 1:
        return attend_block(queries)
    size = -(-len(queries) // count)
    padded = jnp.pad(queries, ((0, count * size - len(queries)), (0, 0)))
    gathered = jax.lax.map(attend_block, padded.reshape(count, size, -1))
    return gathered.reshape(count * size, -1)[: len(queries)]


def attention_rows(queries: Array, keys: Array, positions: Array) -> Array:
    """Returns some rows of `attention_map(queries, keys)`, without computing the others.

    Args:
        queries: `[..., N, D]`, floating.
        keys: `[..., M, D]`, dtype and leading axes of `queries`.
        positions: `[P]`, integers from 0 to N - 1.

    Returns:
        `[..., P, M]`, dtype of `queries`; each row sums to one. A position out of range gives NaN.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> attention_rows(jnp.zeros((9, 3)), jnp.ones((2, 3)), jnp.array([7])).tolist()
        [[0.5, 0.5]]
    """
    positions = jnp.asarray(positions)
    check_arrays(
        "attention_rows",
        one_dtype=True,
        queries=(queries, "floating [..., N, D]"),
        keys=(keys, "floating [..., M, D]"),
        positions=(positions, "[P]"),
    )
    integers = jnp.issubdtype(positions.dtype, jnp.integer)
    check_that("attention_rows", integers, "integer positions", positions.dtype)
    chosen = queries.at[..., positions, :].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return attention_map(chosen, keys)


@overload
def self_attention(
    features: Array,
    query_kernel: Array,
    key_kernel: Array,
    value_kernel: Array,
    output_kernel: Array | None,
    gamma: Array | float,
    *,
    pool: int,
    return_map: Literal[True] = True,
) -> tuple[Array, Array]: ...


@overload
def self_attention(
    features: Array,
    query_kernel: Array,
    key_kernel: Array,
    value_kernel: Array,
    output_kernel: Array | None,
    gamma: Array | float,
    *,
    pool: int,
    return_map: Literal[False],
) -> Array: ...


def self_attention(
    features: Array,
    query_kernel: Array,
    key_kernel: Array,
    value_kernel: Array,
    output_kernel: Array | None,
    gamma: Array | float,
    *,
    pool: int,
    return_map: bool = True,
) -> tuple[Array, Array] | Array:
    """Returns the output of a self-attention layer with a residual connection, and its attention map.

        beta = softmax((x W_f) pool(x W_g)^T),    o = beta pool(x W_h) W_v,    y = gamma o + x      (3)

    The kernels are 1x1 convolutions without bias. The **release** pools (`pool=2`) and has D = C/8, E = C/2 and an
    output kernel. The **article** does not pool (`pool=1`) and has D = C/8, E = C and no output kernel. Scores are not
    divided by sqrt(D). `gamma` starts at 0; the layer is then the identity. The article's float32 map of 128 x 128
    positions takes 1 GiB. With `return_map=False`, memory is linear in the number of positions, as in
    `attend_positions`.

    Args:
        features: `[..., H, W, C]`, floating: x. A batch of 0 gives an empty result.
        query_kernel: `[C, D]`, dtype of `features`: W_f, the release's theta.
        key_kernel: `[C, D]`: W_g, the release's phi.
        value_kernel: `[C, E]`: W_h, the release's g.
        output_kernel: `[E, C]`: W_v; None omits the projection and requires E = C.
        gamma: scalar gate; the release's `sigma_ratio`.
        pool: window of the max-pooling of keys and values: 1 or 2, a divisor of H and W.
        return_map: whether to return the map too; static under jit.

    Returns:
        y `[..., H, W, C]` in the dtype of `features`, and the attention map `[..., H*W, (H/pool)*(W/pool)]`. Positions
        are in row-major order. With `return_map=False`, y alone.

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
    _check_self_attention(features, query_kernel, key_kernel, value_kernel, output_kernel, gamma, pool)
    # The gradient of x is summed in the order of these products; another order changes its last bits.
    queries, keys = attention_operands(features, query_kernel, key_kernel, pool=pool)
    beta = attention_map(queries, keys) if return_map else None
    values = _merge_positions(max_pool(features @ value_kernel, pool))
    gathered = attend_positions(queries, keys, values) if beta is None else attend(beta, values)
    if output_kernel is not None:
        gathered = gathered @ output_kernel
    # In float32 or wider: the gradient of gamma is a sum over all features, for which bfloat16 is too coarse.
    wide = jnp.promote_types(features.dtype, jnp.float32)
    gated = jnp.asarray(gamma, wide) * gathered.reshape(features.shape).astype(wide)
    y = (gated + features.astype(wide)).astype(features.dtype)
    return y if beta is None else (y, beta)


def _check_self_attention(
    features: Array,
    query_kernel: Array,
    key_kernel: Array,
    value_kernel: Array,
    output_kernel: Array | None,
    gamma: Array | float,
    pool: int,
) -> None:
    """Raises AssertionError, at trace time, when the arguments of `self_attention` do not fit."""
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


def attention_operands(features: Array, query_kernel: Array, key_kernel: Array, *, pool: int) -> tuple[Array, Array]:
    """Returns the queries and keys of `self_attention`, from which `attention_map` computes the map.

    Args:
        features: `[..., H, W, C]`, floating.
        query_kernel: `[C, D]`, dtype of `features`.
        key_kernel: `[C, D]`.
        pool: window of the max-pooling of keys.

    Returns:
        Queries `[..., H*W, D]` and keys `[..., (H/pool)*(W/pool), D]`.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> x, k = jnp.ones((4, 6, 8)), jnp.ones((8, 1))
        >>> [operand.shape for operand in attention_operands(x, k, k, pool=2)]
        [(24, 1), (6, 1)]
    """
    check_arrays(
        "attention_operands",
        one_dtype=True,
        features=(features, "floating [..., H, W, C]"),
        query_kernel=(query_kernel, "floating [C, D]"),
        key_kernel=(key_kernel, "floating [C, D]"),
    )
    return _merge_positions(features @ query_kernel), _merge_positions(max_pool(features @ key_kernel, pool))


def _merge_positions(features: Array) -> Array:
    """Merges height and width: `[..., H, W, D]` to `[..., H*W, D]`."""
    *leading, height, width, depth = features.shape
    return features.reshape(*leading, height * width, depth)  # not -1, which is ambiguous for an empty batch
