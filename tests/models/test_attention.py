"""The layers at an attention place: the named ones against loops in float64, and a user's own."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.models.attention import (
    AttentionModule,
    MultiHeadAttention,
    SqueezeExcite,
    UniformAttention,
    attention_layer,
)
from sagan_jax.models.layers import SelfAttention
from sagan_jax.models.sagan import Discriminator, Generator
from support.assertions import assert_near, same_bits
from support.params import num_parameters, variable_shapes

SHAPE = 2, 4, 6, 12  # B, H, W and C
FEATURES = jax.random.normal(jax.random.key(3), SHAPE)


def filled(layer, features=FEATURES):
    """Returns parameters of the layer away from where they start, and the same in float64."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), features))["params"]
    generator = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), jnp.float32), shapes)
    return params, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def uniform_oracle(x, p):
    batch, height, width, channels = x.shape
    y = np.empty_like(x)
    for b in range(batch):
        values = x[b] @ p["value_kernel"]
        mean = np.zeros(values.shape[-1])
        for row in range(0, height, 2):
            for column in range(0, width, 2):
                mean += values[row : row + 2, column : column + 2].max((0, 1))
        mean /= height * width / 4
        for row in range(height):
            for column in range(width):
                for channel in range(channels):
                    gathered = sum(mean[e] * p["output_kernel"][e, channel] for e in range(len(mean)))
                    y[b, row, column, channel] = p["gamma"] * gathered + x[b, row, column, channel]
    return y


def heads_oracle(x, p, heads):
    """Returns the features and the maps `[B, heads, N, N]`."""
    batch, height, width, channels = x.shape
    depth, positions = channels // heads, x.reshape(batch, height * width, channels)
    maps = np.empty((batch, heads, height * width, height * width))
    gathered = np.zeros_like(positions)
    for b in range(batch):
        queries, keys, values = (positions[b] @ p[f"{name}_kernel"] for name in ("query", "key", "value"))
        for head in range(heads):
            part = slice(head * depth, (head + 1) * depth)
            for n in range(height * width):
                scores = np.array([queries[n, part] @ keys[m, part] for m in range(height * width)]) / math.sqrt(depth)
                weights = np.exp(scores - scores.max())
                maps[b, head, n] = weights / weights.sum()
                gathered[b, n, part] = sum(maps[b, head, n, m] * values[m, part] for m in range(height * width))
    return (p["gamma"] * gathered @ p["output_kernel"] + positions).reshape(x.shape), maps


def squeeze_oracle(x, p):
    y = np.empty_like(x)
    for b in range(len(x)):
        mean = np.array([x[b, :, :, channel].sum() / x[b, :, :, channel].size for channel in range(x.shape[-1])])
        hidden = np.maximum(mean @ p["squeeze"]["kernel"] + p["squeeze"]["bias"], 0)
        logits = hidden @ p["excite"]["kernel"] + p["excite"]["bias"]
        y[b] = x[b] / (1 + np.exp(-logits))
    return y


