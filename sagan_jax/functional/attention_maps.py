"""Statistics of attention maps: distance, entropy, top keys, and the rollup through several layers.

A map is `[..., N, M]` with rows that sum to one. It has N = H W query positions and M = h w key positions, both in
row-major order. A key covers a square of query positions. The square is one position in the article's form. In the
release's form it is 2x2 positions, because keys are pooled.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.functional.attention import attention_rows
from sagan_jax.functional.shape_checks import check_arrays, check_that

Shape = tuple[int, int]
"""Height and width, in positions."""


def attention_entropy(attention_map: Array) -> Array:
    """Returns the entropy of each row, which measures how spread out the attention of a query is.

        - sum_m p_m log p_m

    Args:
        attention_map: `[..., N, M]`, floating, at least 0, rows that sum to one.

    Returns:
        `[..., N]` in nats, float32 or wider. It is 0 for a row with all weight on one key, log M for a uniform row, and
        NaN for a row with a NaN.

    Raises:
        AssertionError: at trace time, when the shape or the dtype does not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> attention_entropy(jnp.array([[1.0, 0.0]])).tolist()
        [0.0]
    """
    rows = _float32_map("attention_entropy", attention_map)
    present = ~(rows <= 0)  # True for a NaN, so that its row does not get the entropy 0
    # The inner `where` also keeps the logarithm of 0 out of the gradient.
    return jnp.where(present, -rows * jnp.log(jnp.where(present, rows, 1)), 0).sum(axis=-1)


def attention_distance(attention_map: Array, *, query_shape: Shape, key_shape: Shape) -> Array:
    """Returns the attention distance of each query: its mean distance to the keys, weighted by its row of the map.

        sum_m p_m |x_n - y_m|

    Distances are from the center of the query position to the center of the square that a key covers. So a query that
    attends only to its own pooled key has a small positive distance.

    Args:
        attention_map: `[..., N, M]`, floating, rows that sum to one.
        query_shape: H and W, with N = H W.
        key_shape: h and w, with M = h w.

    Returns:
        `[..., N]` in units of query positions, float32 or wider. Multiply by the width of a position in pixels to get
        pixels.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Source: Dosovitskiy et al. 2021, figure 7, which averages over images and positions.

    Examples:
        >>> import jax.numpy as jnp
        >>> attention_distance(jnp.array([[0.5, 0.5], [0.0, 1.0]]), query_shape=(1, 2), key_shape=(1, 2)).tolist()
        [0.5, 0.0]
    """
    rows = _float32_map("attention_distance", attention_map, query_shape, key_shape)
    distances = _distances(query_shape, key_shape).astype(rows.dtype)
    return jnp.einsum("...nm,nm->...n", rows, distances, precision="highest")


_ENTRIES_AT_ONCE = 2**22
"""Number of map entries, over all images, that `attention_spread` computes at once: 16 MiB."""


def attention_spread(queries: Array, keys: Array, *, query_shape: Shape, key_shape: Shape) -> tuple[Array, Array]:
    """Returns `attention_distance` and `attention_entropy` of `attention_map(queries, keys)`, in blocks of rows.

    Args:
        queries: `[..., N, D]`, floating.
        keys: `[..., M, D]`, dtype and leading axes of `queries`.
        query_shape: H and W, with N = H W.
        key_shape: h and w, with M = h w.

    Returns:
        Distances `[..., N]` in units of query positions and entropies `[..., N]` in nats, float32 or wider.

    Raises:
        AssertionError: at trace time, when the shapes or dtypes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> distance, _ = attention_spread(jnp.zeros((2, 3)), jnp.ones((2, 3)), query_shape=(1, 2), key_shape=(1, 2))
        >>> distance.tolist()
        [0.5, 0.5]
    """
    given = {"queries": (queries, "floating [..., N, D]"), "keys": (keys, "floating [..., M, D]")}
    sizes = check_arrays("attention_spread", one_dtype=True, **given)
    fits = (sizes["N"], sizes["M"]) == (math.prod(query_shape), math.prod(key_shape))
    shapes = f"{queries.shape} and {keys.shape}"
    check_that("attention_spread", fits, f"queries and keys of {query_shape} and {key_shape} positions", shapes)
    queries, keys = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (queries, keys))
    scale = query_shape[0] / key_shape[0], query_shape[1] / key_shape[1]
    starts, ends = (jnp.asarray(x, queries.dtype) for x in (_centers(query_shape, (1, 1)), _centers(key_shape, scale)))

    def spread(positions: Array) -> tuple[Array, Array]:
        rows = attention_rows(queries, keys, positions)
        distances = jnp.linalg.norm(starts[positions][:, None] - ends[None], axis=-1)
        return jnp.einsum("...nm,nm->...n", rows, distances, precision="highest"), attention_entropy(rows)

    images = max(1, math.prod(queries.shape[:-2]))
    count = -(-images * sizes["N"] * sizes["M"] // _ENTRIES_AT_ONCE)
    size = -(-sizes["N"] // count)
    positions = np.arange(count * size).clip(max=sizes["N"] - 1).reshape(count, size)
    found = jax.lax.map(spread, jnp.asarray(positions))
    distance, entropy = (jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)[..., : sizes["N"]] for x in found)
    return distance, entropy


def unpool_keys(attention_map: Array, *, query_shape: Shape, key_shape: Shape) -> Array:
    """Returns the map with the weight of each key spread evenly over the positions that the key covers.

    Args:
        attention_map: `[..., N, M]`, floating.
        query_shape: H and W, with N = H W; multiples of h and w.
        key_shape: h and w, with M = h w.

    Returns:
        `[..., N, N]`, float32 or wider; rows keep their sums.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> unpool_keys(jnp.ones((2, 1)), query_shape=(1, 2), key_shape=(1, 1)).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    rows = _float32_map("unpool_keys", attention_map, query_shape, key_shape)
    return jnp.matmul(rows, _cover("unpool_keys", query_shape, key_shape).astype(rows.dtype), precision="highest")


