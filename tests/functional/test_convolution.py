"""Convolutions against jax's own in float64: values, gradients, and the other transformations of jax."""

import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from sagan_jax.functional import convolve
from sagan_jax.functional.convolution import _cpu_flags
from support.devices import several_devices

WIDE, NARROW, SMALL, STRIDED = "wide 3x3", "narrow 3x3", "1x2", "wide 4x4 of stride 2"
POINT = "1x1"
# Sizes of the features and the kernel, the stride and the padding. With AVX2 the wide 3x3 and the small ones have
# patches.
FORMS = {
    WIDE: ((2, 9, 15, 128), (3, 3, 128, 130), 1, ((1, 1), (1, 1))),
    NARROW: ((2, 5, 7, 4), (3, 3, 4, 6), 1, ((1, 1), (1, 1))),
    SMALL: ((2, 5, 7, 4), (1, 2, 4, 6), 1, ((0, 0), (1, 1))),
    POINT: ((2, 5, 7, 4), (1, 1, 4, 6), 1, ((0, 0), (0, 0))),
    "2x2": ((2, 5, 7, 4), (2, 2, 4, 6), 1, ((1, 0), (0, 1))),
    STRIDED: ((2, 6, 10, 129), (4, 4, 129, 128), 2, ((1, 1), (1, 1))),
    "a stride that leaves rows out": ((2, 6, 9, 4), (2, 1, 4, 6), 3, ((0, 0), (0, 0))),
}


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    """Makes any CPU count as one with AVX2, which uses patches. A test may set other flags."""
    monkeypatch.setattr("sagan_jax.functional.convolution._cpu_flags", lambda: {"avx2"})


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def arrays(form, dtype=np.float32):
    rng = np.random.default_rng(0)
    features, kernel = (rng.normal(size=shape) for shape in form[:2])
    return jnp.asarray(features, dtype), jnp.asarray(kernel / np.sqrt(kernel[..., 0].size), dtype)


def ours(form, features, kernel):
    return convolve(features, kernel, stride=form[2], padding=form[3])


def plain(form, features, kernel):
    """The convolution of jax."""
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(features, kernel, (form[2], form[2]), form[3], dimension_numbers=axes)


def error(found, expected):
    """The largest difference of any leaf over its largest magnitude; leaves without entries agree."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(
        float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max() / np.abs(b).max()) for a, b in pairs
    )


def loss(function, features, kernel):
    """A loss whose gradients differ from position to position."""
    return jnp.sum(jnp.sin(function(features, kernel)))


def gradients(function, features, kernel):
    return jax.grad(partial(loss, function), argnums=(0, 1))(features, kernel)


def in_doubles(operation, form):
    """Returns what jax's own convolution gives in float64 for the same numbers."""
    with jax.enable_x64(True):
        features, kernel = (array.astype(np.float64) for array in map(np.asarray, arrays(form)))
        return jax.tree.map(np.asarray, operation(partial(plain, form), features, kernel))


def test_convolve_is_the_convolution_of_jax(form):
    found = jax.jit(partial(ours, form))(*arrays(form))
    assert error(found, in_doubles(lambda function, *given: function(*given), form)) < 1e-5


def test_convolve_has_the_gradients_of_the_convolution_of_jax(form):
    found = jax.jit(partial(gradients, partial(ours, form)))(*arrays(form))
    assert error(found, in_doubles(gradients, form)) < 1e-5


def test_convolve_has_the_same_gradients_in_doubles(form):
    with jax.enable_x64(True):
        found = jax.jit(partial(gradients, partial(ours, form)))(*arrays(form, np.float64))
        assert error(found, gradients(partial(plain, form), *arrays(form, np.float64))) < 1e-12


@pytest.mark.parametrize("name", [WIDE, SMALL])
def test_convolve_has_the_gradient_of_the_gradient(name):
    def second(function, *given):
        penalty = lambda *given: sum(jnp.sum(part**3) for part in gradients(function, *given))  # noqa: E731
        return jax.grad(penalty, argnums=(0, 1))(*given)

    found = jax.jit(partial(second, partial(ours, FORMS[name])))(*arrays(FORMS[name]))
    assert error(found, in_doubles(second, FORMS[name])) < 1e-5


@pytest.mark.parametrize("name", [WIDE, STRIDED, SMALL])
def test_convolve_has_the_derivative_of_forward_mode(name):
    def derivative(function, features, kernel):
        return jax.jvp(function, (features, kernel), (jnp.cos(features), jnp.sin(kernel)))[1]

    found = jax.jit(partial(derivative, partial(ours, FORMS[name])))(*arrays(FORMS[name]))
    assert error(found, in_doubles(derivative, FORMS[name])) < 1e-5


