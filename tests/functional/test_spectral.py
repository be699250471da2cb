import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import init_spectral, power_iteration, spectral_normalize, spectral_normalize_tree
from support.assertions import assert_near

CONVOLUTION = (2, 3, 5, 7)


def make_kernel(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def make_matrix_with_a_gap():
    """7 x 5 with singular values 5, 2, 1, 0.5, 0.25, and first singular vectors along no axis."""
    random = np.random.default_rng(1)
    left, _ = np.linalg.qr(random.normal(size=(7, 5)))
    right, _ = np.linalg.qr(random.normal(size=(5, 5)))
    return left @ np.diag([5.0, 2.0, 1.0, 0.5, 0.25]) @ right.T


def oracle_iteration(kernel, u, iterations):
    """The release's rule by scalar loops in float64; returns u, v and sigma."""
    rows = [[float(entry) for entry in row] for row in np.asarray(kernel).reshape(-1, np.shape(kernel)[-1])]
    u = [float(entry) for entry in u]
    for _ in range(iterations):
        v = [sum(row[c] * u[c] for c in range(len(u))) for row in rows]
        v = [entry / sum(other * other for other in v) ** 0.5 for entry in v]
        u = [sum(v[r] * rows[r][c] for r in range(len(rows))) for c in range(len(u))]
        u = [entry / sum(other * other for other in u) ** 0.5 for entry in u]
    sigma = sum(v[r] * rows[r][c] * u[c] for r in range(len(rows)) for c in range(len(u)))
    return np.array(u), np.array(v), sigma


# The iteration


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), CONVOLUTION])
def test_spectral_normalize_is_the_same_iteration_in_float64(shape, iterations):
    kernel, u = jnp.asarray(make_kernel(shape), jnp.float32), jnp.asarray(make_kernel(shape[-1:], 2), jnp.float32)
    normalized, new_u, new_v, sigma = jax.jit(spectral_normalize, static_argnames="iterations")(
        kernel, u, iterations=iterations
    )
    expected_u, expected_v, expected_sigma = oracle_iteration(kernel, u, iterations)
    assert_near(new_u, expected_u, 1e-6, "u")
    assert_near(new_v, expected_v, 1e-6, "v")
    assert_near(sigma, expected_sigma, 1e-6, "sigma")
    assert_near(normalized, np.asarray(kernel, np.float64) / expected_sigma, 1e-6, "kernel")


def test_spectral_normalize_reaches_the_singular_value_where_there_is_a_gap():
    matrix = jnp.asarray(make_matrix_with_a_gap(), jnp.float32)
    normalized, u, v, sigma = jax.jit(spectral_normalize, static_argnames="iterations")(
        matrix, jnp.arange(1.0, 6.0), iterations=20
    )
    left, values, right = np.linalg.svd(np.asarray(matrix, np.float64))
    assert_near(sigma, values[0], 1e-6, "sigma")
    assert_near(np.linalg.svd(np.asarray(normalized, np.float64))[1][0], 1.0, 1e-6, "sigma of the normalised kernel")
    sign = np.sign(np.dot(np.asarray(u), right[0]))
    assert_near(u, sign * right[0], 1e-6, "u")
    assert_near(v, sign * left[:, 0], 1e-6, "v")


def test_spectral_normalize_takes_sigma_with_the_fresh_u():
    # v = [3, 1] / sqrt(10) and then u = [9, 1] / sqrt(82); the stale u would give sqrt(5).
    _, u, v, sigma = spectral_normalize(jnp.diag(jnp.array([3.0, 1.0])), jnp.array([1.0, 1.0]))
    assert_near(v, np.array([3, 1]) / 10**0.5, 1e-6, "v")
    assert_near(u, np.array([9, 1]) / 82**0.5, 1e-6, "u")
    assert_near(sigma, (82 / 10) ** 0.5, 1e-6, "sigma")