def attention_rollup(attention_maps: Sequence[Array], *, shapes: Sequence[Shape], shares: Sequence[float]) -> Array:
    """Returns the attention rollup: the product of the maps of all layers, with residual connections.

        R = T_L ... T_1,    T_l = (1 - s_l) I + s_l A_l

    The model of a layer's output is a share s of the attention output plus a share 1 - s of the input. The input comes
    from the residual connection. Maps of coarser layers are upsampled to the finest shape. A fine position gets the row
    of the coarse position that contains it. The weight of a key is spread evenly over the positions that the key
    covers. Convolutions between the layers also move information; the rollup ignores them.

    Args:
        attention_maps: from the first layer to the last, each `[..., N, M]`, floating.
        shapes: H and W of the queries of each layer; the keys have the same shape, or both sizes divided by one
            integer.
        shares: s of each layer, in [0, 1]. Abnar and Zuidema use 0.5. For SAGAN, |gamma| / (1 + |gamma|) is the share
            of attention in `gamma o + x` if o and x have the same norm.

    Returns:
        `[..., N, N]` for the N of the finest layer, float32 or wider; rows sum to one.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Source: Abnar and Zuidema 2020, equation 1, for one shape and s = 0.5.

    Examples:
        >>> import jax.numpy as jnp
        >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> attention_rollup([swap, swap], shapes=[(1, 2), (1, 2)], shares=[1.0, 0.5]).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    check_that(
        "attention_rollup",
        0 < len(attention_maps) == len(shapes) == len(shares),
        "at least one map, and one shape and one share per map",
        f"{len(attention_maps)} maps, {len(shapes)} shapes and {len(shares)} shares",
    )
    finest = max(shapes, key=math.prod)
    layers = [_rollup_layer(*layer, finest) for layer in zip(attention_maps, shapes, shares, strict=True)]
    return functools.reduce(lambda rollup, layer: jnp.matmul(layer, rollup, precision="highest"), layers)


def _rollup_layer(attention_map: Array, shape: Shape, share: float, finest: Shape) -> Array:
    """Returns T, the map of one layer with its residual connection, in the finest shape."""
    rows = unpool_keys(attention_map, query_shape=shape, key_shape=_key_shape(attention_map, shape))
    cover = _cover("attention_rollup", finest, shape).astype(rows.dtype)
    fine = jnp.einsum("an,...ab,bm->...nm", (cover > 0).astype(rows.dtype), rows, cover, precision="highest")
    identity = np.eye(fine.shape[-1]).astype(rows.dtype)
    return share * fine + jnp.broadcast_to((1 - share) * identity, fine.shape)


def top_keys(attention_map: Array, count: int) -> tuple[Array, Array]:
    """Returns the keys with the largest weights in each row, the largest first.

    Args:
        attention_map: `[..., N, M]`, floating.
        count: K, from 1 to M.

    Returns:
        Key indices `[..., N, K]` int32 and weights `[..., N, K]`, float32 or wider. For equal weights, the key with the
        lower index comes first.

    Raises:
        AssertionError: at trace time, when the shape or the count does not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> keys, weights = top_keys(jnp.array([[0.25, 0.5, 0.25]]), 2)
        >>> keys.tolist(), weights.tolist()
        ([[1, 0]], [[0.5, 0.25]])
    """
    rows = _float32_map("top_keys", attention_map)
    fits = isinstance(count, int) and 1 <= count <= rows.shape[-1]
    check_that("top_keys", fits, f"a count from 1 to {rows.shape[-1]}, the number of keys", count)
    weights, keys = jax.lax.top_k(rows, count)
    return keys, weights


def informative_queries(
    attention_map: Array, count: int, *, query_shape: Shape, key_shape: Shape, min_distance: float | None = None
) -> Array:
    """Returns query positions with informative rows: they attend far away, to few keys, and lie apart.

        score = distance / exp(entropy)

    exp(entropy) is the effective number of keys of a row, so the score prefers few distant keys to many near ones.
    Positions are selected greedily by score. Positions closer than `min_distance` to a selected one are skipped. When
    only skipped positions are left, the best of those are selected. Rows with a NaN have the lowest score.

    Args:
        attention_map: `[N, M]`, of one image.
        count: K, from 1 to N.
        query_shape: H and W, with N = H W.
        key_shape: h and w, with M = h w.
        min_distance: the smallest distance between two selected positions. Defaults to a fifth of the longer side.

    Returns:
        `[K]` int32, indices of queries in the order they were taken.

    Raises:
        AssertionError: at trace time, when the shapes or the count do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> far = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        >>> informative_queries(far, 1, query_shape=(1, 3), key_shape=(1, 3)).tolist()
        [2]
    """
    check_arrays("informative_queries", attention_map=(attention_map, "[N, M]"))
    positions = math.prod(query_shape)
    fits = isinstance(count, int) and 1 <= count <= positions
    check_that("informative_queries", fits, f"a count from 1 to {positions}, the number of positions", count)
    distance = attention_distance(attention_map, query_shape=query_shape, key_shape=key_shape)
    score = distance / jnp.exp(attention_entropy(attention_map))
    return spaced_queries(score, count, query_shape=query_shape, min_distance=min_distance)


def spaced_queries(score: Array, count: int, *, query_shape: Shape, min_distance: float | None = None) -> Array:
    """Returns query positions with high scores that lie apart, selected as in `informative_queries`.

    Args:
        score: `[N]`, floating, at least 0 or NaN. NaN counts as the lowest score.
        count: K, from 1 to N.
        query_shape: H and W, with N = H W.
        min_distance: the smallest distance between two selected positions. Defaults to a fifth of the longer side.

    Returns:
        `[K]` int32, indices of queries in the order they were taken.

    Raises:
        AssertionError: at trace time, when the shape or the count does not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> spaced_queries(jnp.array([9.0, 8.0, 1.0]), 2, query_shape=(1, 3), min_distance=2).tolist()
        [0, 2]
    """
    sizes = check_arrays("spaced_queries", score=(score, "floating [N]"))
    positions = math.prod(query_shape)
    check_that("spaced_queries", sizes["N"] == positions, f"scores of {query_shape} positions", score.shape)
    fits = isinstance(count, int) and 1 <= count <= positions
    check_that("spaced_queries", fits, f"a count from 1 to {positions}, the number of positions", count)
    score = jnp.where(jnp.isnan(score), -1, score)  # below the score of any other row
    if min_distance is None:
        min_distance = max(query_shape) / 5
    centers = jnp.asarray(_centers(query_shape, (1, 1)), jnp.float32)
    chosen, free, taken = [], jnp.ones(positions, bool), jnp.zeros(positions, bool)
    for _ in range(count):
        # Free positions rank above those near a selected one. The selected ones come last.
        best = jnp.argmax(jnp.where(taken, -jnp.inf, jnp.where(free, 1 + score - score.min(), score - score.max() - 1)))
        chosen.append(best)
        taken = taken.at[best].set(True)
        free = free & (jnp.linalg.norm(centers - centers[best][None], axis=1) >= min_distance)
    return jnp.stack(chosen).astype(jnp.int32)


def _float32_map(
    function: str, attention_map: Array, query_shape: Shape | None = None, key_shape: Shape | None = None
) -> Array:
    """Checks the dtype and the shape of the map and returns it in float32 or wider."""
    attention_map = jnp.asarray(attention_map)
    sizes = check_arrays(function, attention_map=(attention_map, "floating [..., N, M]"))
    if query_shape and key_shape:
        fits = (sizes["N"], sizes["M"]) == (math.prod(query_shape), math.prod(key_shape))
        needed = f"a map [..., N, M] of {query_shape} queries and {key_shape} keys"
        check_that(function, fits, needed, attention_map.shape)
    return attention_map.astype(jnp.promote_types(attention_map.dtype, jnp.float32))


def _centers(shape: Shape, scale: tuple[float, float]) -> np.ndarray:
    """Returns y and x of the center of each position, row by row, `[N, 2]`."""
    y, x = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    return np.stack([(y + 0.5) * scale[0], (x + 0.5) * scale[1]], axis=1)


def _distances(query_shape: Shape, key_shape: Shape) -> np.ndarray:
    """Returns the distance of each query to each key, in units of query positions, `[N, M]`."""
    queries = _centers(query_shape, (1, 1))
    keys = _centers(key_shape, (query_shape[0] / key_shape[0], query_shape[1] / key_shape[1]))
    return np.linalg.norm(queries[:, None] - keys, axis=-1)


def _cover(function: str, fine: Shape, coarse: Shape) -> np.ndarray:
    """Returns the fraction of each coarse position that each fine position fills, `[coarse, fine]`; rows sum to one."""
    fits = fine[0] % coarse[0] == fine[1] % coarse[1] == 0
    check_that(function, fits, "shapes that divide one another", f"{fine} and {coarse}")
    height, width = fine[0] // coarse[0], fine[1] // coarse[1]
    y, x = np.divmod(np.arange(fine[0] * fine[1]), fine[1])
    place = (y // height) * coarse[1] + x // width
    return (place == np.arange(coarse[0] * coarse[1])[:, None]) / (height * width)


def _key_shape(attention_map: Array, query_shape: Shape) -> Shape:
    """Returns h and w of the keys: H and W of the queries, both divided by the pool that fits the map."""
    pool = round((query_shape[0] * query_shape[1] / attention_map.shape[-1]) ** 0.5)
    return query_shape[0] // max(1, pool), query_shape[1] // max(1, pool)
