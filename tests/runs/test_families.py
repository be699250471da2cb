"""One word of a config picks the family; what a family does not have is refused in one line."""

import dataclasses

import jax
import pytest
from flax.traverse_util import flatten_dict

from sagan_jax.config import Experiment, Networks
from sagan_jax.errors import InvalidInputError
from sagan_jax.models import biggan, dcgan, sagan
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.families import attention_channels, build_networks
from sagan_jax.runs.validate import check_config
from sagan_jax.training.adversarial import initial_state

KERNELS = {"scale_kernel", "shift_kernel"}
FAMILIES = {"sagan": sagan, "dcgan": dcgan, "biggan": biggan}


def networks(family, **fields):
    places = {"generator_attention_resolutions": (16,), "discriminator_attention_resolutions": (8,)}
    return Networks(family=family, **({"resolution": 32, "num_classes": 7, "latent_size": 12} | places | fields))


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_one_word(family):
    generator, discriminator = build_networks(networks(family, base_channels=3))
    assert type(generator) is FAMILIES[family].Generator
    assert type(discriminator) is FAMILIES[family].Discriminator
    for network, places in ((generator, (16,)), (discriminator, (8,))):
        assert (network.resolution, network.num_classes, network.base_channels) == (32, 7, 3)
        assert network.attention_resolutions == places


@pytest.mark.parametrize(
    ("field", "value", "families"),
    [
        ("image_channels", 1, "sagan dcgan biggan"),
        ("norm_decay", 0.5, "sagan dcgan biggan"),
        ("norm_epsilon", 0.25, "sagan dcgan biggan"),
        ("initializer", "orthogonal", "sagan dcgan biggan"),
        ("attention", "article", "sagan dcgan biggan"),
        ("conditional_gain", "map", "sagan dcgan"),
        ("conditional_gain", "free_map", "sagan dcgan"),
        ("conditional_gain", "scaled_map", "sagan dcgan"),
        ("final_norm_decay", 0.5, "sagan"),
        ("shared_size", 9, "biggan"),
        ("hierarchical", False, "biggan"),
    ],
)
def test_field_reaches_the_generators_that_have_it(field, value, families):
    for family in families.split():
        generator, _ = build_networks(networks(family, **{field: value}))
        assert getattr(generator, field) == value


@pytest.mark.parametrize(
    ("field", "value", "attribute", "families"),
    [
        ("discriminator_norm", "batch", "norm", "sagan dcgan biggan"),
        ("discriminator_shortcut", "after_relu", "shortcut", "sagan biggan"),
        ("initializer", "orthogonal", "initializer", "sagan dcgan biggan"),
        ("norm_decay", 0.5, "norm_decay", "sagan dcgan biggan"),
    ],
)
def test_field_reaches_the_discriminators_that_have_it(field, value, attribute, families):
    for family in families.split():
        _, discriminator = build_networks(networks(family, **{field: value}))
        assert getattr(discriminator, attribute) == value


@pytest.mark.parametrize(
    ("family", "generator", "discriminator"),
    [
        ("sagan", {8: 12, 16: 12, 32: 12}, {16: 6, 8: 6}),
        ("dcgan", {8: 12, 16: 6, 32: 3}, {16: 3, 8: 6, 4: 12}),
        ("biggan", {8: 12, 16: 12, 32: 12}, {16: 12, 8: 12}),
    ],
)
def test_attention_can_sit_where_blocks_end(family, generator, discriminator):
    assert attention_channels(networks(family, base_channels=3)) == (generator, discriminator)


def test_of_two_blocks_of_one_size_attention_follows_the_first():
    _, discriminator = attention_channels(networks("sagan", resolution=64, base_channels=3))
    assert discriminator == {32: 3, 16: 6, 8: 12, 4: 24}


@pytest.mark.parametrize(
    ("family", "fields", "words"),
    [
        ("dcgan", {"resolution": 128}, "--resolution of a dcgan needs to be one of 32, 64; got 128"),
        ("dcgan", {"final_norm_decay": 0.5}, "--final-norm-decay does nothing in a dcgan"),
        ("dcgan", {"discriminator_shortcut": "after_relu"}, "--discriminator-shortcut does nothing in a dcgan"),
        ("sagan", {"shared_size": 9}, "--shared-size does nothing in a sagan"),
        ("sagan", {"hierarchical": False}, "--hierarchical does nothing in a sagan"),
        ("biggan", {"conditional_gain": "map"}, "--conditional-gain does nothing in a biggan"),
        (
            "sagan",
            {"conditional_gain": "scaled_map", "spectral_norm": "discriminator"},
            "needs --spectral-norm both or generator; got discriminator. Give --conditional-gain free_map.",
        ),
        ("dcgan", {"conditional_gain": "scaled_map", "spectral_norm": "none"}, "or generator; got none."),
        ("sagan", {"conditional_gain": "freemap"}, "needs to be one of table, map, free_map, scaled_map; got"),
        ("biggan", {"latent_size": 13}, "--latent-size needs a multiple of 4"),
        ("biggan", {"shared_size": 0}, "--shared-size 0 needs --no-hierarchical or --num-classes 0"),
        ("biggan", {"shared_size": -1}, "--shared-size needs to be at least 0"),
        ("dcgan", {"discriminator_attention_resolutions": (32,)}, "ends at 32; it can be any of 4, 8, 16"),
        ("stylegan", {}, "--family needs to be one of sagan, dcgan, biggan"),
    ],
)
def test_what_a_family_does_not_have_is_refused(family, fields, words):
    experiment = dataclasses.replace(Experiment(), networks=networks(family, **fields))
    with pytest.raises(InvalidInputError) as caught:
        check_config(experiment)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_discriminator_has_a_width_of_its_own_where_one_is_given(family):
    shared, own = networks(family, base_channels=4), networks(family, base_channels=4, discriminator_base_channels=6)
    generator, discriminator = build_networks(own)
    assert (generator.base_channels, discriminator.base_channels) == (4, 6)
    assert attention_channels(own)[0] == attention_channels(shared)[0]
    assert attention_channels(own)[1] == {size: width * 6 // 4 for size, width in attention_channels(shared)[1].items()}


@pytest.mark.parametrize("family", ["sagan", "dcgan"])
@pytest.mark.parametrize(
    ("gain", "found"), [("table", set()), ("free_map", set()), ("map", KERNELS), ("scaled_map", KERNELS)]
)
def test_class_gains_are_normalised_where_their_form_says_so(family, gain, found):
    experiment = dataclasses.replace(Experiment(), networks=networks(family, base_channels=2, conditional_gain=gain))
    state = jax.eval_shape(lambda: initial_state(build_adversarial_task(experiment), 0, (32, 32, 3))).generator
    assert {path[-2] for path in flatten_dict(state.spectral) if path[-3].startswith("norm")} == found
    of_norm = {path[-1] for path in flatten_dict(state.params) if path[-2] == "norm_1"}
    assert (of_norm & {"scale", "scale_map"}) == {"table": {"scale"}, "free_map": {"scale_map"}}.get(gain, set())
