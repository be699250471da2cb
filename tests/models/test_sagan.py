"""The two networks: sizes, numbers of parameters, and the place of attention."""

import itertools
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import average_pool, init_spectral, upsample_nearest
from sagan_jax.models.layers import SelfAttention
from sagan_jax.models.sagan import (
    Discriminator,
    DiscriminatorBlock,
    Generator,
    GeneratorBlock,
    discriminator_resolutions,
    generator_resolutions,
)
from support.assertions import assert_rows_are_their_own
from support.params import drawn_function, num_parameters, variable_shapes

LABELS = jnp.array([4, 1, 4], jnp.int32)


def shapes(network, *, channels=3, latent_size=128):
    """What `init` would make, without making it."""
    if isinstance(network, Generator):
        return variable_shapes(network, latent_size)
    return variable_shapes(network, network.resolution, network.resolution, channels)


def count(network, **sizes):
    return num_parameters(shapes(network, **sizes)["params"])


@cache
def small_generator():
    generator = Generator(32, 5, 1, attention_resolutions=(8, 16))
    latents = jax.random.normal(jax.random.key(3), (3, 6))
    return generator, latents, generator.init(jax.random.key(0), latents, LABELS, train=False)


@cache
def small_discriminator():
    discriminator = Discriminator(32, 5, 4, attention_resolutions=(8,))
    images = jax.random.uniform(jax.random.key(4), (3, 32, 32, 3), minval=-1.0)
    variables = discriminator.init(jax.random.key(0), images, LABELS, train=False)
    # Gates that are open, so that the place of the layer shows.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 0.7 if path[-1].key == "gamma" else leaf, variables
    )
    return discriminator, images, variables


@pytest.mark.parametrize(
    ("resolution", "classes", "places", "counts"),
    [
        (128, 1000, (32,), (42_078_852, 39_463_618)),
        (128, 1000, (64,), (42_017_412, 39_448_258)),
        (128, 1000, (), (41_996_931, 39_443_137)),
        (64, 200, (32,), (13_387_396, 19_752_642)),
        (32, 10, (16,), (4_386_308, 1_075_586)),
    ],
    ids=["imagenet-32", "imagenet-64", "imagenet-none", "tiny-imagenet", "cifar10"],
)
def test_networks_have_as_many_parameters_as_published(resolution, classes, places, counts):
    generator = Generator(resolution, classes, 64, attention_resolutions=places)
    discriminator = Discriminator(resolution, classes, 64, attention_resolutions=places)
    assert (count(generator), count(discriminator)) == counts


@pytest.mark.slow
def test_kernels_start_xavier_uniform_as_in_the_release():
    seen = 0
    for _, _, variables in (small_generator(), small_discriminator()):
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
            if path[-1].key.endswith("kernel") and leaf.size >= 250:
                window = math.prod(leaf.shape[:-2])
                bound = math.sqrt(6 / (window * (leaf.shape[-2] + leaf.shape[-1])))
                assert 0.97 * bound < jnp.abs(leaf).max() <= bound
                assert jnp.std(leaf) == pytest.approx(bound / math.sqrt(3), rel=0.1)
                seen += 1
    assert seen >= 8  # the convolutions of both, and linear maps


def test_networks_at_256_and_512_have_the_widths_that_were_published():
    def widths(network, blocks):
        params = shapes(network)["params"]
        return [params[f"block_{number}"]["conv_2"]["kernel"].shape[-1] for number in range(1, blocks + 1)]

    assert shapes(Generator(256, 3, 2))["params"]["linear"]["kernel"].shape == (128, 4 * 4 * 16 * 2)
    assert widths(Generator(256, 3, 2), 6) == [32, 16, 16, 8, 4, 2]
    assert widths(Discriminator(256, 3, 2), 7) == [2, 4, 8, 16, 16, 32, 32]
    # The numbers of G_arch[512] and D_arch[512] in ajbrock/BigGAN-PyTorch:BigGAN.py.
    assert shapes(Generator(512, 3, 2))["params"]["linear"]["kernel"].shape == (128, 4 * 4 * 16 * 2)
    assert widths(Generator(512, 3, 2), 7) == [2 * width for width in (16, 8, 8, 4, 2, 1, 1)]
    assert widths(Discriminator(512, 3, 2), 8) == [2 * width for width in (1, 1, 2, 4, 8, 8, 16, 16)]
    assert discriminator_resolutions(512) == (256, 128, 64, 32, 16, 8, 4, 4)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize(("classes", "channels"), [(0, 1), (5, 3)])