@pytest.mark.parametrize("argument", [0, 1])
@pytest.mark.parametrize("name", [WIDE, SMALL])
def test_convolve_has_a_derivative_by_one_argument_alone(name, argument):
    found = jax.grad(partial(loss, partial(ours, FORMS[name])), argument)(*arrays(FORMS[name]))
    assert error(found, in_doubles(gradients, FORMS[name])[argument]) < 1e-5


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("name", [WIDE, SMALL])
def test_convolve_has_gradients_under_vmap(name, axes):
    many = [
        array if axis is None else jnp.stack([array, 2 * array])
        for array, axis in zip(arrays(FORMS[name]), axes, strict=True)
    ]
    found, expected = (
        jax.jit(jax.vmap(partial(gradients, partial(function, FORMS[name])), axes))(*many) for function in (ours, plain)
    )
    assert error(found, expected) < 1e-5


@pytest.mark.parametrize("wrap", [jax.checkpoint, jax.jit])
@pytest.mark.parametrize("name", [WIDE, SMALL])
def test_convolve_has_gradients_when_it_is_computed_again(name, wrap):
    found = jax.jit(partial(gradients, wrap(partial(ours, FORMS[name]))))(*arrays(FORMS[name]))
    assert error(found, in_doubles(gradients, FORMS[name])) < 1e-5


@pytest.mark.parametrize("name", [WIDE, SMALL])
def test_convolve_has_gradients_on_several_devices(name):
    features, kernel = arrays(FORMS[name])
    both = jax.jit(partial(gradients, partial(plain, FORMS[name])))(features, kernel)[1]

    def kernel_gradient(features, kernel):
        return lax.psum(gradients(partial(ours, FORMS[name]), features, kernel)[1], "data")

    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=several_devices(2))
    data, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(kernel_gradient, mesh=mesh, in_specs=(data, whole), out_specs=whole, check_vma=False)
    mapped = jax.pmap(kernel_gradient, "data", in_axes=(0, None), devices=several_devices(2))
    assert error(jax.jit(sharded)(features, kernel), both) < 1e-5
    assert error(mapped(features[:, None], kernel)[1], both) < 1e-5


def lowered(form, platform):
    features, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in form[:2])
    function = jax.jit(partial(gradients, partial(ours, form)))
    return function.trace(features, kernel).lower(lowering_platforms=(platform,)).as_text()


def has_products(form, platform="cpu"):
    return "stablehlo.dot_general" in lowered(form, platform)


@pytest.mark.parametrize(("name", "loops"), [(WIDE, True), (STRIDED, False), (SMALL, True), (NARROW, False)])
def test_convolve_has_patches_on_a_cpu_where_they_are_faster(name, loops):
    assert ("stablehlo.while" in lowered(FORMS[name], "cpu"), has_products(FORMS[name])) == (loops, loops)


def test_convolve_has_one_product_for_a_kernel_of_one_entry():
    assert has_products(FORMS[POINT])
    assert "stablehlo.while" not in lowered(FORMS[POINT], "cpu")


@pytest.mark.parametrize(
    ("height", "width", "inputs", "outputs", "taken"),
    [
        (16, 32, 32, 32, True),
        (16, 31, 32, 32, False),  # 2 ** 14 numbers an image
        (64, 64, 31, 99, False),  # 32 channels on either side
        (64, 64, 99, 31, False),
        (8, 8, 256, 300, True),
        (8, 8, 255, 300, False),
    ],
)
def test_convolve_has_patches_with_avx2_from_so_many_channels_and_positions(height, width, inputs, outputs, taken):
    form = (3, height, width, inputs), (3, 3, inputs, outputs), 1, ((1, 1), (1, 1))
    assert has_products(form) == taken


def test_convolve_leaves_strides_on_large_maps_to_xla_with_avx2():
    assert not has_products(((3, 64, 64, 32), (4, 4, 32, 33), 2, ((1, 1), (1, 1))))
    assert has_products(((3, 64, 64, 32), (4, 4, 32, 33), 1, ((1, 1), (1, 1))))


@pytest.mark.parametrize(
    ("flags", "taken"),
    [
        ({"avx2"}, {WIDE, SMALL, POINT}),
        ({"avx2", "avx512f"}, {SMALL, POINT}),
        ({"avx2", "avx512f", "amx_tile"}, {WIDE, STRIDED, SMALL, POINT}),
        ({"asimd"}, {SMALL, POINT}),
    ],
)
def test_convolve_has_patches_where_that_kind_of_cpu_is_faster(flags, taken, monkeypatch):
    monkeypatch.setattr("sagan_jax.functional.convolution._cpu_flags", lambda: flags)
    assert {name for name in (WIDE, NARROW, STRIDED, SMALL, POINT) if has_products(FORMS[name])} == taken


@pytest.mark.parametrize(("told", "known"), [("flags : fpu avx2 amx_tiles\n", {"avx2", "amx_tiles"}), (None, set())])
def test_flags_of_a_cpu_are_those_that_linux_tells(told, known, monkeypatch):
    def read(path, **_):
        if told is None:
            raise FileNotFoundError(path)
        return io.StringIO({"/proc/cpuinfo": told}[path])

    monkeypatch.setattr("sagan_jax.functional.convolution.open", read, raising=False)
    assert _cpu_flags.__wrapped__() & {"avx2", "amx_tile", "amx_tiles"} == known


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", [WIDE, STRIDED, SMALL])
def test_convolve_has_three_convolutions_elsewhere(name, platform):
    text = lowered(FORMS[name], platform)
    assert "stablehlo.while" not in text
    assert "stablehlo.dot_general" not in text
    assert text.count("stablehlo.convolution") == 3


