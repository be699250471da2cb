"""The completion network: what it may see, what it must leave alone, and what its latents are for."""

import doctest
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.models import completion
from sagan_jax.models.completion import CompletionNetwork, completion_resolutions, patchify, unpatchify
from support.params import num_parameters

# Whole networks and their gradients are compiled.
pytestmark = pytest.mark.slow

KINDS = ("release", "article", "residual")


def small(**fields):
    return CompletionNetwork(**{"base_channels": 2, "latent_size": 5, "attention_resolutions": ()} | fields)


def inputs(network, batch=3, seed=1):
    size, channels = network.resolution, network.image_channels
    images = jax.random.uniform(jax.random.key(seed), (batch, size, size, channels), minval=-1.0)
    masks = jnp.zeros((batch, size, size), bool).at[:, size // 4 : size // 2, size // 8 : size // 2].set(True)
    return images, masks.at[0].set(False).at[0, -3:, 5:].set(True)


@functools.cache
def shaken(network):
    """Returns variables without special initial values: no gate and no bias is 0."""
    variables = jax.jit(network.init)(jax.random.key(0), *inputs(network))
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape, leaf.dtype), variables
    )


@functools.cache
def compiled(network, method="__call__"):
    """Returns `network.apply` as one program."""
    return jax.jit(functools.partial(network.apply, method=method))


def count(network):
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs(network, 1)))
    return num_parameters(variables["params"])


def test_doctests_of_the_completion_network_hold():
    outcome = doctest.testmod(completion)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize(("resolution", "channels"), [(64, 1), (64, 4), (128, 3)])
def test_network_completes_images_of_its_size(resolution, channels, attention):
    network = small(
        resolution=resolution, image_channels=channels, attention_resolutions=(16, 8, 4), attention=attention
    )
    images, masks = inputs(network)
    completed, variables = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), images, masks))
    assert completed.images.shape == (3, resolution, resolution, channels)
    assert completed.mean.shape == completed.log_variance.shape == (3, 5)
    places = {name for part in variables["params"].values() for name in part if name.startswith("attention")}
    assert places == {"attention_16", "attention_8", "attention_4"}


def test_sizes_of_feature_maps_end_at_a_sixteenth():
    assert completion_resolutions(64) == (16, 8, 4)
    assert completion_resolutions(128) == (32, 16, 8, 4)


@pytest.mark.parametrize("fields", [{}, {"attention_resolutions": (16,)}, {"skips": False}, {"resolution": 128}])
def test_visible_pixels_come_back_bit_for_bit_and_the_hole_does_not(fields):
    network = small(**fields)
    images, masks = inputs(network)
    for key in (None, jax.random.key(3)):
        completed = np.asarray(compiled(network)(shaken(network), images, masks, key).images)
        assert (completed[~masks] == np.asarray(images)[~masks]).all()
        assert (completed[masks] != np.asarray(images)[masks]).all()
        assert np.abs(completed[masks]).max() <= 1


@pytest.mark.parametrize("content", [0.0, 7.0, np.nan, np.inf])
@pytest.mark.parametrize("skips", [True, False])
def test_nothing_depends_on_what_was_in_the_hole(skips, content):
    network = small(skips=skips, attention_resolutions=(16, 8))
    images, masks = inputs(network)
    variables = shaken(network)
    others = jnp.where(masks[..., None], content, images)
    for key in (None, jax.random.key(3)):
        one, other = (compiled(network)(variables, given, masks, key) for given in (images, others))
        assert all((first == second).all() for first, second in zip(one, other, strict=True))


def test_no_gradient_reaches_what_was_in_the_hole():
    network = small()
    images, masks = inputs(network)
    variables = shaken(network)

    def energy(images):
        completed = network.apply(variables, images, masks, jax.random.key(3))
        return (jnp.where(masks[..., None], completed.images, 0) ** 2).sum() + (completed.mean**2).sum()

    gradient = np.asarray(jax.jit(jax.grad(energy))(images))
    assert (gradient[masks] == 0).all()
    assert (gradient[~masks] != 0).mean() > 0.5


def test_mask_is_seen_even_where_the_image_is_black():
    network = small()
    images, masks = inputs(network)
    variables, nothing = shaken(network), jnp.zeros_like(images)
    one, other = (compiled(network)(variables, nothing, seen).mean for seen in (masks, masks[::-1]))
    assert not np.allclose(one, other)


def test_completion_without_a_key_is_that_of_the_mean():
    network = small()
    images, masks = inputs(network)
    variables = shaken(network)
    completed = compiled(network)(variables, images, masks)
    encoded = compiled(network, "encode")(variables, images, masks)
    drawn = compiled(network, "decode")(variables, encoded.mean, encoded.features)
    assert np.allclose(completed.images, jnp.where(masks[..., None], drawn, images), atol=1e-5)
    assert np.allclose(completed.mean, encoded.mean, atol=1e-5)


def test_latents_are_drawn_from_the_stated_normal():
    network = small()
    images, masks = inputs(network)
    encoded = compiled(network, "encode")(shaken(network), images, masks)
    latents = jax.vmap(encoded.sample)(jax.random.split(jax.random.key(0), 20_000))
    assert latents.shape == (20_000, 3, 5)
    deviations = np.exp(0.5 * np.asarray(encoded.log_variance))
    assert np.allclose(latents.mean(axis=0), encoded.mean, atol=4 * deviations.max() / math.sqrt(20_000))
    assert np.allclose(np.std(latents, axis=0), deviations, rtol=0.03)


