import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import (
    attention_distance,
    attention_entropy,
    attention_map,
    attention_maps,
    attention_rollup,
    attention_spread,
    informative_queries,
    spaced_queries,
    top_keys,
    unpool_keys,
)


def random_map(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.4), shape[:-1]).astype(np.float32)


def mean_distance(weights, query_shape, key_shape):
    """The definition, one pair at a time."""
    height, width = query_shape[0] / key_shape[0], query_shape[1] / key_shape[1]
    found = np.zeros(query_shape)
    for y in range(query_shape[0]):
        for x in range(query_shape[1]):
            row = weights[y * query_shape[1] + x]
            for v in range(key_shape[0]):
                for u in range(key_shape[1]):
                    dy, dx = (v + 0.5) * height - (y + 0.5), (u + 0.5) * width - (x + 0.5)
                    found[y, x] += row[v * key_shape[1] + u] * (dy * dy + dx * dx) ** 0.5
    return found.ravel()


@pytest.mark.parametrize(("query_shape", "key_shape"), [((3, 5), (3, 5)), ((4, 6), (2, 3)), ((6, 2), (2, 2))])
def test_distance_is_the_weighted_mean_over_all_keys(query_shape, key_shape):
    weights = random_map(2, query_shape[0] * query_shape[1], key_shape[0] * key_shape[1])
    found = attention_distance(weights, query_shape=query_shape, key_shape=key_shape)
    for one, row in zip(found, weights, strict=True):
        assert np.allclose(one, mean_distance(row, query_shape, key_shape), rtol=1e-5)


def test_diagonal_map_looks_nowhere_else():
    assert not attention_distance(np.eye(15, dtype=np.float32), query_shape=(3, 5), key_shape=(3, 5)).any()


def test_uniform_map_on_a_line_has_the_closed_form_of_the_mean_distance():
    # The mean of |i - j| over all pairs of n positions is (n^2 - 1) / (3 n).
    for n in (2, 7, 30):
        found = attention_distance(np.full((n, n), 1 / n, np.float32), query_shape=(1, n), key_shape=(1, n))
        assert float(found.mean()) == pytest.approx((n * n - 1) / (3 * n), rel=1e-5)


def test_uniform_map_on_a_fine_square_has_nearly_the_mean_distance_of_a_square():
    # (2 + sqrt 2 + 5 asinh 1) / 15 of a side: the mean distance of two points in a square.
    side = 32
    uniform = np.full((side**2, side**2), side**-2, np.float32)
    found = attention_distance(uniform, query_shape=(side, side), key_shape=(side, side)).mean() / side
    assert float(found) == pytest.approx((2 + 2**0.5 + 5 * np.arcsinh(1)) / 15, rel=2e-3)


def test_pooled_key_of_its_own_is_half_a_diagonal_away():
    own = np.zeros((16, 4), np.float32)
    for place in range(16):
        own[place, (place // 4 // 2) * 2 + place % 4 // 2] = 1
    assert np.allclose(attention_distance(own, query_shape=(4, 4), key_shape=(2, 2)), 0.5**0.5)


def test_entropy_of_rows():
    rows = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]], np.float32)
    assert np.allclose(attention_entropy(rows), [0, np.log(4), np.log(2)], atol=1e-6)
    weights = random_map(3, 5, 7).astype(np.float64)
    wanted = [[-sum(p * np.log(p) for p in row if p > 0) for row in one] for one in weights]
    assert np.allclose(attention_entropy(weights.astype(np.float32)), wanted, rtol=1e-4)


def test_gradient_of_the_entropy_is_finite_where_a_weight_is_zero():
    assert np.isfinite(jax.grad(lambda row: attention_entropy(row).sum())(jnp.array([[1.0, 0.0]]))).all()


def test_entropy_of_a_row_with_nan_is_nan():
    rows = jnp.array([[jnp.nan, 0.5], [jnp.nan, jnp.nan], [1.0, 0.0]])
    np.testing.assert_array_equal(attention_entropy(rows), [np.nan, np.nan, 0.0])


def test_rows_with_nan_are_the_last_informative_queries():
    far = jnp.array([[1.0, 0.0, 0.0], [jnp.nan, 1.0, 0.0], [1.0, 0.0, 0.0]])
    shapes = {"query_shape": (1, 3), "key_shape": (1, 3), "min_distance": 0}
    assert informative_queries(far, 3, **shapes).tolist() == [2, 0, 1]


