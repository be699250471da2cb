import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import attend, attention_map, self_attention
from support.assertions import assert_near


def make_inputs(form, *, leading=(2,), seed=0):
    """The six arguments in float64 and the pool; no two sizes are equal, pooled and merged ones included."""
    random = np.random.default_rng(seed)
    height, width, c, d, e, pool = (6, 10, 7, 11, 13, 2) if form == "release" else (3, 5, 7, 11, 7, 1)

    def kernel(rows, columns):
        return random.normal(size=(rows, columns)) / math.sqrt(rows)

    arguments = {
        "features": random.normal(size=(*leading, height, width, c)),
        "query_kernel": kernel(c, d) / 2,
        "key_kernel": kernel(c, d),
        "value_kernel": kernel(c, e),
        "output_kernel": kernel(e, c) if form == "release" else None,
        "gamma": 0.75,
    }
    return arguments, pool


def as_dtype(arguments, dtype):
    return {name: None if value is None else jnp.asarray(value, dtype) for name, value in arguments.items()}


def oracle_map(queries, keys):
    """Equation 1 by scalar loops in float64, for `[N, D]` and `[M, D]`."""
    beta = np.zeros((len(queries), len(keys)))
    for j in range(len(queries)):
        scores = [
            math.fsum(float(q) * float(k) for q, k in zip(queries[j], key, strict=True)) for key in np.asarray(keys)
        ]
        weights = [math.exp(score - max(scores)) for score in scores]
        beta[j] = [weight / math.fsum(weights) for weight in weights]
    return beta


def oracle_layer(features, query_kernel, key_kernel, value_kernel, output_kernel, gamma, *, pool):
    """Equation 3 for one image by scalar loops in float64: nothing is reshaped, every position is named (y, x)."""

    def project(position, kernel):
        return [math.fsum(position[i] * kernel[i, j] for i in range(len(position))) for j in range(kernel.shape[1])]

    def pooled(kernel):
        rows = []
        for top in range(0, features.shape[0], pool):
            for left in range(0, features.shape[1], pool):
                window = [project(features[top + dy, left + dx], kernel) for dy in range(pool) for dx in range(pool)]
                rows.append([max(column) for column in zip(*window, strict=True)])
        return rows

    height, width, _ = features.shape
    keys, values = pooled(key_kernel), np.array(pooled(value_kernel))
    beta = oracle_map([project(features[y, x], query_kernel) for y in range(height) for x in range(width)], keys)
    output = np.zeros_like(features)
    for y in range(height):
        for x in range(width):
            gathered = project(beta[y * width + x], values)
            if output_kernel is not None:
                gathered = project(gathered, output_kernel)
            output[y, x] = [gamma * o + own for o, own in zip(gathered, features[y, x], strict=True)]
    return output, beta


def oracle_batch(arguments, pool):
    """The oracle for each image of a batch `[B, H, W, C]`."""
    wide = {name: None if value is None else np.asarray(value, np.float64) for name, value in arguments.items()}
    images = [oracle_layer(**{**wide, "features": image}, pool=pool) for image in wide["features"]]
    return np.stack([y for y, _ in images]), np.stack([beta for _, beta in images])