def test_spectral_normalize_without_iterations_uses_stored_u_and_v():
    kernel, u, v = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), jnp.array([0.0, 0.0, 2.0]), jnp.array([0.0, 3.0])
    normalized, same_u, same_v, sigma = spectral_normalize(kernel, u, v, iterations=0)
    assert float(sigma) == 36.0  # 3 * 6 * 2: neither a singular value nor of unit length
    assert_near(normalized, np.array([[1, 2, 3], [4, 5, 6]]) / 36, 1e-7, "kernel")
    np.testing.assert_array_equal(same_u, u)
    np.testing.assert_array_equal(same_v, v)


def test_spectral_normalize_with_iterations_does_not_read_v():
    kernel, u = jnp.asarray(make_kernel((5, 3)), jnp.float32), jnp.ones(3)
    for ours, theirs in zip(
        spectral_normalize(kernel, u, jnp.full(5, jnp.nan)), spectral_normalize(kernel, u), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_spectral_normalize_gives_a_scaled_kernel_the_same_result():
    kernel, u = jnp.asarray(make_kernel(CONVOLUTION), jnp.float32), jnp.ones(7)
    normalized, *_, sigma = spectral_normalize(kernel, u)
    scaled, *_, scaled_sigma = spectral_normalize(37.0 * kernel, u)
    assert_near(scaled, normalized, 1e-6, "kernel")
    assert_near(scaled_sigma, 37.0 * sigma, 1e-6, "sigma")


def test_spectral_normalize_never_estimates_more_than_the_singular_value():
    kernel = make_kernel((11, 5), 3)
    largest = np.linalg.svd(kernel)[1][0]
    sigma = jax.jit(jax.vmap(lambda u: spectral_normalize(jnp.asarray(kernel, jnp.float32), u)[3]))(
        jnp.asarray(make_kernel((13, 5), 4), jnp.float32)
    )
    assert sigma.shape == (13,)
    assert np.all(sigma <= largest * (1 + 1e-5))
    assert np.all(sigma >= largest / 3)


def test_spectral_normalize_of_bfloat16_runs_in_float32():
    kernel = jnp.asarray(make_kernel(CONVOLUTION), jnp.bfloat16)
    normalized, u, v, sigma = spectral_normalize(kernel, jnp.ones(7))
    assert (normalized.dtype, u.dtype, v.dtype, sigma.dtype) == (jnp.bfloat16, *3 * (jnp.float32,))
    assert_near(sigma, oracle_iteration(kernel, np.ones(7), 1)[2], 1e-6)


def test_power_iteration_does_not_depend_on_the_length_of_u():
    matrix, u = jnp.asarray(make_kernel((5, 3)), jnp.float32), jnp.array([1.0, -2.0, 3.0])
    for ours, theirs in zip(
        power_iteration(matrix, 1000.0 * u, iterations=1), power_iteration(matrix, u, iterations=1), strict=True
    ):
        assert_near(ours, theirs, 1e-6)


# Gradients


def test_spectral_normalize_with_constant_vectors_has_the_analytic_gradient():
    kernel, direction, u = make_kernel(CONVOLUTION), make_kernel(CONVOLUTION, 5), make_kernel((7,), 6)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda kernel: jnp.sum(direction * spectral_normalize(kernel, u)[0])))(kernel)
    new_u, new_v, sigma = oracle_iteration(kernel, u, 1)
    outer = np.outer(new_v, new_u).reshape(CONVOLUTION)
    expected = direction / sigma - np.sum(direction * kernel) / sigma**2 * outer
    assert_near(gradient, expected, 1e-12)


def test_spectral_normalize_with_moving_vectors_has_the_gradient_of_the_whole_map():
    shape, epsilon = (5, 3), 1e-6
    kernel, direction, u = make_kernel(shape), make_kernel(shape, 7), make_kernel(shape[-1:], 8)

    def value(kernel):
        return np.sum(direction * kernel / oracle_iteration(kernel, u, 1)[2])

    numeric = np.zeros(shape)
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = epsilon
        numeric[index] = (value(kernel + step) - value(kernel - step)) / (2 * epsilon)

    def loss(kernel, differentiate_vectors):
        return jnp.sum(direction * spectral_normalize(kernel, u, differentiate_vectors=differentiate_vectors)[0])

    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss), static_argnums=1)
        moving, constant = np.asarray(gradient(kernel, True)), np.asarray(gradient(kernel, False))
    assert_near(moving, numeric, 1e-6)
    assert np.abs(constant - numeric).max() > 1e-2 * np.abs(numeric).max()