def test_networks_give_each_row_an_image_and_a_logit_of_its_own(resolution, classes, channels):
    generator = Generator(resolution, classes, 4, channels, attention_resolutions=(16,))
    discriminator = Discriminator(resolution, classes, 4, attention_resolutions=(8,))
    labels = LABELS if classes else None
    latents = np.random.default_rng(0).normal(size=(3, 7))
    images = assert_rows_are_their_own(drawn_function(generator, 7), latents, labels)
    assert images.shape == (3, resolution, resolution, channels)
    logits = assert_rows_are_their_own(drawn_function(discriminator, *images.shape[1:]), images, labels)
    assert logits.shape == (3,)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_generator_images_fill_their_range_and_stay_inside(resolution):
    generator = Generator(resolution, 0, 1, attention_resolutions=())
    random = np.random.default_rng(7)
    wide = jax.tree.map(lambda leaf: random.normal(size=leaf.shape, scale=3.0).astype(np.float32), shapes(generator))
    latents = random.normal(size=(2, 128)).astype(np.float32)
    images, _ = jax.jit(lambda: generator.apply(wide, latents, None, train=True, mutable=["batch_stats"]))()
    assert 0.99 < images.max() <= 1
    assert -1 <= images.min() < -0.99


@pytest.mark.parametrize(("classes", "rows"), [(0, ()), (7, (7,))])
def test_networks_have_a_row_for_each_class_and_none_without_classes(classes, rows):
    generator = shapes(Generator(32, classes, 1, attention_resolutions=()))["params"]
    assert generator["block_1"]["norm_1"]["scale"].shape == (*rows, 4)
    discriminator = shapes(Discriminator(32, classes, 1, attention_resolutions=()))["params"]
    assert ("projection" in discriminator) == bool(classes)


def test_resolutions_count_the_blocks():
    assert generator_resolutions(128) == (8, 16, 32, 64, 128)
    assert discriminator_resolutions(128) == (64, 32, 16, 8, 4, 4)
    assert discriminator_resolutions(32) == (16, 8, 8, 8)


@pytest.mark.parametrize(
    "network", [Generator(32, 0, 1, attention_resolutions=(24,)), Discriminator(32, 0, 1, attention_resolutions=(32,))]
)
def test_networks_refuse_an_attention_place_that_does_not_exist(network):
    with pytest.raises(ValueError, match=rf"no block ends at {network.attention_resolutions[0]}"):
        shapes(network)


@pytest.mark.parametrize("network", [Generator(32, 0, 1), Discriminator(32, 0, 1)], ids=["G", "D"])
def test_networks_attend_at_any_set_of_sizes_that_exist(network):
    resolutions = generator_resolutions(32) if isinstance(network, Generator) else discriminator_resolutions(32)
    sizes = sorted(set(resolutions))
    for places in itertools.chain.from_iterable(itertools.combinations(sizes, n) for n in range(len(sizes) + 1)):
        params = shapes(network.clone(attention_resolutions=places[::-1]))["params"]
        layers = {name for name in params if name.startswith("attention")}
        assert layers == {f"attention_{size}" for size in places}


@pytest.mark.parametrize(
    ("kind", "leaf", "absent"),
    [("article", "value_kernel", "output_kernel"), ("residual", "conv_2", "gamma")],
)
@pytest.mark.parametrize("network", [Generator(32, 0, 2), Discriminator(32, 0, 2)], ids=["G", "D"])
def test_networks_put_the_wanted_kind_at_their_place(network, kind, leaf, absent):
    layer = shapes(network.clone(attention_resolutions=(16,), attention=kind))["params"]["attention_16"]
    assert leaf in layer
    assert absent not in layer