def test_drawn_completions_differ_in_the_hole_alone_and_are_the_decoding_of_their_latents():
    network = small()
    images, masks = inputs(network)
    variables = shaken(network)
    encoded = compiled(network, "encode")(variables, images, masks)
    found = []
    for number in range(2):
        key = jax.random.key(number)
        found.append(compiled(network)(variables, images, masks, key).images)
        drawn = compiled(network, "decode")(variables, encoded.sample(key), encoded.features)
        assert np.allclose(found[number], jnp.where(masks[..., None], drawn, images), atol=1e-5)
    assert (np.asarray(found[0] == found[1]) == ~np.asarray(masks)[..., None]).mean() > 0.99


def test_images_of_a_batch_do_not_influence_each_other():
    network = small(attention_resolutions=(8,))
    images, masks = inputs(network)
    variables = shaken(network)
    together = compiled(network)(variables, images, masks).images
    alone = jnp.concatenate(
        [compiled(network)(variables, images[n : n + 1], masks[n : n + 1]).images for n in range(3)]
    )
    assert np.allclose(together, alone, atol=1e-5)


def test_skips_are_the_only_way_round_the_latents():
    images, masks = inputs(small())
    for skips in (True, False):
        network = small(skips=skips)
        variables = shaken(network)
        encoded = compiled(network, "encode")(variables, images, masks)
        latents = jnp.ones_like(encoded.mean)
        drawn = compiled(network, "decode")(variables, latents, encoded.features)
        assert np.allclose(drawn[0], drawn[1], atol=1e-5) != skips
    assert encoded.features == ()


@pytest.mark.parametrize("attention", KINDS)
def test_gradients_reach_every_parameter(attention):
    network = small(base_channels=8, attention_resolutions=(16, 8), attention=attention)
    images, masks = inputs(network)

    def loss(variables):
        completed = network.apply(variables, images, masks, jax.random.key(3))
        return (completed.images**2).sum() + (completed.log_variance**2).sum()

    gradients = jax.jit(jax.grad(loss))(shaken(network))
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if not np.abs(leaf).max() > 0
    ]
    assert dead == []


def test_attention_starts_as_identity_and_is_one_field():
    plain, looking = small(), small(attention_resolutions=(16, 8))
    images, masks = inputs(plain)
    variables = jax.jit(looking.init)(jax.random.key(0), images, masks)
    without = {
        network: {name: part for name, part in parts.items() if not name.startswith("attention")}
        for network, parts in variables["params"].items()
    }
    drawn = compiled(plain)({"params": without}, images, masks).images
    assert np.allclose(compiled(looking)(variables, images, masks).images, drawn, atol=1e-6)
    for network in ("encoder", "decoder"):
        changed = jax.tree.map(jnp.copy, variables)
        changed["params"][network]["attention_8"]["gamma"] = jnp.float32(3.0)
        assert not np.allclose(compiled(looking)(changed, images, masks).images, drawn, atol=1e-6)


def test_attention_maps_are_seen_in_the_encoder_and_the_decoder():
    network = small(attention_resolutions=(16,))
    images, masks = inputs(network)
    _, seen = network.apply(shaken(network), images, masks, mutable=["intermediates"])
    for part in ("encoder", "decoder"):
        (attention_map,) = seen["intermediates"][part]["attention_16"]["attention_map"]
        assert attention_map.shape == (3, 16 * 16, 8 * 8)
        assert np.allclose(attention_map.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("resolution", [64, 128])
def test_control_has_about_as_many_parameters_as_attention(resolution):
    places = completion_resolutions(resolution)
    plain, looking, control = (
        count(CompletionNetwork(resolution, attention_resolutions=where, attention=kind))
        for where, kind in (((), "release"), (places, "release"), (places, "residual"))
    )
    assert looking > plain
    assert abs(control - looking) < 0.05 * (looking - plain)


def test_patches_hold_whole_squares_and_are_undone():
    images = jnp.arange(2 * 8 * 12 * 3.0).reshape(2, 8, 12, 3)
    squares = patchify(images, 4)
    assert squares.shape == (2, 2, 3, 48)
    assert (squares[1, 1, 2].reshape(4, 4, 3) == images[1, 4:8, 8:12]).all()
    assert (unpatchify(squares, 4) == images).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resolution": 32}, "32"),
        ({"attention_resolutions": (32,)}, r"feature-map sizes \[4, 8, 16\]; got \[32\]"),
        ({"attention": "global"}, "'global'"),
        ({"latent_size": 0}, "latent_size"),
    ],
)
def test_network_refuses_what_does_not_exist(fields, words):
    network = small(**fields)
    with pytest.raises(ValueError, match=words):
        network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.ones((1, 64, 64), bool))


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ((2, 64, 32, 3), (2, 64, 32), r"\[B, 64, 64, 3\]"),
        ((2, 64, 64, 1), (2, 64, 64), r"\[2, 64, 64, 1\]"),
        ((2, 64, 64, 3), (2, 64, 64, 1), r"\[2, 64, 64, 1\]"),
        ((2, 64, 64, 3), (1, 64, 64), r"\[1, 64, 64\]"),
    ],
)
def test_network_refuses_images_and_masks_that_do_not_fit(images, masks, words):
    with pytest.raises(ValueError, match=words):
        small().init(jax.random.key(0), jnp.zeros(images), jnp.zeros(masks, bool))


def test_network_refuses_a_mask_of_numbers():
    with pytest.raises(ValueError, match="bool"):
        small().init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)), jnp.zeros((2, 64, 64)))
