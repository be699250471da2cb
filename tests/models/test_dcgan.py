"""DCGAN: sizes, numbers of parameters, the place of attention, and a transposed convolution by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.models.dcgan import Discriminator, Generator, discriminator_resolutions, generator_resolutions
from support.assertions import assert_rows_are_their_own
from support.params import drawn_function, num_parameters, variable_shapes


def test_networks_have_as_many_parameters_as_published():
    generator, discriminator = variable_shapes(Generator(), 128), variable_shapes(Discriminator(), 32, 32, 3)
    assert (num_parameters(generator["params"]), num_parameters(discriminator["params"])) == (3_812_355, 2_931_009)


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("classes", [0, 5])
def test_networks_give_each_row_an_image_and_a_logit_of_its_own(resolution, classes):
    sizes = {"num_classes": classes, "base_channels": 8}
    generator, discriminator = Generator(resolution, **sizes), Discriminator(resolution, **sizes)
    labels = np.array([4, 1, 4], np.int32) if classes else None
    latents = np.random.default_rng(0).normal(size=(3, 5))
    images = assert_rows_are_their_own(drawn_function(generator, 5), latents, labels)
    assert images.shape == (3, resolution, resolution, 3)
    logits = assert_rows_are_their_own(drawn_function(discriminator, *images.shape[1:]), images, labels)
    assert logits.shape == (3,)


@pytest.mark.parametrize(("resolution", "blocks"), [(32, (8, 16, 32)), (64, (8, 16, 32, 64))])
def test_resolutions_end_at_the_image_and_at_4(resolution, blocks):
    assert generator_resolutions(resolution) == blocks
    assert discriminator_resolutions(resolution)[-1] == 4


def test_64_pixels_take_one_more_pair_of_the_same_layers():
    small, large = (variable_shapes(Discriminator(size), size, size, 3)["params"].keys() for size in (32, 64))
    assert large - small == {"conv_4a", "conv_4b", "norm_4a", "norm_4b", "conv_5", "norm_5"} - small
    assert variable_shapes(Discriminator(64), 64, 64, 3)["params"]["conv_5"]["kernel"].shape == (3, 3, 512, 1024)


def test_transposed_convolution_spreads_each_position_over_four_by_four():
    generator = Generator(base_channels=1)
    variables = variable_shapes(generator, 4)
    kernel = np.random.default_rng(0).normal(size=(4, 4, 8, 4)).astype(np.float32)
    layer = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables["params"])["conv_1"]
    features = np.zeros((1, 4, 4, 8), np.float32)
    features[0, 1, 2, 3] = 2.0
    spread = nn.ConvTranspose(4, (4, 4), (2, 2)).apply({"params": layer | {"kernel": kernel}}, features)
    wanted = np.zeros((1, 8, 8, 4), np.float32)
    # Position (1, 2) reaches rows 1 to 4 and columns 3 to 6; flax walks over the kernel backwards.
    wanted[0, 1:5, 3:7] = 2.0 * kernel[::-1, ::-1, 3]
    assert np.allclose(spread, wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.one_jax
def test_attention_is_one_switch_and_starts_as_nothing():
    latents = jax.random.normal(jax.random.key(1), (3, 6))
    local = Generator(base_channels=2)
    looking = Generator(base_channels=2, attention_resolutions=(8, 16))
    variables = looking.init(jax.random.key(0), latents, None, train=False)
    without = {name: part for name, part in variables["params"].items() if not name.startswith("attention")}
    assert set(variables["params"]) - set(without) == {"attention_8", "attention_16"}
    drawn = local.apply(variables | {"params": without}, latents, None, train=False)
    assert np.allclose(looking.apply(variables, latents, None, train=False), drawn, atol=1e-6)
    variables["params"]["attention_8"]["gamma"] = jnp.float32(2.0)
    assert not np.allclose(looking.apply(variables, latents, None, train=False), drawn, atol=1e-3)


@pytest.mark.slow
@pytest.mark.one_jax
def test_discriminator_keeps_the_moments_of_what_it_is_trained_on():
    discriminator = Discriminator(base_channels=2, norm_decay=0.5)
    images = jax.random.normal(jax.random.key(1), (5, 32, 32, 3))
    variables = discriminator.init(jax.random.key(0), images, None, train=False)
    _, moved = discriminator.apply(variables, images, None, train=True, mutable=["batch_stats"])
    first = jax.lax.conv_general_dilated(
        images, variables["params"]["conv_1a"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert np.allclose(moved["batch_stats"]["norm_1a"]["mean"], 0.5 * first.mean((0, 1, 2)), atol=1e-5)


def test_discriminator_without_norms_has_no_state():
    assert set(variable_shapes(Discriminator(norm="none"), 32, 32, 3)) == {"params"}


@pytest.mark.slow
def test_classes_reach_both_networks():
    labels, others = jnp.array([0, 1]), jnp.array([2, 2])
    generator, discriminator = Generator(num_classes=3, base_channels=2), Discriminator(num_classes=3, base_channels=2)
    inputs = jax.random.normal(jax.random.key(1), (2, 6))
    for network in (generator, discriminator):
        variables = network.init(jax.random.key(0), inputs, labels, train=False)
        noise = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda leaf, noise=noise: leaf + 0.1 * np.float32(noise.normal(size=leaf.shape)) ** 2, variables
        )
        one, other = (network.apply(variables, inputs, which, train=False) for which in (labels, others))
        assert not np.allclose(one, other)
        inputs = one


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Generator(resolution=128), "128"),
        (Generator(attention_resolutions=(4,)), "no block ends at 4"),
        (Discriminator(norm="layer"), "'layer'"),
        (Discriminator(initializer="random"), "'random'"),
        (Discriminator(64), r"64, 64, C\]; got \[2, 32, 32, 3\]"),
    ],
)
def test_networks_refuse_what_does_not_exist(network, words):
    inputs = (7,) if isinstance(network, Generator) else (32, 32, 3)
    with pytest.raises(ValueError, match=words):
        variable_shapes(network, *inputs)