LAYERS = {
    "uniform": (UniformAttention(), uniform_oracle),
    "multi_head": (MultiHeadAttention(num_heads=2), lambda x, p: heads_oracle(x, p, 2)[0]),
    "squeeze_excite": (SqueezeExcite(reduction=5), squeeze_oracle),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_named_layer_follows_its_equation(kind):
    layer, oracle = LAYERS[kind]
    params, exact = filled(layer)
    with jax.default_matmul_precision("highest"):
        found = layer.apply({"params": params}, FEATURES)
    assert_near(found, oracle(np.asarray(FEATURES, np.float64), exact), 2e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_named_layer_computes_in_the_dtype_that_it_is_given(kind):
    layer, oracle = LAYERS[kind]
    params, exact = filled(layer)
    half = jax.tree.map(lambda leaf: 0.25 * leaf, params)  # small scores, whose softmax rounding changes little
    features = FEATURES.astype(jnp.bfloat16)
    found = layer.clone(dtype=jnp.bfloat16).apply({"params": half}, features)
    assert found.dtype == jnp.bfloat16
    expected = oracle(np.asarray(features, np.float64), jax.tree.map(lambda leaf: 0.25 * leaf, exact))
    assert_near(found, expected, 0.03)


def test_multi_head_map_is_the_one_that_it_applies():
    layer = MultiHeadAttention(num_heads=2)
    params, exact = filled(layer)
    with jax.default_matmul_precision("highest"):
        _, seen = layer.apply({"params": params}, FEATURES, mutable=["intermediates"])
    (found,) = seen["intermediates"]["attention_map"]
    assert_near(found, heads_oracle(np.asarray(FEATURES, np.float64), exact, 2)[1], 2e-6)


def test_multi_head_agrees_with_that_of_flax():
    ours = MultiHeadAttention(num_heads=3)
    params, _ = filled(ours)
    theirs = nn.MultiHeadDotProductAttention(num_heads=3, use_bias=False)
    kernels = {name: {"kernel": params[f"{name}_kernel"].reshape(12, 3, 4)} for name in ("query", "key", "value")}
    kernels["out"] = {"kernel": params["output_kernel"].reshape(3, 4, 12)}
    positions = FEATURES.reshape(2, 24, 12)
    with jax.default_matmul_precision("highest"):
        gathered = theirs.apply({"params": kernels}, positions).reshape(SHAPE)
        found = ours.apply({"params": params}, FEATURES)
    assert_near(found, params["gamma"] * gathered + FEATURES, 2e-6)


@pytest.mark.parametrize(("channels", "heads"), [(12, 4), (6, 2), (3, 1), (64, 4)])
def test_heads_are_as_many_as_divide_the_channels(channels, heads):
    layer = MultiHeadAttention()
    features = jnp.zeros((1, 2, 2, channels))
    _, seen = jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), features, mutable=True))
    assert seen["intermediates"]["attention_map"][0].shape == (1, heads, 4, 4)


def test_uniform_layer_starts_with_the_parameters_of_the_release():
    ours, theirs = (layer.init(jax.random.key(7), FEATURES) for layer in (UniformAttention(), SelfAttention()))
    assert same_bits(ours, theirs)


def test_uniform_layer_is_the_release_where_all_scores_are_equal():
    params, _ = filled(UniformAttention())
    params |= {"query_kernel": jnp.zeros_like(params["query_kernel"])}
    found, release = (
        layer.apply({"params": params}, FEATURES, mutable=["intermediates"])
        for layer in (UniformAttention(), SelfAttention())
    )
    assert_near(found[0], release[0], 1e-5)
    maps = [seen["intermediates"]["attention_map"][0] for _, seen in (found, release)]
    assert np.array_equal(maps[0], np.full((2, 24, 6), 1 / 6, np.float32))
    assert_near(maps[0], maps[1], 1e-6)


@pytest.mark.parametrize("kind", ["uniform", "multi_head"])
def test_gated_layer_starts_as_the_identity(kind):
    layer = LAYERS[kind][0]
    assert np.array_equal(layer.apply(layer.init(jax.random.key(0), FEATURES), FEATURES), FEATURES)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradient_reaches_what_the_layer_reads_and_nothing_else(kind):
    layer, _ = LAYERS[kind]
    params, _ = filled(layer)
    target = jax.random.normal(jax.random.key(9), SHAPE)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(layer.apply({"params": params}, FEATURES) * target)))(params)
    moved = {jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if np.any(leaf)}
    wanted = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)}
    unread = {"['query_kernel']", "['key_kernel']"} if kind == "uniform" else set()
    assert moved == wanted - unread


NETWORKS = {"G": (Generator(32, 0, 2, attention_resolutions=(16,)), 5), "D": (Discriminator(32, 0, 2), 32)}


def parameters(network, attention):
    net, size = NETWORKS[network]
    inputs = (size,) if network == "G" else (size, size, 3)
    return variable_shapes(net.clone(attention=attention, attention_resolutions=(16,)), *inputs)["params"]


@pytest.mark.parametrize("network", NETWORKS)
def test_network_has_the_parameters_of_its_layer(network):
    counts = {
        kind: num_parameters(parameters(network, kind))
        for kind in ("none", "release", "uniform", "multi_head", "squeeze_excite")
    }
    channels = 8 if network == "G" else 4
    assert counts["uniform"] == counts["release"]
    assert counts["multi_head"] - counts["none"] == 4 * channels**2 + 1
    assert counts["squeeze_excite"] - counts["none"] == 2 * channels + 1 + channels
    assert "attention_16" not in parameters(network, "none")