# Trees


def make_tree():
    params = {
        "block": {
            "conv": {"kernel": jnp.asarray(make_kernel(CONVOLUTION), jnp.float32), "bias": jnp.arange(7.0)},
            "table": jnp.ones((11, 7)),
        },
        "dense": {"kernel": jnp.asarray(make_kernel((5, 3), 1), jnp.float32), "bias": jnp.arange(3.0)},
        "kernel": jnp.asarray(make_kernel((13, 2), 2), jnp.float32),
        "gamma": jnp.zeros(()),
    }
    spectral = {
        "block": {"conv": {"kernel": {"u": jnp.arange(1.0, 8.0), "v": jnp.ones(30)}}},
        "kernel": {"u": jnp.arange(1.0, 3.0), "v": jnp.ones(13)},
    }
    return params, spectral


def test_spectral_normalize_tree_normalises_exactly_the_leaves_with_an_entry():
    params, spectral = make_tree()
    normalized, _, sigmas = spectral_normalize_tree(params, spectral, iterations=3)
    for path, leaf in (("block", "conv"), params["block"]["conv"]["kernel"]), ((), params["kernel"]):
        entry, result, sigma = spectral, normalized, sigmas
        for name in (*path, "kernel"):
            entry, result, sigma = entry[name], result[name], sigma[name]
        expected_sigma = oracle_iteration(leaf, entry["u"], 3)[2]
        assert_near(sigma, expected_sigma, 1e-6, "sigma")
        assert_near(result, np.asarray(leaf, np.float64) / expected_sigma, 1e-6, "kernel")
    assert jax.tree.structure(normalized) == jax.tree.structure(params)
    assert jax.tree.structure(sigmas) == jax.tree.structure({"block": {"conv": {"kernel": 0}}, "kernel": 0})


def test_spectral_normalize_tree_hands_every_other_leaf_through():
    params, spectral = make_tree()
    normalized, _, _ = spectral_normalize_tree(params, spectral)
    assert normalized["block"]["conv"]["bias"] is params["block"]["conv"]["bias"]
    assert normalized["block"]["table"] is params["block"]["table"]
    assert normalized["dense"]["kernel"] is params["dense"]["kernel"]
    assert normalized["gamma"] is params["gamma"]


def test_spectral_normalize_tree_does_not_change_its_arguments():
    params, spectral = make_tree()
    kept = jax.tree.map(np.array, (params, spectral))
    spectral_normalize_tree(params, spectral)
    jax.tree.map(np.testing.assert_array_equal, (params, spectral), kept)


def test_spectral_normalize_tree_returns_the_fresh_pair_for_the_next_update():
    params, spectral = make_tree()
    _, after, _ = spectral_normalize_tree(params, spectral)
    assert jax.tree.structure(after) == jax.tree.structure(spectral)
    expected_u, expected_v, _ = oracle_iteration(params["kernel"], spectral["kernel"]["u"], 1)
    assert_near(after["kernel"]["u"], expected_u, 1e-6, "u")
    assert_near(after["kernel"]["v"], expected_v, 1e-6, "v")


def test_spectral_normalize_tree_without_iterations_reads_the_stored_pairs():
    params, spectral = make_tree()
    _, after, sigmas = spectral_normalize_tree(params, spectral, iterations=0)
    by_hand = np.ones(13) @ np.asarray(params["kernel"], np.float64) @ np.array([1.0, 2.0])
    assert_near(sigmas["kernel"], by_hand, 1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, spectral)


def test_spectral_normalize_tree_called_twice_continues_the_iteration():
    params, spectral = make_tree()
    _, once, _ = spectral_normalize_tree(params, spectral)
    _, _, sigmas = spectral_normalize_tree(params, once)
    assert_near(sigmas["kernel"], oracle_iteration(params["kernel"], spectral["kernel"]["u"], 2)[2], 1e-6)


