"""The layers: conditional batch norm, attention, and the control in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import attention_map, init_spectral
from sagan_jax.models import layers
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.models.layers import (
    ConditionalBatchNorm,
    ResidualControl,
    SelfAttention,
    attention_parameter_count,
    residual_parameter_count,
    residual_width,
)
from support.params import num_parameters

FEATURES = 2.0 + 3.0 * jax.random.normal(jax.random.key(5), (4, 2, 3, 5))
LABELS = jnp.array([2, 0, 2, 6], jnp.int32)


def init(layer, *inputs, **flags):
    return layer.init(jax.random.key(0), *inputs, **flags)


def normalised(features, epsilon):
    x = np.asarray(features, np.float64)
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + epsilon)


def test_conditional_norm_scale_starts_at_one_and_shift_at_zero():
    params = init(ConditionalBatchNorm(7), FEATURES, LABELS, train=True)["params"]
    assert np.array_equal(params["scale"], np.ones((7, 5)))
    assert np.array_equal(params["shift"], np.zeros((7, 5)))


def test_conditional_norm_of_a_batch_uses_each_labels_own_rows():
    layer = ConditionalBatchNorm(7, epsilon=0.25)
    variables = init(layer, FEATURES, LABELS, train=True)
    scale, shift = (jax.random.normal(jax.random.key(n), (7, 5)) for n in (1, 2))
    result = layer.apply(variables | {"params": {"scale": scale, "shift": shift}}, FEATURES, LABELS, train=True)
    rows = np.asarray(LABELS)
    expected = (
        normalised(FEATURES, 0.25) * np.asarray(scale)[rows][:, None, None] + np.asarray(shift)[rows][:, None, None]
    )
    assert np.allclose(result, expected, atol=1e-5)


def test_conditional_norm_with_one_class_is_the_plain_one():
    plain, single = ConditionalBatchNorm(0), ConditionalBatchNorm(1)
    zeros = jnp.zeros((4,), jnp.int32)
    ours = single.apply(init(single, FEATURES, zeros, train=True), FEATURES, zeros, train=True)
    assert np.array_equal(ours, plain.apply(init(plain, FEATURES, None, train=True), FEATURES, None, train=True))


def test_conditional_norm_running_moments_move_by_their_share():
    layer = ConditionalBatchNorm(7, decay=0.75)
    variables = init(layer, FEATURES, LABELS, train=True)
    _, moved = layer.apply(variables, FEATURES, LABELS, train=True, mutable=["batch_stats"])
    x = np.asarray(FEATURES, np.float64)
    assert np.allclose(moved["batch_stats"]["mean"], 0.25 * x.mean((0, 1, 2)), atol=1e-5)
    assert np.allclose(moved["batch_stats"]["variance"], 0.75 + 0.25 * x.var((0, 1, 2)), atol=1e-5)


def test_conditional_norm_starts_with_mean_0_and_variance_1():
    moments = init(ConditionalBatchNorm(7), FEATURES, LABELS, train=True)["batch_stats"]
    assert (moments["mean"].tolist(), moments["variance"].tolist()) == (5 * [0.0], 5 * [1.0])


def test_conditional_norm_evaluates_with_the_stored_moments():
    layer = ConditionalBatchNorm(7, epsilon=0.5)
    variables = init(layer, FEATURES, LABELS, train=True)
    stored = {"mean": jnp.arange(5.0), "variance": jnp.arange(1.0, 6.0)}
    result, moved = layer.apply(
        variables | {"batch_stats": stored}, FEATURES, LABELS, train=False, mutable=["batch_stats"]
    )
    assert np.allclose(result, (np.asarray(FEATURES) - np.arange(5)) / np.sqrt(np.arange(1, 6) + 0.5), atol=1e-5)
    assert np.array_equal(moved["batch_stats"]["mean"], stored["mean"])


def test_conditional_norm_as_a_map_adds_one_to_the_gain():
    layer = ConditionalBatchNorm(7, gain="map")
    variables = init(layer, FEATURES, LABELS, train=True)
    params = variables["params"]
    rows = np.asarray(LABELS)
    scale, shift = (np.asarray(params[name])[rows][:, None, None] for name in ("scale_kernel", "shift_kernel"))
    result = layer.apply(variables, FEATURES, LABELS, train=True)
    assert np.allclose(result, normalised(FEATURES, 1e-5) * (1 + scale) + shift, atol=1e-5)


LEAVES = {
    "table": {"scale": (7, 5), "shift": (7, 5)},
    "map": {"scale_kernel": (7, 5), "shift_kernel": (7, 5)},
    "free_map": {"scale_map": (7, 5), "shift_map": (7, 5)},
    "scaled_map": {"scale_kernel": (7, 5), "shift_kernel": (7, 5), "scale_size": (), "shift_size": ()},
}


def map_rows(params, part, weights, classes=7, channels=5):
    """What a map adds: rows of its kernel, times its size and the root of the larger side if it has a size."""
    kernel = np.asarray(params.get(f"{part}_map", params.get(f"{part}_kernel")), np.float64)
    size = params.get(f"{part}_size")
    return weights @ kernel * (1 if size is None else float(size) * max(classes, channels) ** 0.5)


@pytest.mark.parametrize("gain", LEAVES)
def test_conditional_norm_has_the_leaves_of_its_form(gain):
    params = init(ConditionalBatchNorm(7, gain=gain), FEATURES, LABELS, train=True)["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == LEAVES[gain]


@pytest.mark.parametrize("gain", LEAVES)
def test_conditional_norm_is_spectrally_normalised_in_kernels_alone(gain):
    params = init(ConditionalBatchNorm(7, gain=gain), FEATURES, LABELS, train=True)["params"]
    selected = [] if gain in ("table", "free_map") else ["scale_kernel", "shift_kernel"]
    assert sorted(init_spectral(jax.random.key(0), params)) == selected


@pytest.mark.parametrize("classes", [7, 3])  # more and fewer than the channels
def test_scaled_map_is_the_kernel_by_its_size_and_the_root_of_the_larger_side(classes):
    layer, labels = ConditionalBatchNorm(classes, gain="scaled_map"), LABELS % classes
    variables = init(layer, FEATURES, labels, train=True)
    params = variables["params"] | {"scale_size": jnp.float32(0.75), "shift_size": jnp.float32(-0.5)}
    rows = np.eye(classes)[np.asarray(labels)]
    scale, shift = (map_rows(params, part, rows, classes)[:, None, None] for part in ("scale", "shift"))
    result = layer.apply(variables | {"params": params}, FEATURES, labels, train=True)
    assert np.allclose(result, normalised(FEATURES, 1e-5) * (1 + scale) + shift, atol=1e-5)


@pytest.mark.parametrize("initializer", ["xavier", "orthogonal"])
def test_maps_start_alike_and_the_size_as_the_bound(initializer):
    layers_of = {
        gain: ConditionalBatchNorm(7, gain=gain, initializer=initializer) for gain in ("map", "free_map", "scaled_map")
    }
    variables = {gain: init(layer, FEATURES, LABELS, train=True) for gain, layer in layers_of.items()}
    results = [layers_of[gain].apply(variables[gain], FEATURES, LABELS, train=True) for gain in layers_of]
    assert np.array_equal(results[0], results[1])
    assert np.allclose(results[0], results[2], atol=1e-6)
    sizes = [float(variables["scaled_map"]["params"][f"{part}_size"]) for part in ("scale", "shift")]
    assert sizes == pytest.approx([7**-0.5] * 2)


@pytest.mark.parametrize("gain", ["free_map", "scaled_map"])
def test_gradients_of_a_map_are_the_differences_of_its_loss(gain):
    layer = ConditionalBatchNorm(7, gain=gain)
    variables = init(layer, FEATURES, LABELS, train=True)
    params = {name: leaf + 0.25 for name, leaf in variables["params"].items()}
    weights = jax.random.normal(jax.random.key(9), FEATURES.shape)

    def loss(params):
        return (weights * layer.apply(variables | {"params": params}, FEATURES, LABELS, train=True) ** 2).sum()

    def written_out(params):
        rows = np.eye(7)[np.asarray(LABELS)]
        scale, shift = (map_rows(params, part, rows)[:, None, None] for part in ("scale", "shift"))
        return (np.asarray(weights, np.float64) * (normalised(FEATURES, 1e-5) * (1 + scale) + shift) ** 2).sum()

    found = jax.grad(loss)(params)
    wide = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    for name, leaf in wide.items():
        for place in np.ndindex(leaf.shape):
            step = np.zeros(leaf.shape)
            step[place] = 1e-4
            wanted = (written_out(wide | {name: leaf + step}) - written_out(wide | {name: leaf - step})) / 2e-4
            assert float(found[name][place]) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("gain", LEAVES)
def test_class_gains_are_float32_where_the_layer_is_bfloat16(gain):
    layer = ConditionalBatchNorm(7, gain=gain, dtype=jnp.bfloat16)
    variables = init(layer, FEATURES, LABELS, train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    exact = ConditionalBatchNorm(7, gain=gain).apply(variables, FEATURES, LABELS, train=True)
    found = layer.apply(variables, FEATURES, LABELS, train=True)
    assert found.dtype == jnp.bfloat16
    assert np.array_equal(found, exact.astype(jnp.bfloat16))


def test_conditional_norm_shares_moments_over_a_mapped_axis():
    layer = ConditionalBatchNorm(0, axis_name="parts")
    variables = init(layer, FEATURES, None, train=True)
    parts = FEATURES.reshape(2, 2, 2, 3, 5)
    apart = jax.vmap(lambda part: layer.apply(variables, part, None, train=True), axis_name="parts")(parts)
    assert np.allclose(apart.reshape(FEATURES.shape), normalised(FEATURES, 1e-5), atol=1e-5)


@pytest.mark.parametrize("labels", ["classes", "vectors"])
@pytest.mark.parametrize(("classes", "gain"), [(0, "table"), *((7, gain) for gain in LEAVES)])
def test_folded_norm_is_the_equation_with_stored_moments(classes, gain, labels):
    drawn = np.random.default_rng(1)
    given = LABELS if labels == "classes" else jnp.asarray(drawn.normal(size=(4, 7)), jnp.float32)
    weights = np.eye(7)[LABELS] if labels == "classes" else np.asarray(given, np.float64)
    layer = ConditionalBatchNorm(classes, epsilon=0.5, gain=gain)
    shapes = jax.eval_shape(lambda: init(layer, FEATURES, given, train=False))["params"]
    params = {name: drawn.normal(size=leaf.shape) for name, leaf in shapes.items()}
    mean, variance = 20 * drawn.normal(size=5), np.exp(2 * drawn.normal(size=5))

    x = (np.asarray(FEATURES, np.float64) - mean) / np.sqrt(variance + 0.5)
    if not classes:
        wanted = x * params["scale"] + params["shift"]
    elif gain == "table":
        scale, shift = weights @ params["scale"], weights @ params["shift"]
        wanted = x * scale[:, None, None] + shift[:, None, None]
    else:
        scale, shift = 1 + map_rows(params, "scale", weights), map_rows(params, "shift", weights)
        wanted = x * scale[:, None, None] + shift[:, None, None]

    stored = {"mean": jnp.asarray(mean, jnp.float32), "variance": jnp.asarray(variance, jnp.float32)}
    norm = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in params.items()}
    folded = fold_batch_stats({"norm": norm}, {"norm": stored}, epsilon=0.5)["norm"]
    result = layer.clone(folded=True).apply({"params": folded}, FEATURES, given, train=False)
    assert np.abs(result - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("classes", "gain"), [(0, "table"), *((7, gain) for gain in LEAVES)])
def test_folded_norm_that_was_not_folded_scales_by_one_and_shifts_by_nothing_of_its_own(classes, gain):
    layer = ConditionalBatchNorm(classes, gain=gain, folded=True)
    variables = init(layer, FEATURES, LABELS, train=False)
    assert set(variables) == {"params"}
    params = {name: jnp.zeros_like(leaf) if "kernel" in name else leaf for name, leaf in variables["params"].items()}
    assert np.array_equal(layer.apply({"params": params}, FEATURES, LABELS, train=False), FEATURES)


def test_folded_norm_does_not_train():
    layer = ConditionalBatchNorm(7, folded=True)
    with pytest.raises(ValueError, match="needs train=False; got train=True"):
        init(layer, FEATURES, LABELS, train=True)


def test_attention_starts_as_the_identity():
    features = jax.random.normal(jax.random.key(1), (2, 4, 6, 16))
    assert np.array_equal(SelfAttention().apply(init(SelfAttention(), features), features), features)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (
            "release",
            {"query_kernel": (16, 2), "key_kernel": (16, 2), "value_kernel": (16, 8), "output_kernel": (8, 16)},
        ),
        ("article", {"query_kernel": (16, 2), "key_kernel": (16, 2), "value_kernel": (16, 16)}),
    ],
)
def test_attention_has_the_kernels_of_its_form_and_no_biases(form, wanted):
    params = init(SelfAttention(form), jnp.ones((2, 4, 6, 16)))["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == wanted | {"gamma": ()}


@pytest.mark.parametrize(("form", "keys"), [("release", 6), ("article", 24)])
def test_attention_pools_its_keys_in_the_release_only(form, keys):
    features = jnp.ones((2, 4, 6, 16))
    _, seen = SelfAttention(form).apply(init(SelfAttention(form), features), features, mutable=["intermediates"])
    assert seen["intermediates"]["attention_map"][0].shape == (2, 24, keys)


def test_attention_layer_makes_its_map_only_for_those_who_ask(monkeypatch):
    made, features = [], jnp.ones((2, 4, 6, 16))
    monkeypatch.setattr(layers, "attention_map", lambda *operands: made.append(operands) or attention_map(*operands))
    layer = SelfAttention()
    variables = {"params": jax.tree.map(lambda leaf: leaf + 0.5, init(layer, features)["params"])}
    unseen = layer.apply(variables, features)
    assert not made
    output, seen = layer.apply(variables, features, mutable=["intermediates"])
    sown = {name: value[0] for name, value in seen["intermediates"].items()}
    assert {name: value.shape for name, value in sown.items()} == {
        "attention_map": (2, 24, 6),
        "attention_queries": (2, 24, 2),
        "attention_keys": (2, 6, 2),
    }
    assert np.array_equal(output, unseen)
    assert np.allclose(attention_map(sown["attention_queries"], sown["attention_keys"]), sown["attention_map"])


@pytest.mark.parametrize("form", ["release", "article"])
def test_attention_map_that_is_sown_and_not_used_takes_no_memory(form):
    layer, features = SelfAttention(form), jax.ShapeDtypeStruct((1, 128, 128, 64), jnp.float32)
    variables = jax.eval_shape(lambda features: layer.init(jax.random.key(0), features), features)

    def look(variables, features):
        output, seen = layer.apply(variables, features, mutable=["intermediates"])
        return output, seen["intermediates"]["attention_queries"]

    program = jax.jit(look).lower(variables, features).compile()
    keys = 128**2 if form == "article" else 64**2
    # `memory_analysis` leaves out what a library of XLA allocates within a fusion. So the program may name no map.
    assert f"{128**2},{keys}]" not in program.as_text()
    assert program.memory_analysis().temp_size_in_bytes <= 2**26  # the map alone takes 2**28 or 2**30


@pytest.mark.parametrize("form", ["release", "article"])
def test_attention_map_has_rows_that_sum_to_one(form):
    features = 3.0 * jax.random.normal(jax.random.key(1), (2, 4, 6, 16))
    _, seen = SelfAttention(form).apply(init(SelfAttention(form), features), features, mutable=["intermediates"])
    assert np.allclose(seen["intermediates"]["attention_map"][0].sum(-1), 1, atol=1e-5)


def test_attention_parameters_are_those_of_the_layer():
    assert num_parameters(init(SelfAttention(), jnp.ones((1, 2, 2, 24)))["params"]) == attention_parameter_count(24)


def test_residual_parameters_are_those_of_the_layer():
    params = init(ResidualControl(), jnp.ones((1, 2, 2, 24)))["params"]
    assert num_parameters(params) == residual_parameter_count(24, residual_width(24))


@pytest.mark.parametrize("channels", [8, 40, 64, 128, 256, 512])
def test_residual_width_comes_nearest_to_attention(channels):
    attention = channels * channels // 4 + channels * channels + 1
    differences = {
        width: abs(9 * channels * width + width + 9 * width * channels + channels - attention)
        for width in range(1, channels)
    }
    assert differences[residual_width(channels)] == min(differences.values())


@pytest.mark.parametrize("channels", [8, 40, 64, 128, 256, 512])
def test_residual_control_is_within_half_a_channel_of_attention(channels):
    features = jax.ShapeDtypeStruct((1, 2, 2, channels), jnp.float32)
    residual, attention = (
        num_parameters(jax.eval_shape(layer.init, jax.random.key(0), features)["params"])
        for layer in (ResidualControl(), SelfAttention())
    )
    assert abs(residual - attention) <= (9 * channels + 1 + 9 * channels) / 2


def test_residual_control_reaches_two_pixels_and_no_further():
    features = jax.random.normal(jax.random.key(1), (1, 9, 9, 16))
    variables = init(ResidualControl(), features)
    changed = ResidualControl().apply(variables, features.at[0, 4, 4].add(3.0)) - ResidualControl().apply(
        variables, features
    )
    rows, columns = np.nonzero(np.abs(np.asarray(changed)[0]).max(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 6, 2, 6)