@pytest.mark.slow
@pytest.mark.one_jax
def test_generator_sows_a_map_for_each_place():
    generator, latents, variables = small_generator()
    _, seen = generator.apply(variables, latents, LABELS, train=False, mutable=["intermediates"])
    maps = {name: layer["attention_map"][0] for name, layer in seen["intermediates"].items()}
    assert {name: found.shape for name, found in maps.items()} == {
        "attention_8": (3, 64, 16),
        "attention_16": (3, 256, 64),
    }
    assert all(np.allclose(found.sum(-1), 1, atol=1e-5) for found in maps.values())


def test_generator_begins_as_the_one_without_attention():
    generator, latents, variables = small_generator()
    plain = generator.clone(attention_resolutions=())
    params = {name: part for name, part in variables["params"].items() if not name.startswith("attention")}
    without = plain.apply(variables | {"params": params}, latents, LABELS, train=False)
    assert np.array_equal(generator.apply(variables, latents, LABELS, train=False), without)


def test_discriminator_attends_after_the_first_of_three_blocks_of_a_size():
    """At 32 pixels, blocks 2, 3 and 4 all end at 8x8. Run block by block, only one order gives the logits."""
    discriminator, images, variables = small_discriminator()
    _, seen = discriminator.apply(variables, images, LABELS, train=False, mutable=["intermediates"])
    params, features = variables["params"], images
    for number, downsample in enumerate([True, True, False, False], start=1):
        if number == 3:
            before = features
            features, alone = SelfAttention().apply(
                {"params": params["attention_8"]}, features, mutable=["intermediates"]
            )
            assert not np.allclose(before, features)
        block = DiscriminatorBlock(8, downsample, first=number == 1)
        features = block.apply({"params": params[f"block_{number}"]}, features, train=False)
    found = seen["intermediates"]["attention_8"]["attention_map"][0]
    assert np.allclose(alone["intermediates"]["attention_map"][0], found, atol=1e-6)
    pooled = jax.nn.relu(features).sum((1, 2))
    expected = (
        pooled @ params["linear"]["kernel"][:, 0]
        + params["linear"]["bias"][0]
        + (params["projection"]["kernel"].T[LABELS] * pooled).sum(1)
    )
    assert np.allclose(discriminator.apply(variables, images, LABELS, train=False), expected, rtol=1e-4, atol=1e-4)


def test_discriminator_logit_is_linear_plus_the_product_with_the_embedding():
    discriminator, images, variables = small_discriminator()
    logits, seen = discriminator.apply(
        variables, images, LABELS, train=False, capture_intermediates=lambda module, _: module.name == "block_4"
    )
    pooled = np.maximum(np.asarray(seen["intermediates"]["block_4"]["__call__"][0], np.float64), 0).sum((1, 2))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    embedding = params["projection"]["kernel"].T
    expected = [
        float(h @ params["linear"]["kernel"][:, 0]) + float(params["linear"]["bias"][0]) + float(h @ embedding[label])
        for h, label in zip(pooled, np.asarray(LABELS), strict=True)
    ]
    assert np.allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_discriminator_without_classes_has_the_linear_logit_alone():
    discriminator, images, variables = small_discriminator()
    logits = {}
    for classes in (0, 5):
        params = variables["params"] | {"projection": {"kernel": jnp.zeros((8, 5))}}
        params = params if classes else {name: part for name, part in params.items() if name != "projection"}
        network = discriminator.clone(num_classes=classes)
        logits[classes] = network.apply({"params": params}, images, LABELS if classes else None, train=False)
    assert np.array_equal(logits[0], logits[5])


def test_discriminator_u_of_the_embedding_has_an_entry_a_class():
    _, _, variables = small_discriminator()
    vectors = init_spectral(jax.random.key(0), variables["params"])
    assert {side: vector.shape for side, vector in vectors["projection"]["kernel"].items()} == {"u": (5,), "v": (8,)}


