"""What attention maps say: how far they look, how spread out, at what, and through several layers.

A map is `[..., N, M]`, rows of weights that sum to one: N = H W query positions, M = h w key positions, both row by
row. A key covers a square of queries: one in the article's form, 2x2 in the release's, whose keys are pooled.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Shape = tuple[int, int]
"""Height and width, in positions."""


def attention_entropy(attention_map: Array) -> Array:
    """Returns how spread out each row is.

        - sum_m p_m log p_m

    Args:
        attention_map: `[..., N, M]`, floating, from 0 up, rows that sum to one.

    Returns:
        `[..., N]` in nats, float32 or wider: 0 for a row that looks at one key, log M for one that looks at all alike.

    Raises:
        AssertionError: at trace time, when the shape or the dtype does not fit.

    >>> import jax.numpy as jnp
    >>> attention_entropy(jnp.array([[1.0, 0.0]])).tolist()
    [0.0]
    """
    rows = _wide(attention_map, "attention_entropy")
    present = rows > 0
    # The inner `where` keeps the logarithm of 0 out of the gradient too.
    return jnp.where(present, -rows * jnp.log(jnp.where(present, rows, 1)), 0).sum(axis=-1)


def attention_distance(attention_map: Array, *, query_shape: Shape, key_shape: Shape) -> Array:
    """Returns how far each position looks: the mean distance to what it looks at, as it weighs it.

        sum_m p_m |x_n - y_m|

    Distances are between the middle of a query position and the middle of the square that a key covers, so a position
    that looks at its own pooled key has not quite distance 0.

    Args:
        attention_map: `[..., N, M]`, floating, rows that sum to one.
        query_shape: H and W, with N = H W.
        key_shape: h and w, with M = h w.

    Returns:
        `[..., N]` in query positions, float32 or wider; times the pixels a position has, it is in pixels.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Source: Dosovitskiy et al. 2021, figure 7, who average it over images and positions.

    >>> import jax.numpy as jnp
    >>> attention_distance(jnp.array([[0.5, 0.5], [0.0, 1.0]]), query_shape=(1, 2), key_shape=(1, 2)).tolist()
    [0.5, 0.0]
    """
    rows = _wide(attention_map, "attention_distance", query_shape, key_shape)
    return jnp.einsum(
        "...nm,nm->...n", rows, _distances(query_shape, key_shape).astype(rows.dtype), precision="highest"
    )


def unpool_keys(attention_map: Array, *, query_shape: Shape, key_shape: Shape) -> Array:
    """Returns the map with the weight of each key spread evenly over the positions that it covers.

    Args:
        attention_map: `[..., N, M]`, floating.
        query_shape: H and W, with N = H W, multiples of the keys'.
        key_shape: h and w, with M = h w.

    Returns:
        `[..., N, N]`; rows sum to what they did.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> unpool_keys(jnp.ones((2, 1)), query_shape=(1, 2), key_shape=(1, 1)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    rows = _wide(attention_map, "unpool_keys", query_shape, key_shape)
    return jnp.matmul(rows, _cover(query_shape, key_shape, "unpool_keys").astype(rows.dtype), precision="highest")


def attention_rollup(attention_maps: Sequence[Array], *, shapes: Sequence[Shape], shares: Sequence[float]) -> Array:
    """Returns where a position of the last layer looks through all of them: attention composed, layer by layer.

        R = T_L ... T_1,    T_l = (1 - s_l) I + s_l A_l

    Each layer passes on a share of what attention gathered and the rest of what was there: its residual connection.
    Maps of coarser layers are brought to the finest: a position takes the row of the coarser one that it lies in, and a
    key's weight is spread evenly over what it covers. Convolutions between the layers, which also move things, are not
    seen.

    Args:
        attention_maps: from the first layer to the last, each `[..., N, M]`, floating.
        shapes: H and W of each layer's queries; keys have these, or both divided by one number.
        shares: s of each layer, in [0, 1]; 0.5 is Abnar and Zuidema's. |gamma| / (1 + |gamma|) is what SAGAN's residual
            gives attention where both parts are of one size.

    Returns:
        `[..., N, N]` for the N of the finest layer, rows that sum to one, float32 or wider.

    Raises:
        AssertionError: at trace time, when the shapes do not fit.

    Source: Abnar and Zuidema 2020, equation 1, for one shape and s = 0.5.

    >>> import jax.numpy as jnp
    >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> attention_rollup([swap, swap], shapes=[(1, 2), (1, 2)], shares=[1.0, 0.5]).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    message = (
        f"attention_rollup needs one shape and one share a map, and at least one map; got {len(attention_maps)} maps, "
        f"{len(shapes)} shapes and {len(shares)} shares."
    )
    chex.assert_scalar_positive(len(attention_maps), custom_message=message)
    chex.assert_equal(len(attention_maps), len(shapes), custom_message=message)
    chex.assert_equal(len(attention_maps), len(shares), custom_message=message)
    finest = max(shapes, key=lambda shape: shape[0] * shape[1])
    identity = np.eye(finest[0] * finest[1])
    rollup: Array | None = None
    for attention_map, shape, share in zip(attention_maps, shapes, shares, strict=True):
        rows = unpool_keys(attention_map, query_shape=shape, key_shape=_key_shape(attention_map, shape))
        cover = _cover(finest, shape, "attention_rollup").astype(rows.dtype)
        fine = jnp.einsum("an,...ab,bm->...nm", (cover > 0).astype(rows.dtype), rows, cover, precision="highest")
        layer = share * fine + jnp.broadcast_to((1 - share) * identity.astype(rows.dtype), fine.shape)
        rollup = layer if rollup is None else jnp.matmul(layer, rollup, precision="highest")
    assert rollup is not None
    return rollup


def top_keys(attention_map: Array, count: int) -> tuple[Array, Array]:
    """Returns the keys that each position looks at most, the strongest first.

    Args:
        attention_map: `[..., N, M]`, floating.
        count: K, from 1 to M.

    Returns:
        Their places `[..., N, K]` int32, and their weights `[..., N, K]`; of equal ones the earlier key comes first.

    Raises:
        AssertionError: at trace time, when the shape or the count does not fit.

    >>> import jax.numpy as jnp
    >>> [links.tolist() for links in top_keys(jnp.array([[0.25, 0.5, 0.25]]), 2)]
    [[[1, 0]], [[0.5, 0.25]]]
    """
    rows = _wide(attention_map, "top_keys")
    message = f"top_keys needs a count from 1 to {rows.shape[-1]}, the number of keys; got {count}."
    chex.assert_scalar_in(count, 1, rows.shape[-1], custom_message=message)
    weights, places = jax.lax.top_k(rows, count)
    return places, weights


def informative_queries(
    attention_map: Array, count: int, *, query_shape: Shape, key_shape: Shape, apart: float | None = None
) -> Array:
    """Returns the positions whose rows say most: far-reaching and of low entropy, not all in one place.

        score = distance / exp(entropy)

    exp(entropy) is how many keys a row looks at, as it were, so the score prefers a few far ones to many near ones. The
    best is taken, what lies near it is left out, and so on; where nothing is left, what was left out is taken.

    Args:
        attention_map: `[N, M]`, of one image.
        count: K, from 1 to N.
        query_shape: H and W, with N = H W.
        key_shape: h and w, with M = h w.
        apart: the least distance between two of them, in positions; a fifth of the longer side unless given.

    Returns:
        `[K]` int32, places among the queries, the best first.

    Raises:
        AssertionError: at trace time, when the shapes or the count do not fit.

    >>> import jax.numpy as jnp
    >>> far = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    >>> informative_queries(far, 1, query_shape=(1, 3), key_shape=(1, 3)).tolist()
    [2]
    """
    chex.assert_rank(attention_map, 2, custom_message="informative_queries needs the map [N, M] of one image.")
    number = query_shape[0] * query_shape[1]
    message = f"informative_queries needs a count from 1 to {number}, the number of positions; got {count}."
    chex.assert_scalar_in(count, 1, number, custom_message=message)
    distance = attention_distance(attention_map, query_shape=query_shape, key_shape=key_shape)
    score = distance / jnp.exp(attention_entropy(attention_map))
    near = jnp.asarray(_distances(query_shape, query_shape) < (max(query_shape) / 5 if apart is None else apart))
    chosen, free, taken = [], jnp.ones(number, bool), jnp.zeros(number, bool)
    for _ in range(count):
        # Those already taken come last, those near one of them before those.
        best = jnp.argmax(jnp.where(taken, -jnp.inf, jnp.where(free, 1 + score - score.min(), score - score.max() - 1)))
        chosen.append(best)
        taken = taken.at[best].set(True)
        free = free & ~near[best]
    return jnp.stack(chosen).astype(jnp.int32)


def _wide(
    attention_map: Array, function: str, query_shape: Shape | None = None, key_shape: Shape | None = None
) -> Array:
    """Returns the map in float32 or wider, after its shape was looked at."""
    attention_map = jnp.asarray(attention_map)
    wanted = "[..., N, M]" if query_shape is None else f"[..., {query_shape} positions, {key_shape} keys]"
    message = f"{function} needs a floating map {wanted}; got {attention_map.shape} {attention_map.dtype}."
    chex.assert_scalar_non_negative(attention_map.ndim - 2, custom_message=message)
    chex.assert_type(attention_map, float, custom_message=message)
    if query_shape and key_shape:
        chex.assert_equal(
            attention_map.shape[-2:],
            (query_shape[0] * query_shape[1], key_shape[0] * key_shape[1]),
            custom_message=message,
        )
    return attention_map.astype(jnp.promote_types(attention_map.dtype, jnp.float32))


def _centres(shape: Shape, scale: tuple[float, float]) -> np.ndarray:
    """Returns y and x of the middle of each position, row by row, `[N, 2]`."""
    y, x = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    return np.stack([(y + 0.5) * scale[0], (x + 0.5) * scale[1]], axis=1)


def _distances(query_shape: Shape, key_shape: Shape) -> np.ndarray:
    """Returns the distance of each query to each key, in query positions, `[N, M]`."""
    queries = _centres(query_shape, (1, 1))
    keys = _centres(key_shape, (query_shape[0] / key_shape[0], query_shape[1] / key_shape[1]))
    return np.linalg.norm(queries[:, None] - keys, axis=-1)


def _cover(fine: Shape, coarse: Shape, function: str) -> np.ndarray:
    """Returns the share of each coarse position that lies in each fine one, `[coarse, fine]`; rows sum to one."""
    message = f"{function} needs shapes that divide one another; got {fine} and {coarse}."
    chex.assert_equal((fine[0] % coarse[0], fine[1] % coarse[1]), (0, 0), custom_message=message)
    height, width = fine[0] // coarse[0], fine[1] // coarse[1]
    y, x = np.divmod(np.arange(fine[0] * fine[1]), fine[1])
    place = (y // height) * coarse[1] + x // width
    return (place == np.arange(coarse[0] * coarse[1])[:, None]) / (height * width)


def _key_shape(attention_map: Array, query_shape: Shape) -> Shape:
    """Returns h and w of the keys: those of the queries, both divided by the number that fits."""
    pool = round((query_shape[0] * query_shape[1] / attention_map.shape[-1]) ** 0.5)
    return query_shape[0] // max(1, pool), query_shape[1] // max(1, pool)