def test_convolve_can_be_exported_for_two_platforms_with_its_gradient():
    function, given = jax.jit(partial(gradients, partial(ours, FORMS[WIDE]))), arrays(FORMS[WIDE])
    exported = jax.export.export(function, platforms=("cpu", "cuda"))(*given)
    again = jax.export.deserialize(exported.serialize())
    assert error(again.call(*given), function(*given)) < 1e-6


def test_convolve_has_the_patches_of_one_image_alive_for_its_gradient():
    shape, kernel = (16, 32, 32, 128), (3, 3, 128, 128)
    compute = jax.jit(lambda features, kernel, tangent: jax.vjp(convolve, features, kernel)[1](tangent)[1])
    given = [jax.ShapeDtypeStruct(sizes, jnp.float32) for sizes in (shape, kernel, shape)]
    image = 4 * np.prod(shape[1:])
    # Nine shifted copies of an image, its padded form, and what XLA adds around the loop. The copies of a whole batch
    # would take 144 images.
    with jax.default_device(jax.devices("cpu")[0]):
        assert compute.lower(*given).compile().memory_analysis().temp_size_in_bytes < 25 * image


def test_convolve_sums_bfloat16_products_in_float32():
    features = jnp.ones((37, 11, 13, 128), jnp.bfloat16)  # too many images for a sum in bfloat16
    kernel = jnp.zeros((3, 3, 128, 128), jnp.bfloat16)
    found = jax.grad(lambda kernel: convolve(features, kernel).astype(jnp.float32).sum())(kernel)
    assert found.dtype == jnp.bfloat16
    counts = 37 * np.array([[10 * 12, 10 * 13, 10 * 12], [11 * 12, 11 * 13, 11 * 12], [10 * 12, 10 * 13, 10 * 12]])
    np.testing.assert_allclose(
        np.asarray(found, np.float32), counts[:, :, None, None] + np.zeros((128, 128)), rtol=4e-3
    )


def test_convolve_asks_for_float32_sums_of_bfloat16_products():
    given = arrays(FORMS[WIDE], jnp.bfloat16)
    compute = jax.jit(
        lambda *given: jax.vjp(partial(ours, FORMS[WIDE]), *given)[1](jnp.ones((2, 9, 15, 130), jnp.bfloat16))
    )
    text = compute.trace(*given).lower(lowering_platforms=("cpu",)).as_text()
    results = [line.rsplit("x", 1)[-1] for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert set(results) == {"f32>"}


@pytest.mark.parametrize("name", [WIDE, SMALL])
def test_convolve_takes_no_images(name):
    features, kernel = arrays(FORMS[name])
    of_features, of_kernel = gradients(partial(ours, FORMS[name]), features[:0], kernel)
    assert of_features.shape == (0, *features.shape[1:])
    np.testing.assert_array_equal(of_kernel, np.zeros(kernel.shape))


@pytest.mark.parametrize(("shape", "padded"), [((3, 5), ((1, 1), (2, 2))), ((2, 4), ((0, 1), (1, 2)))])
def test_convolve_keeps_the_size_when_no_padding_is_given(shape, padded):
    features, kernel = arrays(((2, 6, 7, 3), (*shape, 3, 4), 1, padded))
    found = convolve(features, kernel)
    assert found.shape == (2, 6, 7, 4)
    np.testing.assert_array_equal(found, convolve(features, kernel, padding=padded))


@pytest.mark.parametrize(
    ("features", "kernel", "message"),
    [
        ((2, 5, 7, 3), (3, 3, 4, 6), r"floating kernel \[K, L, C, E\] of one dtype; got features \(2, 5, 7, 3\)"),
        ((5, 7, 3), (3, 3, 3, 6), r"floating features \[B, H, W, C\]"),
        ((2, 5, 7, 3), (3, 3, 3, 0), "no E may be 0"),
    ],
)
def test_convolve_refuses_shapes_that_do_not_fit(features, kernel, message):
    with pytest.raises(AssertionError, match=message):
        convolve(jnp.ones(features), jnp.ones(kernel))


@pytest.mark.parametrize(("stride", "padding"), [(0, None), (1, ((0, 0), (0, 0)))])
def test_convolve_refuses_a_stride_of_zero_and_a_kernel_that_sticks_out(stride, padding):
    with pytest.raises(AssertionError, match="convolve needs a stride of at least 1 and padded features at least as"):
        convolve(jnp.ones((2, 3, 2, 4)), jnp.ones((3, 3, 4, 5)), stride=stride, padding=padding)


def test_convolve_refuses_two_dtypes():
    with pytest.raises(AssertionError, match="of one dtype"):
        convolve(jnp.ones((2, 5, 7, 3)), jnp.ones((3, 3, 3, 4), jnp.bfloat16))