def convolve(features, layer):
    """The convolution of a layer, SAME padding, by numpy in float64."""
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    reach = kernel.shape[0] // 2
    padded = np.pad(np.asarray(features, np.float64), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = features.shape[1:3]
    return bias + sum(
        padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
        for dy in range(kernel.shape[0])
        for dx in range(kernel.shape[1])
    )


def with_biases(params):
    """The parameters with every bias away from its initial value 0."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf + 0.3 if path[-1].key == "bias" else leaf, params)


def test_generator_block_is_the_published_order_of_operations():
    block, features = GeneratorBlock(5), jax.random.normal(jax.random.key(1), (2, 3, 4, 7))
    variables = block.init(jax.random.key(0), features, None, train=False)
    params = with_biases(variables["params"])
    root = math.sqrt(1 + 1e-5)  # the stored statistics are still 0 and 1

    def upsample(maps):
        return maps.repeat(2, axis=1).repeat(2, axis=2)

    x = np.asarray(features, np.float64)
    hidden = convolve(upsample(np.maximum(x / root, 0)), params["conv_1"])
    hidden = convolve(np.maximum(hidden / root, 0), params["conv_2"])
    expected = hidden + convolve(upsample(x), params["shortcut"])
    assert np.allclose(block.apply(variables | {"params": params}, features, None, train=False), expected, atol=1e-5)


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("shortcut", ["before_relu", "after_relu"])
def test_discriminator_block_is_the_published_order_of_operations(first, shortcut):
    block = DiscriminatorBlock(5, downsample=True, first=first, shortcut=shortcut)
    features = jax.random.normal(jax.random.key(1), (2, 6, 4, 7))
    variables = block.init(jax.random.key(0), features, train=False)
    params = with_biases(variables["params"])

    def pool(maps):
        return maps.reshape(2, 3, 2, 2, 2, 5).mean((2, 4))

    x = np.asarray(features, np.float64)
    entered = x if first else np.maximum(x, 0)
    hidden = convolve(np.maximum(convolve(entered, params["conv_1"]), 0), params["conv_2"])
    beside = np.maximum(x, 0) if shortcut == "after_relu" and not first else x
    expected = pool(hidden) + pool(convolve(beside, params["shortcut"]))
    assert np.allclose(block.apply({"params": params}, features, train=False), expected, atol=1e-5)


@pytest.mark.parametrize("shortcut", ["before_relu", "after_relu"])
def test_discriminator_block_with_norms_has_one_before_each_relu(shortcut):
    block = DiscriminatorBlock(5, downsample=True, shortcut=shortcut, norm="batch", norm_epsilon=0.25)
    features = 2.0 + jax.random.normal(jax.random.key(1), (2, 6, 4, 7))
    variables = block.init(jax.random.key(0), features, train=False)
    params = with_biases(variables["params"])
    result, _ = block.apply(variables | {"params": params}, features, train=True, mutable=["batch_stats"])

    def activate(maps):
        return np.maximum((maps - maps.mean((0, 1, 2))) / np.sqrt(maps.var((0, 1, 2)) + 0.25), 0)

    x = np.asarray(features, np.float64)
    hidden = convolve(activate(convolve(activate(x), params["conv_1"])), params["conv_2"])
    beside = convolve(activate(x) if shortcut == "after_relu" else x, params["shortcut"])
    assert np.allclose(result, (hidden + beside).reshape(2, 3, 2, 2, 2, 5).mean((2, 4)), atol=1e-5)


def test_discriminator_block_that_changes_nothing_has_an_identity_shortcut():
    block, features = DiscriminatorBlock(5, downsample=False), jax.random.normal(jax.random.key(1), (2, 6, 4, 5))
    params = with_biases(block.init(jax.random.key(0), features, train=False)["params"])
    assert sorted(params) == ["conv_1", "conv_2"]
    hidden = convolve(np.maximum(convolve(np.maximum(features, 0), params["conv_1"]), 0), params["conv_2"])
    assert np.allclose(block.apply({"params": params}, features, train=False), features + hidden, atol=1e-5)


def test_discriminator_with_norms_keeps_statistics():
    plain = shapes(Discriminator(32, 0, 1, attention_resolutions=()))
    normed = shapes(Discriminator(32, 0, 1, attention_resolutions=(), norm="batch"))
    assert "batch_stats" not in plain
    assert sorted(normed["batch_stats"]["block_2"]) == ["norm_1", "norm_2"]


def test_discriminator_hands_the_kind_of_shortcut_to_its_blocks():
    discriminator, images, variables = small_discriminator()
    network = discriminator.clone(shortcut="after_relu")
    _, seen = network.apply(variables, images, LABELS, train=False, capture_intermediates=True)
    outputs = {name: seen["intermediates"][name]["__call__"][0] for name in ("block_3", "block_4")}
    block = DiscriminatorBlock(8, downsample=False, shortcut="after_relu")
    alone = block.apply({"params": variables["params"]["block_4"]}, outputs["block_3"], train=False)
    assert np.allclose(alone, outputs["block_4"], atol=1e-5)


def moved_moments(network, inputs, variables, share):
    """Returns the share of the batch's variance in each running variance, after one step from 0.

    `share` names the decays of the network and their values.
    """
    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    labels = LABELS if network.num_classes else None

    def variances(network):
        _, moved = network.apply(
            variables | {"batch_stats": zeros}, inputs, labels, train=True, mutable=["batch_stats"]
        )
        found = jax.tree_util.tree_flatten_with_path(moved["batch_stats"])[0]
        return {
            "/".join(key.key for key in keys[:-1]): np.asarray(leaf, np.float64)
            for keys, leaf in found
            if keys[-1].key == "variance"
        }

    some, whole = variances(network.clone(**share)), variances(network.clone(**dict.fromkeys(share, 0.0)))
    return {name: float((some[name] / whole[name]).mean()) for name in some}


def test_generator_hands_each_norm_its_own_decay():
    generator, latents, variables = small_generator()
    shares = moved_moments(generator, latents, variables, {"norm_decay": 0.75, "final_norm_decay": 0.5})
    norms = [f"block_{number}/norm_{norm}" for number in (1, 2, 3) for norm in (1, 2)]
    assert shares == pytest.approx(dict.fromkeys(norms, 0.25) | {"norm": 0.5}, rel=1e-4)


def test_discriminator_hands_its_norms_their_decay():
    discriminator = Discriminator(32, 0, 1, attention_resolutions=(), norm="batch")
    images = jax.random.uniform(jax.random.key(4), (3, 32, 32, 3), minval=-1.0)
    variables = discriminator.init(jax.random.key(0), images, None, train=False)
    shares = moved_moments(discriminator, images, variables, {"norm_decay": 0.75})
    names = ["block_1/norm_2", *(f"block_{number}/norm_{norm}" for number in (2, 3, 4) for norm in (1, 2))]
    assert shares == pytest.approx(dict.fromkeys(names, 0.25), rel=1e-4)


def test_generator_decays_by_default_as_in_the_release():
    generator = Generator()
    assert (generator.norm_decay, generator.final_norm_decay, generator.norm_epsilon) == (0.999, 0.9999, 1e-5)


def test_generator_hands_the_kind_of_gain_to_its_conditional_norms_only():
    params = shapes(Generator(32, 5, 1, attention_resolutions=(), conditional_gain="map"))["params"]
    assert sorted(params["block_2"]["norm_2"]) == ["scale_kernel", "shift_kernel"]
    assert sorted(params["norm"]) == ["scale", "shift"]


def test_resampling_of_the_blocks_is_the_functions():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    assert np.array_equal(upsample_nearest(x), np.asarray(x).repeat(2, axis=1).repeat(2, axis=2))
    assert np.allclose(average_pool(x), np.asarray(x).reshape(2, 2, 2, 3, 2, 3).mean((2, 4)), atol=1e-6)


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (Generator(32, 0, 1, attention="artcle"), "attention needs to be one of 'release', 'article', 'multi_head'"),
        (Generator(32, 3, 1, conditional_gain="tabel"), "gain"),
        (Generator(48, 0, 1), "resolution needs to be one of 32, 64, 128, 256, 512; got 48"),
        (Discriminator(32, 0, 1, norm="spectral"), "norm"),
        (Discriminator(32, 0, 1, shortcut="after"), "shortcut"),
    ],
)
def test_network_refuses_a_choice_that_it_does_not_know(network, word):
    inputs = jnp.zeros((2, 6)) if isinstance(network, Generator) else jnp.zeros((2, 32, 32, 3))
    with pytest.raises(ValueError, match=word):
        jax.eval_shape(lambda: network.init(jax.random.key(0), inputs, LABELS[:2] // 2, train=False))


def test_discriminator_refuses_images_of_another_size():
    network = Discriminator(32, 0, 1)
    with pytest.raises(ValueError, match=r"\[B, 32, 32, C\]; got \[2, 64, 64, 3\]"):
        jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)), None, train=False))
