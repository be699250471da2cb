"""Functions and networks as ONNX graphs: onnxruntime gives for any batch what jax gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sagan_jax.functional.resampling import average_pool, convolve_pool, max_pool, upsample_convolve, upsample_nearest
from sagan_jax.interop.onnx_export import to_onnx
from sagan_jax.models import biggan, dcgan, sagan
from support.assertions import refusal
from support.params import draw_tree, variable_shapes

onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the extra `onnx`")
pytest.importorskip("onnx", reason="comes with the extra `onnx`")

NHWC = ("NHWC", "HWIO", "NHWC")


def drawn(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def convolution(shape, strides, padding, **settings):
    kernel = drawn(*shape)
    return lambda x: lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, **settings)


KERNEL, WIDE_KERNEL, FOUR, ROWS = drawn(3, 3, 5, 7), drawn(3, 3, 128, 128), drawn(4, 4, 5, 3), drawn(6, 4)
# Each with the channels of its features `[b, 4, 6, C]`.
FUNCTIONS = {
    "convolution": (convolution((3, 3, 5, 7), (2, 1), ((0, 1), (2, 1))), 5),
    "convolution that spreads": (convolution((3, 3, 5, 7), (1, 1), "VALID", rhs_dilation=(1, 2)), 5),
    "transposed convolution": (lambda x: lax.conv_transpose(x, FOUR, (2, 2), "SAME", dimension_numbers=NHWC), 5),
    "transposed, uneven": (convolution((3, 2, 5, 7), (1, 1), ((1, 2), (1, 0)), lhs_dilation=(2, 3)), 5),
    "upsample_convolve": (lambda x: upsample_convolve(x, KERNEL), 5),
    "convolve_pool of a few channels": (lambda x: convolve_pool(x, KERNEL), 5),
    "convolve_pool of many channels": (lambda x: convolve_pool(x, WIDE_KERNEL), 128),
    "upsample_nearest": (upsample_nearest, 5),
    "average_pool": (average_pool, 5),
    "max_pool": (max_pool, 5),
    "softmax": (jax.nn.softmax, 5),
    "moments": (lambda x: (x - x.mean(axis=1, keepdims=True)) * lax.rsqrt(x.var(axis=2, keepdims=True) + 1), 5),
    "choice": (lambda x: jnp.where(x[:, :1] > 0.25, x, 1 - 2 * x), 5),
    "products": (lambda x: jnp.einsum("bijc,bkjc->bikj", x, 1 - x) @ ROWS, 5),
    "parts": (lambda x: jnp.concatenate([x[:, 1:3], *jnp.split(x, 2, axis=1)[::-1]], axis=1) ** 3, 5),
    "indexed": (lambda x: jnp.stack([x[:, 2], jnp.abs(x[:, -1])], axis=2).swapaxes(1, 3), 5),
    "padded": (lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=3.0), 5),
    "rows of rows": (lambda x: jnp.broadcast_to(x.reshape(-1, 6, 1, 5), (4 * x.shape[0], 6, 3, 5)), 5),
    "broadcast": (lambda x: jnp.broadcast_to(jnp.arange(3.0), (*x.shape[:2], 3)) + x[:, :, 3, :3], 5),
}


def session_of(function, inputs):
    content = to_onnx(function, inputs, "result", notes={"made": "here"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"made": "here"}
    return lambda *arrays: session.run(["result"], dict(zip(inputs, arrays, strict=True)))[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operation_gives_what_jax_gives(name):
    function, channels = FUNCTIONS[name]
    in_onnx = session_of(function, {"features": ((4, 6, channels), np.float32)})
    for batch in (1, 3):
        features = np.random.default_rng(batch).normal(size=(batch, 4, 6, channels)).astype(np.float32)
        wanted = np.asarray(function(features))
        found = in_onnx(features)
        assert found.shape == wanted.shape
        assert wanted.std() > 0.1
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


SMALL = {"resolution": 32, "base_channels": 2, "attention_resolutions": (16,)}
NETWORKS = {
    "sagan": (sagan.Generator(**SMALL, num_classes=7, conditional_gain="map"), (6,)),
    "sagan, scaled map": (sagan.Generator(**SMALL, num_classes=7, conditional_gain="scaled_map"), (6,)),
    "sagan without classes": (sagan.Generator(**SMALL, num_classes=0, image_channels=1, attention="multi_head"), (6,)),
    "dcgan": (dcgan.Generator(**SMALL, num_classes=7, attention="squeeze_excite"), (6,)),
    "biggan": (biggan.Generator(**SMALL, num_classes=7, shared_size=3), (12,)),
    "sagan's discriminator": (sagan.Discriminator(**SMALL, num_classes=7, attention="article"), (32, 32, 3)),
    "dcgan's discriminator": (dcgan.Discriminator(**SMALL, num_classes=0, attention="uniform"), (32, 32, 3)),
}


@pytest.mark.parametrize(("network", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_network_gives_what_jax_gives_for_any_batch(network, shape):
    variables = draw_tree(dict(variable_shapes(network, *shape)), 0)

    def function(given, labels):
        return network.apply(variables, given, labels, train=False)

    in_onnx = session_of(function, {"given": (shape, np.float32), "labels": ((), np.int32)})
    in_jax = jax.jit(function)
    given, labels = np.random.default_rng(3).normal(size=(5, *shape)).astype(np.float32), np.int32([3, 0, 6, 2, 5])
    wanted = np.asarray(in_jax(given, labels))
    scale = max(1.0, np.abs(wanted).max())
    assert np.abs(np.diff(wanted, axis=0)).max() > 1e-2 * scale  # rows differ
    assert np.abs(in_onnx(given, labels) - wanted).max() < 1e-5 * scale
    assert np.abs(in_onnx(given[:2], labels[:2]) - wanted[:2]).max() < 1e-5 * scale


UNKNOWN = {
    "sort": (lambda x: jnp.sort(x, axis=1), "sort"),
    "reduction by a function": (lambda x: lax.reduce(x, 1.0, lambda a, b: a * b + a, (1,)), "reduce"),
    "a part of the batch": (lambda x: x[1:], "gather"),
    "a slice of the batch": (lambda x: lax.slice(x, (1, 0, 0, 0), x.shape), "slice"),
    "more rows than the batch has": (
        lambda x: jnp.broadcast_to(x.sum(0), (2 * x.shape[0], 4, 6, 5)),
        "broadcast_in_dim",
    ),
    "a kernel that is computed": (
        lambda x: lax.conv_transpose(x, x.sum(0)[:2, :2, :, None] * KERNEL[:1, :1, :, :5], (2, 2), "SAME"),
        "conv_general_dilated",
    ),
    "convolution that cuts": (convolution((1, 1, 5, 7), (1, 1), ((-1, 0), (0, 0))), "conv_general_dilated"),
    "transposed convolution that cuts": (
        convolution((2, 2, 5, 7), (1, 1), ((3, 0), (0, 0)), lhs_dilation=(2, 2)),
        "conv_general_dilated",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_operation_that_is_not_known_is_refused(name):
    function, operation = UNKNOWN[name]
    said = refusal(to_onnx, function, {"x": ((4, 6, 5), np.float32)}, "result")
    assert f"--format onnx does not support the jax operation '{operation}" in said
