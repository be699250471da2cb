"""`attend_positions` and `attention_rows`: the same numbers as the whole map, in less memory."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import attend, attend_positions, attention, attention_map, attention_rows, self_attention
from sagan_jax.functional import fused_attention as fused
from support.assertions import assert_near

# How much of the map is computed at once. The sizes are just beyond the CPU's bounds, and no block divides its axis.
WAYS = {
    "whole maps": (2, 53, 31),
    "some images at a time": (37, 300, 200),
    "one image at a time": (5, 701, 650),
    "some rows of an image at a time": (2, 1601, 1409),
}


def make_operands(way, *, depth=7, width=11, seed=0, kind="random"):
    """Returns queries, keys, values and a cotangent in float64, exact in float32. `kind` chooses the scores."""
    random = np.random.default_rng(seed)
    batch, n, m = WAYS[way]
    values, cotangent = random.normal(size=(batch, m, width)), random.normal(size=(batch, n, width))
    if kind == "random":
        queries, keys = random.normal(size=(batch, n, depth)), random.normal(size=(batch, m, depth))
    elif kind == "one-hot":  # a key is a corner of a cube, and a query points at one corner
        corners = random.choice([-1.0, 1.0], size=(batch, m, 20))
        queries, keys = 512 * corners[:, random.integers(0, m, n)], corners
    elif kind == "equal":
        queries, keys = random.normal(size=(batch, n, depth)), np.ones((batch, m, depth))
    else:  # scores of 1e4, 0 and -1e4, with many ties
        queries = 100 * random.choice([-1.0, 1.0], size=(batch, n, 1))
        keys = 100 * random.choice([-1.0, 0.0, 1.0], size=(batch, m, 1))
    return [np.asarray(x, np.float32).astype(np.float64) for x in (queries, keys, values, cotangent)]


def oracle(queries, keys, values, cotangent):
    """The output and the gradients of queries, keys and values, by the formulas in float64, image by image."""
    found = []
    for q, k, v, g in zip(queries, keys, values, cotangent, strict=True):
        scores = q @ k.T
        beta = np.exp(scores - scores.max(axis=1, keepdims=True))
        beta /= beta.sum(axis=1, keepdims=True)
        inner = g @ v.T
        slope = beta * (inner - (beta * inner).sum(axis=1, keepdims=True))
        found.append((beta @ v, slope @ k, slope.T @ q, beta.T @ g))
    return [np.stack(part) for part in zip(*found, strict=True)]


def sums_of_sizes(queries, keys, values, cotangent):
    """Like `oracle`, but sums magnitudes and returns the largest: rounding is relative to it where terms cancel."""
    found = []
    for q, k, v, g in zip(queries, keys, values, cotangent, strict=True):
        scores = q @ k.T
        beta = np.exp(scores - scores.max(axis=1, keepdims=True))
        beta /= beta.sum(axis=1, keepdims=True)
        inner = np.abs(g @ v.T)
        slope = beta * (inner + (beta * inner).sum(axis=1, keepdims=True))
        found.append((beta @ np.abs(v), slope @ np.abs(k), slope.T @ np.abs(q), beta.T @ np.abs(g)))
    return [np.stack(part).max() for part in zip(*found, strict=True)]


def value_and_gradients(function, queries, keys, values, cotangent):
    def both(queries, keys, values, cotangent):
        value, pullback = jax.vjp(function, queries, keys, values)
        return value, *pullback(cotangent)

    return jax.jit(both)(queries, keys, values, cotangent)


def plain(queries, keys, values):
    return attend(attention_map(queries, keys), values)


def near(found, wanted, tolerance):
    for name, ours, theirs in zip(("value", "queries", "keys", "values"), found, wanted, strict=True):
        assert_near(ours, theirs, tolerance, name)


@pytest.mark.parametrize("way", WAYS)
def test_attend_positions_and_its_gradient_in_float32_are_the_oracle(way):
    operands = make_operands(way)
    found = value_and_gradients(attend_positions, *(jnp.asarray(x, jnp.float32) for x in operands))
    near(found, oracle(*operands), 1e-5)


@pytest.mark.parametrize("kind", ["one-hot", "equal", "huge"])
@pytest.mark.parametrize("way", WAYS)
def test_attend_positions_is_the_oracle_where_gradients_cancel(way, kind):
    operands = make_operands(way, kind=kind)
    found = value_and_gradients(attend_positions, *(jnp.asarray(x, jnp.float32) for x in operands))
    for ours, wanted, size in zip(found, oracle(*operands), sums_of_sizes(*operands), strict=True):
        np.testing.assert_allclose(np.asarray(ours, np.float64), wanted, rtol=0, atol=1e-5 * size)


def test_attend_positions_beyond_cpus_are_the_oracle():
    operands = make_operands("some rows of an image at a time")
    found = value_and_gradients(attention._attend_in_parallel, *(jnp.asarray(x, jnp.float32) for x in operands))
    near(found, oracle(*operands), 1e-5)


@pytest.mark.parametrize("way", ["some images at a time", "some rows of an image at a time"])
def test_attend_positions_in_float64_is_the_oracle(way):
    operands = make_operands(way)
    with jax.enable_x64(True):
        found = value_and_gradients(attend_positions, *map(jnp.asarray, operands))
        assert {x.dtype for x in found} == {np.dtype(np.float64)}
        near(found, oracle(*operands), 1e-13)


@pytest.mark.slow
@pytest.mark.one_jax
def test_attend_positions_in_bfloat16_sums_gradients_over_blocks_in_float32():
    # There are 64 blocks. Sums in bfloat16 would stop growing long before the last block.
    random = np.random.default_rng(1)
    shapes = ((1, 2048, 3), (1, 2**14, 3), (1, 2**14, 5))
    operands = [jnp.asarray(random.normal(size=shape), jnp.bfloat16) for shape in shapes]
    operands.append(jnp.ones((1, 2048, 5), jnp.bfloat16))
    found = value_and_gradients(attend_positions, *operands)
    assert {x.dtype for x in found} == {jnp.dtype(jnp.bfloat16)}
    wanted = oracle(*(np.asarray(x, np.float64) for x in operands))
    assert_near(found[0], wanted[0], 2e-2)
    np.testing.assert_allclose(np.asarray(found[3], np.float64), wanted[3], rtol=2**-6)


@pytest.mark.parametrize("way", ["some images at a time", "some rows of an image at a time"])
def test_attend_positions_has_the_second_derivatives_of_the_plain_form(way):
    *operands, cotangent = (jnp.asarray(x, jnp.float32) for x in make_operands(way, depth=3, width=2))
    direction = [jnp.cos(7 * x) for x in operands]

    def curvature(function):
        gradient = jax.grad(lambda *x: jnp.sum(cotangent * jnp.sin(function(*x))), argnums=(0, 1, 2))

        def along(*x):
            return sum(jnp.vdot(one, other) for one, other in zip(gradient(*x), direction, strict=True))

        twice = jax.jit(jax.grad(along, argnums=(0, 1, 2)))(*operands)
        forward = jax.jit(lambda *x: jax.jvp(gradient, x, tuple(direction))[1])(*operands)
        return [*twice, *forward]

    for ours, theirs in zip(curvature(attend_positions), curvature(plain), strict=True):
        assert_near(ours, theirs, 1e-5)


def test_attend_positions_of_a_batch_is_its_vmap_and_that_of_its_images():
    *operands, _ = (jnp.asarray(x, jnp.float32) for x in make_operands("some rows of an image at a time"))
    batch = attend_positions(*operands)
    assert_near(jax.jit(jax.vmap(attend_positions))(*operands), batch, 1e-6)
    assert_near(np.stack([attend_positions(*image) for image in zip(*operands, strict=True)]), batch, 1e-6)


def test_attend_positions_carries_any_leading_axes_and_empty_batches():
    random = np.random.default_rng(2)
    q, k, v = (jnp.asarray(random.normal(size=(2, 3, *shape)), jnp.float32) for shape in ((5, 4), (7, 4), (7, 6)))
    assert_near(attend_positions(q, k, v), plain(q, k, v), 1e-6)
    assert attend_positions(q[:0], k[:0], v[:0]).shape == (0, 3, 5, 6)
    assert attend_positions(*(jnp.ones((0, 2000, 9)) for _ in range(3))).shape == (0, 2000, 9)


@pytest.mark.parametrize(("positions", "depth"), [(30, 3), (1100, 3)], ids=["whole maps", "blocks"])
def test_attend_positions_is_exported_for_any_batch(positions, depth):
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, positions, depth), jnp.float32)
    read = jax.export.deserialize(
        jax.export.export(jax.jit(attend_positions), platforms=("cpu", "cuda"))(shape, shape, shape).serialize()
    )
    for images in (1, 3):
        random = np.random.default_rng(images)
        operands = [jnp.asarray(random.normal(size=(images, positions, depth)), jnp.float32) for _ in range(3)]
        assert_near(read.call(*operands), plain(*operands), 1e-5)


def test_attend_positions_of_an_infinite_score_is_nan():
    assert np.isnan(attend_positions(jnp.array([[jnp.inf]]), jnp.ones((2, 1)), jnp.ones((2, 3)))).all()


def test_attend_positions_refuses_shapes_that_do_not_fit():
    with pytest.raises(AssertionError, match=r"attend_positions needs .* values \(6, 2\) float32"):
        attend_positions(jnp.ones((5, 3)), jnp.ones((7, 3)), jnp.ones((6, 2)))


@pytest.mark.parametrize("attend_all", [attention._attend_on_cpu, attention._attend_in_parallel])
@pytest.mark.parametrize("width", [32, 64], ids=["release", "article"])
def test_attention_at_128_by_128_takes_64_mib_an_image_at_most(attend_all, width):
    # The map alone would be 1 GiB an image.
    def shape(positions, channels):
        return jax.ShapeDtypeStruct((3, positions, channels), jnp.float32)

    positions = 128**2
    operands = shape(positions, 8), shape(positions, 8), shape(positions, width)

    def gradients(queries, keys, values, cotangent):
        value, pullback = jax.vjp(attend_all, queries, keys, values)
        return value, *pullback(cotangent)

    forward = jax.jit(attend_all).lower(*operands).compile()
    backward = jax.jit(gradients).lower(*operands, operands[2]).compile()
    for program in (forward, backward):
        # XLA's libraries allocate within a fusion, which `memory_analysis` leaves out. So the program may name no map.
        assert f"{positions},{positions}]" not in program.as_text()
        assert program.memory_analysis().temp_size_in_bytes <= 3 * 64 * 2**20


def test_block_of_a_very_wide_map_has_at_least_128_rows():
    operands = [jax.ShapeDtypeStruct((1, positions, 8), jnp.float32) for positions in (256, 2**14, 2**14)]
    assert "tensor<128x16384xf32>" in jax.jit(attention._attend_on_cpu).lower(*operands).as_text()


# The rows of some positions


def test_attention_rows_are_rows_of_the_map():
    random = np.random.default_rng(3)
    queries, keys = (jnp.asarray(random.normal(size=(2, *shape)), jnp.float32) for shape in ((13, 3), (7, 3)))
    rows = attention_rows(queries, keys, jnp.array([4, 0, 12, 4]))
    assert_near(rows, np.asarray(attention_map(queries, keys))[:, [4, 0, 12, 4]], 1e-6)


@pytest.mark.parametrize("position", [-1, 13])
def test_attention_row_of_a_position_outside_is_nan(position):
    rows = attention_rows(jnp.ones((13, 3)), jnp.ones((7, 3)), jnp.array([2, position]))
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]


def test_attention_rows_refuse_positions_that_are_no_integers():
    with pytest.raises(AssertionError, match="integer positions; got float32"):
        attention_rows(jnp.ones((13, 3)), jnp.ones((7, 3)), jnp.array([2.0]))


# The layer without its map


def layer_arguments():
    random = np.random.default_rng(4)
    shapes = {"features": (2, 6, 10, 7), "query_kernel": (7, 3), "key_kernel": (7, 3), "value_kernel": (7, 5)}
    shapes |= {"output_kernel": (5, 7)}
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def test_self_attention_without_its_map_returns_the_same_features():
    arguments = layer_arguments()
    features = self_attention(**arguments, gamma=0.5, pool=2, return_map=False)
    wanted, _ = self_attention(**arguments, gamma=0.5, pool=2)
    assert_near(features, wanted, 1e-6)


def test_self_attention_without_its_map_has_the_same_gradient():
    def gradient(features_of):
        return jax.grad(lambda arguments: jnp.sum(jnp.sin(features_of(arguments))))(layer_arguments())

    ours = gradient(lambda arguments: self_attention(**arguments, gamma=0.5, pool=2, return_map=False))
    theirs = gradient(lambda arguments: self_attention(**arguments, gamma=0.5, pool=2)[0])
    for name, wanted in theirs.items():
        assert_near(ours[name], wanted, 1e-5, name)


# cuDNN


@pytest.fixture
def cuda_at_hand(monkeypatch):
    """Lets attention be lowered for CUDA on a machine without it. The result cannot run."""
    kernels = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(kernels, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(attention, "has_fused_attention", lambda: True)


def lowered(platform, dtype, *, depth=5, width=16):
    def gradients(queries, keys, values):
        return jax.grad(lambda *x: attend_positions(*x).astype(jnp.float32).sum(), argnums=(0, 1, 2))(
            queries, keys, values
        )

    shapes = (3, 40, depth), (3, 20, depth), (3, 20, width)
    operands = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.jit(gradients).trace(*operands).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.usefixtures("cuda_at_hand")
def test_attention_in_bfloat16_on_cuda_is_cudnns_of_padded_operands_with_scale_one():
    text = lowered("cuda", jnp.bfloat16)
    calls = [line for line in text.splitlines() if "__cudnn$fmha" in line]
    assert sorted("Backward" in call for call in calls) == [False, True]
    for call in calls:
        assert "tensor<3x40x1x16xbf16>" in call  # queries
        assert "tensor<3x20x1x16xbf16>" in call  # keys and values
        assert "fmha_scale\\22: 1.0" in call
    assert "stablehlo.exponential" not in text


@pytest.mark.usefixtures("cuda_at_hand")
@pytest.mark.parametrize(
    ("platform", "dtype", "width"),
    [("cpu", "bfloat16", 16), ("cuda", "float32", 16), ("cuda", "bfloat16", 12), ("cuda", "bfloat16", 136)],
)
def test_attention_that_cudnn_does_not_take_is_made_in_blocks(platform, dtype, width):
    text = lowered(platform, jnp.dtype(dtype), width=width)
    assert "cudnn" not in text
    assert "stablehlo.exponential" in text


def test_attention_without_a_gpu_never_asks_for_cudnn():
    assert not fused.has_fused_attention() or jax.devices("cuda")
    assert "cudnn" not in lowered("cpu", jnp.bfloat16)


def test_gradients_of_gradients_of_the_fused_kernel_are_those_of_the_plain_form(monkeypatch):
    # A stand-in for the kernel. It has a gradient, but no derivative of the gradient, as jax's call of cuDNN.
    @jax.custom_vjp
    def kernel(queries, keys, values):
        return plain(queries, keys, values)

    def backward(operands, cotangent):
        pull = jax.pure_callback(lambda *x: jax.vjp(plain, *x[:3])[1](x[3]), operands, *operands, cotangent)
        return tuple(pull)

    kernel.defvjp(lambda *operands: (plain(*operands), operands), backward)
    monkeypatch.setattr(fused, "_cudnn_attention", kernel)
    random = np.random.default_rng(5)
    operands = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, 5, 3), (2, 7, 3), (2, 7, 4))]

    def twice(function):
        gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(function(*x))), argnums=(0, 1, 2))
        return gradient(*operands), jax.grad(lambda *x: sum(jnp.sum(g**3) for g in gradient(*x)), (0, 1, 2))(*operands)

    with pytest.raises(ValueError, match="do not support JVP"):
        twice(kernel)
    for ours, theirs in zip(twice(fused.fused_attention(plain)), twice(plain), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert_near(one, other, 1e-5)


@pytest.mark.skipif(not fused.has_fused_attention(), reason="needs a CUDA device of compute capability 8 or more")
@pytest.mark.parametrize(("depth", "width"), [(8, 64), (32, 128)])
def test_cudnns_attention_and_its_gradients_are_those_of_the_plain_form_within_bfloat16(depth, width):
    random = np.random.default_rng(depth)
    shapes = (3, 256, depth), (3, 64, depth), (3, 64, width), (3, 256, width)
    *operands, cotangent = (jnp.asarray(random.normal(size=shape), jnp.bfloat16) for shape in shapes)

    @jax.jit
    def ours(*operands):
        found, pullback = jax.vjp(attend_positions, *operands)
        return found, *pullback(cotangent)

    assert "__cudnn$fmha" in ours.lower(*operands).as_text()
    wide = [np.asarray(operand, np.float64) for operand in operands]
    wanted = oracle(*wide, np.asarray(cotangent, np.float64))
    for name, one, other in zip(("value", "queries", "keys", "values"), ours(*operands), wanted, strict=True):
        assert one.dtype == jnp.bfloat16, name
        assert np.abs(np.asarray(one, np.float64) - other).max() <= 0.02 * np.abs(other).max(), name