def test_spectral_normalize_tree_lets_no_gradient_into_the_vectors_it_returns():
    kernel = jnp.asarray(make_kernel((5, 3)), jnp.float32)
    spectral = {"kernel": {"u": jnp.ones(3), "v": jnp.ones(5)}}

    def total(kernel):
        _, after, _ = spectral_normalize_tree({"kernel": kernel}, spectral, differentiate_vectors=True)
        return after["kernel"]["u"].sum() + after["kernel"]["v"].sum()

    np.testing.assert_array_equal(jax.grad(total)(kernel), np.zeros((5, 3)))


def test_spectral_normalize_tree_forwards_differentiate_vectors():
    kernel, direction = jnp.asarray(make_kernel((5, 3)), jnp.float32), make_kernel((5, 3), 1)
    pair = {"u": jnp.ones(3), "v": jnp.ones(5)}

    def inside(kernel):
        normalized, _, _ = spectral_normalize_tree(
            {"layer": {"kernel": kernel}}, {"layer": {"kernel": pair}}, differentiate_vectors=True
        )
        return jnp.sum(direction * normalized["layer"]["kernel"])

    def alone(kernel):
        return jnp.sum(direction * spectral_normalize(kernel, pair["u"], differentiate_vectors=True)[0])

    assert_near(jax.jit(jax.grad(inside))(kernel), jax.jit(jax.grad(alone))(kernel), 1e-6)


# Initialisation


def test_init_spectral_selects_kernels_only():
    params, _ = make_tree()
    params["block"]["conv"]["query_kernel"] = jnp.ones((3, 5))
    spectral = init_spectral(jax.random.key(0), params)
    assert jax.tree.map(jnp.shape, spectral) == {
        "block": {"conv": {"kernel": {"u": (7,), "v": (30,)}, "query_kernel": {"u": (5,), "v": (3,)}}},
        "dense": {"kernel": {"u": (3,), "v": (5,)}},
        "kernel": {"u": (2,), "v": (13,)},
    }


def test_init_spectral_takes_the_leaves_that_select_accepts_by_path():
    params, _ = make_tree()
    spectral = init_spectral(jax.random.key(0), params, select=lambda path, leaf: path == "block/table")
    assert jax.tree.map(jnp.shape, spectral) == {"block": {"table": {"u": (7,), "v": (11,)}}}


def test_init_spectral_refuses_a_leaf_of_one_axis_by_its_path():
    with pytest.raises(ValueError, match="'norm/scale'"):
        init_spectral(jax.random.key(0), {"norm": {"scale": jnp.ones(3)}}, select=lambda path, leaf: True)


def test_spectral_normalize_tree_names_a_parameter_that_lacks_its_vectors():
    with pytest.raises(KeyError, match="'kernel'"):
        spectral_normalize_tree({"kernel": jnp.ones((2, 3))}, {"kernel": {"deeper": {}}})


def test_init_spectral_draws_u_from_a_normal_cut_at_two():
    u = np.asarray(init_spectral(jax.random.key(1), {"kernel": jnp.ones((1, 4099))})["kernel"]["u"], np.float64)
    assert np.abs(u).max() <= 2.0
    assert np.abs(u).max() > 1.98
    # A normal cut at two has variance 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.7737.
    assert abs(u.mean()) < 0.05
    assert abs(u.var() - 0.7737) < 0.05


def test_init_spectral_pairs_each_u_with_its_own_v():
    kernel = jnp.asarray(make_kernel(CONVOLUTION), jnp.float32)
    pair = init_spectral(jax.random.key(2), {"kernel": kernel})["kernel"]
    assert_near(pair["v"], oracle_iteration(kernel, pair["u"], 1)[1], 1e-6)


