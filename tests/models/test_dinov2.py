"""DINOv2: golden tokens of the authors' code, an independent forward pass, and the position table of other sizes."""

import math

import jax
import numpy as np
import pytest
from PIL import Image

from sagan_jax.interop.dinov2 import load, published_shapes
from sagan_jax.models.dinov2 import DinoV2, bicubic_weights


@pytest.fixture(scope="module")
def golden_tokens(golden):
    """The tokens that our network gives for the golden images, and the golden vectors."""
    with np.load(golden / "dinov2-tiny.npz") as file:
        vectors = dict(file)
    arrays = {name.removeprefix("weights/"): array for name, array in vectors.items() if name.startswith("weights/")}
    network, variables = load(arrays, int(vectors["num_heads"]))
    return jax.jit(network.apply)(variables, vectors["in/images_nchw"].transpose(0, 2, 3, 1)), vectors


@pytest.mark.parametrize("tokens", ["class_token", "patch_tokens"])
def test_tokens_are_those_of_the_published_network(tokens, golden_tokens):
    found, vectors = golden_tokens
    wanted = vectors[f"out/{tokens}"]
    np.testing.assert_allclose(found[tokens], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def weights_for(network):
    """Random weights under the published names, with nothing at its usual initial value."""
    random = np.random.default_rng(1)
    return {name: random.normal(size=shape) * 0.3 for name, shape in published_shapes(network).items()}


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    scale = weights[f"{name}.weight"] / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred * scale + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attention_by_heads(x, weights, name, heads):
    joined = linear(x, weights, f"{name}.qkv")
    size = x.shape[1] // heads
    mixed = np.zeros_like(x)
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        queries, keys, values = (joined[:, part * x.shape[1] :][:, at] for part in range(3))
        scores = np.exp(queries @ keys.T / math.sqrt(size))
        mixed[:, at] = scores / scores.sum(1, keepdims=True) @ values
    return linear(mixed, weights, f"{name}.proj")


def feed_forward_by_halves(x, weights, name):
    joined = linear(x, weights, f"{name}.w12")
    gate, value = joined[:, : joined.shape[1] // 2], joined[:, joined.shape[1] // 2 :]
    return linear(gate / (1 + np.exp(-gate)) * value, weights, f"{name}.w3")


def tokens_by_hand(image, network, weights):
    """All tokens of one image in float64, from patches that are cut out one by one; its grid is the table's."""
    size, side = network.patch_size, network.table_side
    kernel = weights["patch_embed.proj.weight"]
    cut = [image[y * size : y * size + size, x * size : x * size + size] for y in range(side) for x in range(side)]
    patches = [np.einsum("hwc,dchw->d", patch, kernel) + weights["patch_embed.proj.bias"] for patch in cut]
    table = weights["pos_embed"][0]
    x = np.concatenate([weights["cls_token"][0] + table[:1], weights["register_tokens"][0], patches + table[1:]])
    for block in range(network.depth):
        name = f"blocks.{block}"
        inner = attention_by_heads(norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn", network.num_heads)
        x = x + inner * weights[f"{name}.ls1.gamma"]
        inner = feed_forward_by_halves(norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp")
        x = x + inner * weights[f"{name}.ls2.gamma"]
    return norm(x, weights, "norm")


def test_network_with_registers_and_swiglu_is_that_of_its_formulas():
    network = DinoV2(width=12, depth=2, num_heads=3, hidden=10, gated=True, patch_size=2, table_side=4, registers=2)
    weights = weights_for(network)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    loaded = load(weights, 3)
    assert loaded.network == network
    found = jax.jit(network.apply)(loaded.variables, images.astype(np.float32))
    for image, class_token, patch_tokens in zip(images, found["class_token"], found["patch_tokens"], strict=True):
        wanted = tokens_by_hand(image, network, weights)
        np.testing.assert_allclose(class_token, wanted[0], rtol=0, atol=2e-5)
        np.testing.assert_allclose(patch_tokens, wanted[3:], rtol=0, atol=2e-5)


def interpolated_by_scalars(row, place):
    """Keys' cubic interpolation of four neighbours with a = -3/4; those outside repeat the border."""

    def kernel(x):
        x = abs(x)
        return 1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)

    first = math.floor(place) - 1
    return sum(row[min(max(near, 0), len(row) - 1)] * kernel(place - near) for near in range(first, first + 4))


@pytest.mark.parametrize(("old", "new", "scale"), [(37, 16, 16.1 / 37), (5, 9, 9.1 / 5), (4, 1, 0.25), (6, 6, 1.0)])
def test_position_table_is_interpolated_between_four_positions(old, new, scale):
    row = np.random.default_rng(2).normal(size=old)
    wanted = [interpolated_by_scalars(row, (place + 0.5) / scale - 0.5) for place in range(new)]
    np.testing.assert_allclose(bicubic_weights(old, new, scale, antialias=False) @ row, wanted, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [(37, 16), (5, 9), (11, 3)])
def test_position_table_with_antialiasing_is_pillows_bicubic(old, new):
    row = np.random.default_rng(3).normal(size=(1, old)).astype(np.float32)
    wanted = np.asarray(Image.fromarray(row).resize((new, 1), Image.Resampling.BICUBIC))[0]
    np.testing.assert_allclose(bicubic_weights(old, new, new / old, antialias=True) @ row[0], wanted, atol=1e-5)


@pytest.mark.parametrize("registers", [0, 2])
def test_positions_of_wide_images_follow_rows_and_columns(registers):
    """The block adds nothing here, so the token of a patch depends only on its own position."""
    network = DinoV2(width=6, depth=1, num_heads=2, hidden=4, patch_size=2, table_side=3, registers=registers)
    weights = weights_for(network) | {"blocks.0.ls1.gamma": np.zeros(6), "blocks.0.ls2.gamma": np.zeros(6)}
    weights["patch_embed.proj.weight"][:] = 0
    variables = load(weights, 2).variables
    found = jax.jit(network.apply)(variables, np.zeros((1, 4, 10, 3), np.float32))["patch_tokens"]
    table = weights["pos_embed"][0, 1:].reshape(3, 3, 6)
    offset = 0 if registers else 0.1
    down, across = (bicubic_weights(3, new, (new + offset) / 3, antialias=registers > 0) for new in (2, 5))
    wanted = np.zeros((2, 5, 6))
    for row in range(2):
        for column in range(5):
            for feature in range(6):
                wanted[row, column, feature] = down[row] @ table[:, :, feature] @ across[column]
    wanted = norm(wanted.reshape(10, 6) + weights["patch_embed.proj.bias"], weights, "norm")
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 28, 30, 3), (1, 30, 28, 3), (1, 28, 28, 1), (28, 28, 3)])
def test_network_names_images_that_it_cannot_cut_into_patches(shape):
    with pytest.raises(ValueError, match=r"multiples of 14; got \["):
        jax.eval_shape(DinoV2(width=4, depth=1, num_heads=1).init, jax.random.key(0), np.zeros(shape, np.float32))