class Scale(nn.Module):
    """A user's own layer: a map of ones on the diagonal, and a gain."""

    gain: float = 2.0
    dtype: type | None = None

    @nn.compact
    def __call__(self, features):
        batch, height, width, channels = features.shape
        self.sow("intermediates", "attention_map", jnp.broadcast_to(jnp.eye(height * width), (batch, *2 * [24])))
        kernel = self.param("kernel", nn.initializers.ones, (1, 1, 1, channels))
        return self.gain * features * kernel.astype(self.dtype or features.dtype)


def shuffled(features):
    """A user's own function, which makes a module."""
    return nn.Dense(features.shape[-1], name="mix")(features)


class Place(nn.Module):
    """An attention place of a network."""

    attention: AttentionModule | str
    dtype: type | None = None

    @nn.compact
    def __call__(self, features):
        return attention_layer(self.attention, 4, dtype=self.dtype)(features)


@pytest.mark.parametrize(("given", "gain"), [(Scale, 2.0), (Scale(gain=3.0), 3.0)], ids=["class", "module"])
def test_layer_of_ones_own_sits_at_its_place(given, gain):
    found, variables = Place(given).init_with_output(jax.random.key(0), FEATURES, mutable=True)
    assert np.array_equal(found, np.float32(gain) * FEATURES)
    assert variables["params"]["attention_4"]["kernel"].size == 12
    assert variables["intermediates"]["attention_4"]["attention_map"][0].shape == (2, 24, 24)


def test_function_of_ones_own_owns_the_modules_that_it_makes():
    found, variables = Place(shuffled).init_with_output(jax.random.key(0), FEATURES)
    kernel = variables["params"]["attention_4"]["mix"]["kernel"]
    assert_near(found, np.asarray(FEATURES, np.float64) @ np.asarray(kernel, np.float64), 1e-5)


def test_layer_of_ones_own_at_two_places_has_two_sets_of_parameters():
    net = Generator(32, 0, 2, attention_resolutions=(8, 16), attention=shuffled)
    params = variable_shapes(net, 5)["params"]
    assert {"attention_8", "attention_16"} <= set(params)


def test_wider_result_is_cast_to_the_dtype_of_the_features():
    features = FEATURES.astype(jnp.bfloat16)
    found, _ = Place(shuffled).init_with_output(jax.random.key(0), features)  # its parameters are float32
    assert found.dtype == jnp.bfloat16


def test_layer_of_ones_own_gets_the_dtype_of_the_computation():
    class Remember(nn.Module):
        dtype: type | None = None

        def __call__(self, features):
            seen.append(self.dtype)
            return features

    seen = []
    for given in (Remember, Remember(), Remember(dtype=jnp.float64)):
        Place(given, jnp.bfloat16).init(jax.random.key(0), FEATURES.astype(jnp.bfloat16))
    assert seen == [jnp.bfloat16, jnp.bfloat16, jnp.float64]


@pytest.mark.parametrize(
    ("broken", "got"),
    [
        (lambda features: features[..., :-1], r"got float32 \[2, 4, 6, 11\]"),
        (lambda features: features.astype(jnp.int32), r"got int32 \[2, 4, 6, 12\]"),
        (lambda features: features.astype(jnp.float16), r"got float16 \[2, 4, 6, 12\]"),
        (lambda features: features.astype(jnp.complex64), r"got complex64 \[2, 4, 6, 12\]"),
        (lambda features: (features, features), "got a tuple"),
        (lambda features: None, "got a NoneType"),
    ],
)
def test_result_that_is_no_features_is_refused(broken, got):
    with pytest.raises(
        ValueError, match=rf"needs to return features of float32 \[2, 4, 6, 12\], like its input; {got}"
    ):
        Place(broken).init(jax.random.key(0), FEATURES)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_refuse_a_name_that_is_not_known(network):
    with pytest.raises(ValueError, match=r"attention needs to be one of 'release', 'article', .*; got 'realese'"):
        parameters(network, "realese")