def test_init_spectral_differs_by_leaf_and_by_key():
    params = {"a": {"kernel": jnp.ones((2, 3)), "other_kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((2, 3))}}
    drawn = [
        tuple(np.asarray(u).tolist())
        for seed in (0, 1)
        for spectral in [init_spectral(jax.random.key(seed), params)]
        for u in (spectral["a"]["kernel"]["u"], spectral["a"]["other_kernel"]["u"], spectral["b"]["kernel"]["u"])
    ]
    assert len(set(drawn)) == 6


def test_init_spectral_of_one_key_is_the_same_twice():
    params, _ = make_tree()
    first, second = (init_spectral(jax.random.key(3), params) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


# Refusals


def test_spectral_normalize_without_iterations_refuses_a_missing_v():
    with pytest.raises(ValueError, match="iterations=0 uses the stored pair: give v"):
        spectral_normalize(jnp.ones((5, 3)), jnp.ones(3), iterations=0)


def test_spectral_normalize_refuses_a_u_of_another_length_when_traced():
    with pytest.raises(AssertionError, match=r"got kernel \(2, 3, 5, 7\) float32, u \(30,\)"):
        jax.jit(spectral_normalize)(jnp.ones(CONVOLUTION), jnp.ones(30))


def test_spectral_normalize_refuses_a_v_of_another_length_when_traced():
    with pytest.raises(AssertionError, match=r"matrix \[R, C\], v \[R\]; got matrix \(5, 3\) float32, v \(7,\)"):
        jax.jit(spectral_normalize, static_argnames="iterations")(
            jnp.ones((5, 3)), jnp.ones(3), jnp.ones(7), iterations=0
        )


def test_power_iteration_refuses_a_u_of_another_length_when_traced():
    with pytest.raises(AssertionError, match=r"matrix \[R, C\], u \[C\]; got matrix \(5, 3\) float32, u \(5,\)"):
        jax.jit(power_iteration, static_argnames="iterations")(jnp.ones((5, 3)), jnp.ones(5), iterations=1)


@pytest.mark.parametrize("iterations", [0, -1])
def test_power_iteration_refuses_to_make_no_step(iterations):
    with pytest.raises(AssertionError, match=f"power_iteration needs at least 1 iteration; got {iterations}"):
        power_iteration(jnp.ones((5, 3)), jnp.ones(3), iterations=iterations)


@pytest.mark.parametrize("path", [("kernels",), ("block", "dense"), ("block", "conv", "weight")])
def test_spectral_normalize_tree_refuses_an_entry_for_parameters_that_are_not_there(path):
    params, spectral = make_tree()
    inner = spectral
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = {"u": jnp.ones(7), "v": jnp.ones(30)}
    with pytest.raises(KeyError, match=path[-1]):
        spectral_normalize_tree(params, spectral)


def test_spectral_normalize_refuses_a_vector_for_a_kernel():
    with pytest.raises(AssertionError, match=r"kernel \[\.\.\., R, C\], .* got kernel \(3,\)"):
        spectral_normalize(jnp.ones(3), jnp.ones(3))


def test_power_iteration_of_float16_runs_in_float32():
    u, v = power_iteration(1000 * jnp.eye(3, dtype=jnp.float16), jnp.ones(3, jnp.float16), iterations=1)
    assert u.dtype == v.dtype == jnp.float32
    assert_near(u, np.full(3, 3**-0.5), 1e-6)


@pytest.mark.parametrize("size", [1e-4, 1e17])
def test_spectral_normalize_is_exact_in_the_range_that_it_states(size):
    normalized, _, _, sigma = spectral_normalize(size * jnp.eye(3), jnp.ones(3))
    assert float(sigma) == pytest.approx(size, rel=1e-5)
    assert_near(normalized, np.eye(3), 1e-5)


class Pair(NamedTuple):
    weight: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
    """A pytree node like an equinox module: it has named fields, some of which are not arrays."""

    weight: Any
    inner: Any
    activation: Any = dataclasses.field(metadata={"static": True}, default=None)


def wide(path, leaf):
    return leaf.ndim > 1


def kernels_of_trees(number=0):
    rng = np.random.default_rng(number)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 3), (5, 2), (2, 3, 4))]