def test_unpooled_keys_spread_their_weight_over_what_they_cover():
    weights = random_map(24, 6)
    found = np.asarray(unpool_keys(weights, query_shape=(4, 6), key_shape=(2, 3)))
    for y in range(4):
        for x in range(6):
            assert np.allclose(found[:, y * 6 + x], weights[:, (y // 2) * 3 + x // 2] / 4)
    assert np.allclose(found.sum(-1), 1, atol=1e-6)
    same = random_map(6, 6)
    assert np.array_equal(unpool_keys(same, query_shape=(2, 3), key_shape=(2, 3)), same)


def test_rollup_of_maps_of_one_shape_is_the_product_with_the_residual():
    maps = [random_map(6, 6, seed=seed) for seed in range(3)]
    shares = [0.5, 0.2, 0.9]
    wanted = np.eye(6)
    for attention, share in zip(maps, shares, strict=True):
        wanted = ((1 - share) * np.eye(6) + share * attention) @ wanted
    assert np.allclose(attention_rollup(maps, shapes=[(2, 3)] * 3, shares=shares), wanted, atol=1e-6)


def test_rollup_with_nothing_of_attention_stays_in_place():
    maps = [random_map(4, 4), random_map(16, 4, seed=1)]
    assert np.allclose(attention_rollup(maps, shapes=[(2, 2), (4, 4)], shares=[0, 0]), np.eye(16))


def test_rollup_brings_coarse_layers_to_the_finest():
    coarse, fine = random_map(4, 4), random_map(16, 4, seed=1)
    found = attention_rollup([coarse, fine], shapes=[(2, 2), (4, 4)], shares=[1.0, 1.0])
    block = np.array([(y // 2) * 2 + x // 2 for y in range(4) for x in range(4)])
    wanted = (fine[:, block] / 4) @ (coarse[np.ix_(block, block)] / 4)
    assert np.allclose(found, wanted, atol=1e-6)
    assert np.allclose(found.sum(-1), 1, atol=1e-5)


def test_top_keys_are_those_of_the_largest_weights_in_order():
    weights = random_map(2, 5, 9)
    keys, largest = top_keys(weights, 3)
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :3]
    assert np.array_equal(keys, order)
    assert np.array_equal(largest, np.take_along_axis(weights, order, -1))


def test_informative_query_looks_far_at_little():
    weights = np.full((24, 24), 1 / 24, np.float32)  # all look everywhere
    weights[5] = np.eye(24)[5]  # at itself
    weights[17] = np.eye(24)[0]  # far, at one place
    weights[3] = np.eye(24)[2]  # near, at one place
    found = informative_queries(weights, 2, query_shape=(4, 6), key_shape=(4, 6))
    assert found[0] == 17
    assert found[1] == 3


def test_informative_queries_keep_their_distance_while_there_is_room_and_are_never_the_same():
    weights = random_map(40, 10)
    found = np.asarray(informative_queries(weights, 4, query_shape=(8, 5), key_shape=(2, 5), min_distance=3))
    y, x = found // 5, found % 5
    distances = np.hypot(y[:, None] - y, x[:, None] - x) + 99 * np.eye(4)
    assert distances.min() >= 3
    everything = informative_queries(weights, 40, query_shape=(8, 5), key_shape=(2, 5), min_distance=3)
    assert sorted(everything.tolist()) == list(range(40))


def test_functions_run_under_jit_and_vmap_and_in_float32_for_narrow_maps():
    weights = random_map(3, 12, 12)
    shapes = {"query_shape": (3, 4), "key_shape": (3, 4)}
    plain = attention_distance(weights, **shapes)
    mapped = jax.jit(jax.vmap(lambda one: attention_distance(one, **shapes)))(weights)
    assert np.allclose(plain, mapped, rtol=1e-6)
    queries = jax.jit(jax.vmap(lambda one: informative_queries(one, 3, **shapes)))(weights)
    assert np.array_equal(queries[1], informative_queries(weights[1], 3, **shapes))
    assert attention_entropy(weights.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: attention_entropy(np.ones(3, np.float32)), "attention_entropy"),
        (lambda: attention_entropy(np.ones((3, 4), int)), "attention_entropy"),
        (lambda: attention_distance(random_map(6, 6), query_shape=(2, 4), key_shape=(2, 3)), "attention_distance"),
        (lambda: unpool_keys(random_map(6, 4), query_shape=(2, 3), key_shape=(2, 2)), "divide"),
        (lambda: top_keys(random_map(6, 4), 5), "top_keys"),
        (lambda: informative_queries(random_map(6, 6), 7, query_shape=(2, 3), key_shape=(2, 3)), "count"),
        (
            lambda: informative_queries(random_map(2, 6, 6), 1, query_shape=(2, 3), key_shape=(2, 3)),
            r"map \[N, M\]; got",
        ),
        (lambda: attention_rollup([], shapes=[], shares=[]), "attention_rollup"),
        (lambda: attention_rollup([random_map(6, 6)], shapes=[(2, 3)], shares=[]), "one share"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(call, says):
    with pytest.raises((AssertionError, ValueError), match=says):
        call()


# Without the map


@pytest.mark.parametrize("entries", [2**22, 700, 1], ids=["at once", "in blocks", "row by row"])
def test_spread_is_the_distance_and_the_entropy_of_the_map(monkeypatch, entries):
    monkeypatch.setattr(attention_maps, "_ENTRIES_AT_ONCE", entries)
    random = np.random.default_rng(11)
    queries, keys = (random.normal(size=(2, 3, *shape)).astype(np.float32) for shape in ((8 * 10, 4), (4 * 5, 4)))
    shapes = {"query_shape": (8, 10), "key_shape": (4, 5)}
    distance, entropy = attention_spread(jnp.asarray(queries), jnp.asarray(keys), **shapes)
    weights = attention_map(jnp.asarray(queries), jnp.asarray(keys))
    assert np.allclose(distance, attention_distance(weights, **shapes), atol=1e-5)
    assert np.allclose(entropy, attention_entropy(weights), atol=1e-5)


def test_spread_of_128_by_128_positions_takes_64_mib_at_most():
    operand = jax.ShapeDtypeStruct((128**2, 8), jnp.float32)
    spread = functools.partial(attention_spread, query_shape=(128, 128), key_shape=(128, 128))
    assert jax.jit(spread).lower(operand, operand).compile().memory_analysis().temp_size_in_bytes <= 2**26


def test_spread_refuses_shapes_that_are_not_those_of_the_operands():
    with pytest.raises(AssertionError, match=r"of \(2, 3\) and \(2, 2\) positions; got \(6, 1\) and \(6, 1\)"):
        attention_spread(jnp.ones((6, 1)), jnp.ones((6, 1)), query_shape=(2, 3), key_shape=(2, 2))


def test_spaced_queries_refuse_scores_of_other_positions():
    with pytest.raises(AssertionError, match="scores of"):
        spaced_queries(jnp.ones(5), 1, query_shape=(2, 3))