def equations(jaxpr):
    """Every equation of a jaxpr, inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (list, tuple)) else [parameter]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


# Worked by hand


def test_attention_map_is_the_softmax_that_pencil_gives():
    queries = jnp.array([[1.0, 2.0, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    keys = jnp.array(
        [[2.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -1.0], [1.0, 1.0, 1.0, -1.0]]
    )  # scores 0, 1, 1 and 0, 0, 0
    e = math.e
    assert_near(attention_map(queries, keys), [[1 / (1 + 2 * e), e / (1 + 2 * e), e / (1 + 2 * e)], [1 / 3] * 3], 2e-7)


def test_attention_map_does_not_divide_its_scores_by_the_root_of_the_depth():
    random = np.random.default_rng(1)
    queries, keys = random.normal(size=(5, 3)), random.normal(size=(7, 3))
    padded = attention_map(
        *(jnp.asarray(np.pad(operand, ((0, 0), (0, 13))), jnp.float32) for operand in (queries, keys))
    )
    assert_near(padded, oracle_map(queries, keys), 2e-6)


def test_attention_map_has_rows_that_sum_to_one():
    random = np.random.default_rng(2)
    beta = attention_map(jnp.asarray(random.normal(size=(2, 5, 3)) * 9), jnp.asarray(random.normal(size=(2, 7, 3))))
    assert beta.shape == (2, 5, 7)
    assert_near(np.asarray(beta, np.float64).sum(-1), np.ones((2, 5)), 1e-6)


def test_attention_map_survives_scores_that_overflow_an_exponential():
    beta = attention_map(jnp.array([[200.0], [-200.0]]), jnp.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_array_equal(beta, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def test_attention_map_of_an_infinite_score_is_nan():
    assert np.isnan(attention_map(jnp.array([[jnp.inf]]), jnp.array([[1.0], [2.0]]))).all()


def test_attend_averages_the_values_with_the_rows_of_the_map():
    beta = jnp.array([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5]])
    values = jnp.array([[4.0, 0.0, 1.0, -8.0], [8.0, 4.0, 1.0, 0.0], [0.0, 2.0, 3.0, 16.0]])
    np.testing.assert_array_equal(attend(beta, values), [[7.0, 3.0, 1.0, -2.0], [2.0, 1.0, 2.0, 4.0]])


# Precision


@pytest.mark.parametrize("form", ["release", "article"])
def test_self_attention_in_float32_is_the_oracle(form):
    arguments, pool = make_inputs(form)
    arguments = as_dtype(arguments, jnp.float32)
    features, beta = jax.jit(partial(self_attention, pool=pool))(**arguments)
    expected_features, expected_beta = oracle_batch(arguments, pool)
    assert features.dtype == beta.dtype == jnp.float32
    assert_near(features, expected_features, 2e-6, "features")
    assert_near(beta, expected_beta, 2e-6, "map")


@pytest.mark.parametrize("form", ["release", "article"])
def test_self_attention_in_float64_is_the_oracle(form):
    arguments, pool = make_inputs(form)
    expected_features, expected_beta = oracle_batch(arguments, pool)
    with jax.enable_x64(True):
        features, beta = jax.jit(partial(self_attention, pool=pool))(**as_dtype(arguments, jnp.float64))
    assert features.dtype == beta.dtype == np.float64
    assert_near(features, expected_features, 1e-14, "features")
    assert_near(beta, expected_beta, 1e-14, "map")


@pytest.mark.parametrize("form", ["release", "article"])
def test_self_attention_in_bfloat16_is_near_the_oracle_on_the_rounded_inputs(form):
    arguments, pool = make_inputs(form)
    arguments = as_dtype(arguments, jnp.bfloat16)
    features, beta = jax.jit(partial(self_attention, pool=pool))(**arguments)
    expected_features, expected_beta = oracle_batch(arguments, pool)
    assert features.dtype == beta.dtype == jnp.bfloat16
    assert_near(features, expected_features, 2e-2, "features")
    assert_near(beta, expected_beta, 2e-2, "map")


def test_attention_map_of_bfloat16_operands_keeps_scores_and_softmax_in_float32():
    # Scores of 256 and 257: bfloat16 has no 257, and would weigh both keys alike.
    beta = attention_map(jnp.array([[16, 1]], jnp.bfloat16), jnp.array([[16, 0], [16, 1]], jnp.bfloat16))
    assert beta.dtype == jnp.bfloat16
    assert_near(beta, [[1 / (1 + math.e), math.e / (1 + math.e)]], 4e-3)


def test_attention_map_of_bfloat16_operands_takes_its_exponentials_in_float32():
    trace = jax.make_jaxpr(attention_map)(jnp.ones((3, 2), jnp.bfloat16), jnp.ones((5, 2), jnp.bfloat16))
    exponentials = [equation for equation in equations(trace.jaxpr) if equation.primitive.name == "exp"]
    assert [equation.invars[0].aval.dtype for equation in exponentials] == [jnp.float32]


def test_attend_of_bfloat16_operands_accumulates_in_float32():
    trace = jax.make_jaxpr(attend)(jnp.ones((3, 5), jnp.bfloat16), jnp.ones((5, 2), jnp.bfloat16))
    products = [equation for equation in equations(trace.jaxpr) if equation.primitive.name == "dot_general"]
    assert [equation.outvars[0].aval.dtype for equation in products] == [jnp.float32]


# Reductions and symmetries


@pytest.mark.parametrize("form", ["release", "article"])
def test_self_attention_with_gamma_zero_is_the_identity_bit_for_bit(form):
    arguments, pool = make_inputs(form)
    arguments = as_dtype(arguments, jnp.float32)
    features, _ = jax.jit(partial(self_attention, pool=pool))(**{**arguments, "gamma": 0.0})
    assert np.asarray(features).tobytes() == np.asarray(arguments["features"]).tobytes()


def test_self_attention_under_jit_equals_eager():
    arguments, pool = make_inputs("release")
    arguments = as_dtype(arguments, jnp.float32)
    plain = self_attention(**arguments, pool=pool)
    compiled = jax.jit(self_attention, static_argnames="pool")(**arguments, pool=pool)
    for name, ours, theirs in zip(("features", "map"), compiled, plain, strict=True):
        assert_near(ours, theirs, 1e-6, name)


def test_self_attention_of_a_batch_is_its_vmap_and_its_loop_over_images():
    arguments, pool = make_inputs("release", leading=(3,))
    arguments = as_dtype(arguments, jnp.float32)
    features = arguments.pop("features")
    layer = jax.jit(lambda features: self_attention(features, **arguments, pool=pool))
    images = [layer(image) for image in features]
    mapped = jax.vmap(layer)(features)
    for index, batched in enumerate(layer(features)):
        assert_near(mapped[index], batched, 1e-6, "vmap")
        assert_near(np.stack([image[index] for image in images]), batched, 1e-6, "loop")


def test_self_attention_carries_any_leading_axes():
    arguments, pool = make_inputs("release", leading=(2, 3))
    arguments = as_dtype(arguments, jnp.float32)
    layer = jax.jit(partial(self_attention, pool=pool))
    features, beta = layer(**arguments)
    flat_features, flat_beta = layer(**{**arguments, "features": arguments["features"].reshape(6, 6, 10, 7)})
    assert_near(features, flat_features.reshape(2, 3, 6, 10, 7), 1e-6, "features")
    assert_near(beta, flat_beta.reshape(2, 3, 60, 15), 1e-6, "map")


def test_self_attention_without_pooling_permutes_with_its_positions():
    arguments, pool = make_inputs("article")
    arguments = as_dtype(arguments, jnp.float32)
    order = np.random.default_rng(3).permutation(15)
    layer = jax.jit(partial(self_attention, pool=pool))

    def permuted(maps):
        return np.asarray(maps).reshape(2, 15, 7)[:, order].reshape(2, 3, 5, 7)

    features, beta = layer(**arguments)
    permuted_features, permuted_beta = layer(**{**arguments, "features": permuted(arguments["features"])})
    assert_near(permuted_features, permuted(features), 2e-6, "features")
    assert_near(permuted_beta, np.asarray(beta)[:, order][:, :, order], 2e-6, "map")


# Gradients


@pytest.mark.parametrize("form", ["release", "article"])
def test_self_attention_has_the_gradient_of_its_central_differences(form):
    arguments, pool = make_inputs(form, leading=())
    arguments = {name: value for name, value in arguments.items() if value is not None}
    random = np.random.default_rng(4)
    epsilon = 1e-6
    with jax.enable_x64(True):

        def weighted(arguments, weights):
            outputs = self_attention(**{"output_kernel": None, **arguments}, pool=pool)
            return sum(jnp.sum(weight * output) for weight, output in zip(weights, outputs, strict=True))

        positions = arguments["features"].shape[0] * arguments["features"].shape[1]
        weights = (
            random.normal(size=arguments["features"].shape),
            random.normal(size=(positions, positions // pool**2)),
        )
        gradient = jax.jit(jax.grad(weighted))(as_dtype(arguments, jnp.float64), weights)
        value = jax.jit(weighted)
        for name, argument in arguments.items():
            direction = random.normal(size=np.shape(argument))

            def along(step, name=name, argument=argument, direction=direction):
                return float(value(as_dtype({**arguments, name: argument + step * direction}, jnp.float64), weights))

            numeric = (along(epsilon) - along(-epsilon)) / (2 * epsilon)
            analytic = float(np.sum(np.asarray(gradient[name]) * direction))
            assert analytic == pytest.approx(numeric, rel=1e-6, abs=0), name


def test_self_attention_with_pooling_has_a_gradient_without_any_scatter():
    arguments, pool = make_inputs("release")
    arguments = as_dtype(arguments, jnp.float32)
    gradient = jax.grad(lambda arguments: self_attention(**arguments, pool=pool)[0].sum())
    names = {equation.primitive.name for equation in equations(jax.make_jaxpr(gradient)(arguments).jaxpr)}
    assert "dot_general" in names
    assert not {name for name in names if "scatter" in name}
    assert "scatter" not in jax.jit(gradient).lower(arguments).as_text()


# Refusals


@pytest.mark.parametrize(
    ("queries", "keys"), [((5, 3), (7, 2)), ((2, 5, 3), (7, 3)), ((2, 5, 3), (11, 7, 3)), ((5, 3), (2, 7, 3))]
)
def test_attention_map_refuses_shapes_that_do_not_fit_when_traced(queries, keys):
    with pytest.raises(AssertionError) as error:
        jax.jit(attention_map)(jnp.ones(queries), jnp.ones(keys))
    assert f"got queries {queries} float32, keys {keys} float32" in str(error.value)


@pytest.mark.parametrize(("queries", "keys"), [("int32", "int32"), ("float32", "bfloat16"), ("bfloat16", "float32")])
def test_attention_map_refuses_dtypes_that_do_not_fit_when_traced(queries, keys):
    with pytest.raises(AssertionError) as error:
        jax.jit(attention_map)(jnp.ones((5, 3), queries), jnp.ones((7, 3), keys))
    assert f"got queries (5, 3) {queries}, keys (7, 3) {keys}" in str(error.value)


@pytest.mark.parametrize(("beta", "values"), [((5, 7), (5, 3)), ((2, 5, 7), (7, 3)), ((2, 5, 7), (11, 7, 3))])
def test_attend_refuses_shapes_that_do_not_fit_when_traced(beta, values):
    with pytest.raises(AssertionError) as error:
        jax.jit(attend)(jnp.ones(beta), jnp.ones(values))
    assert f"got attention_map {beta} float32, values {values} float32" in str(error.value)


def test_attend_refuses_dtypes_that_do_not_fit_when_traced():
    with pytest.raises(AssertionError, match=r"of one dtype; got .* float32, values \(7, 3\) bfloat16"):
        jax.jit(attend)(jnp.ones((5, 7)), jnp.ones((7, 3), jnp.bfloat16))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("query_kernel", (8, 11)),
        ("query_kernel", (7, 12)),
        ("key_kernel", (7, 12)),
        ("key_kernel", (1, 7, 11)),
        ("value_kernel", (8, 13)),
        ("value_kernel", (7, 12)),
        ("output_kernel", (7, 13)),
        ("output_kernel", (13, 8)),
    ],
)
def test_self_attention_refuses_a_kernel_that_does_not_fit_when_traced(name, shape):
    arguments, pool = make_inputs("release")
    arguments = as_dtype(arguments, jnp.float32)
    with pytest.raises(AssertionError) as error:
        jax.jit(partial(self_attention, pool=pool))(**{**arguments, name: jnp.ones(shape)})
    assert f"{name} {shape} float32" in str(error.value)
    assert "got features (2, 6, 10, 7) float32" in str(error.value)


def test_self_attention_refuses_queries_and_keys_of_other_channels_when_traced():
    arguments, pool = make_inputs("release")
    arguments = {**as_dtype(arguments, jnp.float32), "query_kernel": jnp.ones((8, 11)), "key_kernel": jnp.ones((8, 11))}
    with pytest.raises(AssertionError, match=r"query_kernel \(8, 11\) float32, key_kernel \(8, 11\) float32"):
        jax.jit(partial(self_attention, pool=pool))(**arguments)


def test_self_attention_without_output_kernel_refuses_values_of_another_width():
    arguments, pool = make_inputs("article")
    arguments = as_dtype(arguments, jnp.float32)
    with pytest.raises(AssertionError, match=r"an output_kernel, or E = C; got None and value_kernel \(7, 13\)"):
        jax.jit(partial(self_attention, pool=pool))(**{**arguments, "value_kernel": jnp.ones((7, 13))})


@pytest.mark.parametrize("name", ["features", "query_kernel", "key_kernel", "value_kernel", "output_kernel"])
def test_self_attention_refuses_a_dtype_that_does_not_fit_when_traced(name):
    arguments, pool = make_inputs("release")
    arguments = as_dtype(arguments, jnp.float32)
    other = arguments[name].astype(jnp.bfloat16)
    with pytest.raises(AssertionError) as error:
        jax.jit(partial(self_attention, pool=pool))(**{**arguments, name: other})
    assert f"{name} {other.shape} bfloat16" in str(error.value)


def test_self_attention_refuses_a_gate_that_is_no_scalar():
    arguments, pool = make_inputs("release")
    with pytest.raises(AssertionError, match="self_attention needs"):
        jax.jit(partial(self_attention, pool=pool))(**{**as_dtype(arguments, jnp.float32), "gamma": jnp.ones(7)})


@pytest.mark.parametrize("size", [(5, 10), (6, 9)])
def test_self_attention_refuses_a_pool_that_does_not_divide_the_image(size):
    arguments, pool = make_inputs("release")
    arguments = as_dtype(arguments, jnp.float32)
    with pytest.raises(AssertionError) as error:
        jax.jit(partial(self_attention, pool=pool))(**{**arguments, "features": jnp.ones((2, *size, 7))})
    assert f"pool 1 or 2 that divides H and W; got 2 for features (2, {size[0]}, {size[1]}, 7)" in str(error.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: attention_map(jnp.ones(3), jnp.ones((4, 3))),
        lambda: attend(jnp.ones(3), jnp.ones((3, 4))),
        lambda: self_attention(jnp.ones((6, 8)), *3 * [jnp.ones((8, 2))], jnp.ones((2, 8)), 0.0, pool=1),
        lambda: self_attention(jnp.ones((6, 6, 8)), *3 * [jnp.ones((8, 2))], jnp.ones((2, 8)), 0.0, pool=3),
    ],
    ids=["map-of-a-vector", "attend-with-a-vector", "image-without-channels", "pool-3"],
)
def test_attention_refuses_too_few_axes_and_other_pools_in_its_own_words(call):
    with pytest.raises(AssertionError, match=r"needs .* got "):
        call()


@pytest.mark.parametrize("pool", [1, 2])
def test_self_attention_of_an_empty_batch_is_empty(pool):
    features, kernel = jnp.ones((0, 4, 6, 8)), jnp.ones((8, 2))
    y, beta = self_attention(features, kernel, kernel, kernel, jnp.ones((2, 8)), 0.5, pool=pool)
    assert (y.shape, beta.shape) == ((0, 4, 6, 8), (0, 24, 24 // pool**2))


def test_attention_without_depth_or_keys_is_refused_in_one_line():
    features, empty, kernel = jnp.ones((2, 4, 6, 8)), jnp.ones((8, 0)), jnp.ones((8, 2))
    with pytest.raises(AssertionError, match=r"self_attention needs .*query_kernel \(8, 0\) .*: no D may be 0\.$"):
        self_attention(features, empty, empty, kernel, jnp.ones((2, 8)), 0.5, pool=1)
    with pytest.raises(AssertionError, match=r"attention_map needs .*: no M may be 0\.$"):
        attention_map(jnp.ones((3, 2)), jnp.ones((0, 2)))