def trees():
    first, second, third = kernels_of_trees()
    bias, note = jnp.arange(3.0), "no array"
    dictionary = {"a": {"kernel": first, "bias": bias}, "b": {"kernel": second}, "c": third}
    return {
        "list": ([first, [second, bias], third], {"0", "1/0", "2"}),
        "tuple": ((first, (second, bias), third), {"0", "1/0", "2"}),
        "named tuple": (Pair(first, Pair(second, None)), {"weight", "bias/weight"}),
        "module": (Block(first, [Block(second, note, jnp.tanh), third]), {"weight", "inner/0/weight", "inner/1"}),
        "mixed": ({"layers": [Pair(first, bias)], "last": third}, {"layers/0/weight", "last"}),
        "dictionary": (dictionary, {"a/kernel", "b/kernel", "c"}),
    }


def flat(spectral, scope=""):
    if set(spectral) == {"u", "v"}:
        return {scope.removesuffix("/"): spectral}
    return {path: pair for name, inner in spectral.items() for path, pair in flat(inner, f"{scope}{name}/").items()}


@pytest.mark.parametrize("kind", trees())
def test_any_tree_is_normalised_leaf_by_leaf_and_stays_what_it_is(kind):
    tree, paths = trees()[kind]
    spectral = init_spectral(jax.random.key(3), tree, select=wide)
    pairs = flat(spectral)
    assert set(pairs) == paths
    normalized, vectors, sigmas = spectral_normalize_tree(tree, spectral)
    assert jax.tree.structure(normalized) == jax.tree.structure(tree)
    assert jax.tree.structure(vectors) == jax.tree.structure(spectral)
    assert len(jax.tree.leaves(sigmas)) == len(paths)
    found, before = (jax.tree_util.tree_leaves_with_path(part) for part in (normalized, tree))
    for (path, leaf), (_, old) in zip(found, before, strict=True):
        pair = pairs.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        if pair is None:
            assert leaf is old
        else:
            assert (leaf == spectral_normalize(old, pair["u"])[0]).all()


def test_tree_of_any_kind_is_normalised_under_jit_and_differentiated():
    tree = Block(*kernels_of_trees()[:2])
    spectral = init_spectral(jax.random.key(3), tree, select=wide)
    gradient = jax.jit(jax.grad(lambda part: spectral_normalize_tree(part, spectral)[0].inner.sum()))(tree)
    assert isinstance(gradient, Block)
    assert not gradient.weight.any()
    assert gradient.inner.any()


def test_nnx_state_is_normalised_and_stays_a_state():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Conv(4, 5, (3, 3), rngs=nnx.Rngs(1)))
    state = nnx.state(model)
    spectral = init_spectral(jax.random.key(3), state)
    assert set(flat(spectral)) == {"layers/0/kernel/value", "layers/1/kernel/value"}
    normalized, spectral, _ = spectral_normalize_tree(state, spectral, iterations=30)
    assert isinstance(normalized, nnx.State)
    nnx.update(model, normalized)
    kernel = np.asarray(model.layers[0].kernel[...])
    assert abs(np.linalg.svd(kernel, compute_uv=False)[0] - 1) < 1e-3


def test_array_in_place_of_a_tree_is_refused():
    with pytest.raises(ValueError, match="init_spectral needs a tree of arrays"):
        init_spectral(jax.random.key(0), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="spectral_normalize_tree needs a tree of arrays"):
        spectral_normalize_tree(jnp.ones((2, 2)), {})


def test_entry_for_an_index_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="'7'"):
        spectral_normalize_tree([jnp.ones((2, 2))], {"7": {"u": jnp.ones(2), "v": jnp.ones(2)}})


def test_init_spectral_draws_for_dictionaries_what_it_always_drew():
    """So runs of earlier versions go on with the same vectors."""
    key = jax.random.key(3)
    tree = {"b": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "a": {"x": jnp.ones(2)}}
    inner = jax.random.fold_in(jax.random.fold_in(key, 1), 1)  # b is the tree's second name, kernel is b's second
    wanted = jax.random.truncated_normal(inner, -2.0, 2.0, (3,))
    assert (init_spectral(key, tree)["b"]["kernel"]["u"] == wanted).all()
