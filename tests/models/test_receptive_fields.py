"""How far convolutions can see without attention."""

import pytest

from sagan_jax.models import dcgan, sagan
from sagan_jax.models.receptive_fields import discriminator_fields, generator_reach

SIZE = 32
NETWORKS = {
    "none": (sagan, (), "release"),
    "residual at 16": (sagan, (16,), "residual"),
    "residual at 16 and 8": (sagan, (16, 8), "residual"),
    "dcgan": (dcgan, (), "release"),
    "attention at 16": (sagan, (16,), "release"),
}
# How many columns of the image the middle of each feature map of D sees, and how many the first of G's 4 reaches.
FIELDS = {
    "none": ({"block_1": 6, "block_2": 16, "block_3": 30, "block_4": 32}, 23),
    "residual at 16": ({"block_1": 6, "attention_16": 14, "block_2": 24, "block_4": 32}, 27),
    "residual at 16 and 8": ({"attention_16": 14, "attention_8": 32, "block_4": 32}, 32),
    "dcgan": ({"conv_1b": 6, "conv_2b": 16, "conv_3b": 30, "conv_4": 32}, 16),
    "attention at 16": ({"block_1": 6, "attention_16": 32, "block_4": 32}, 32),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    module, resolutions, attention = NETWORKS[request.param]
    options = {"resolution": SIZE, "num_classes": 0, "base_channels": 2}
    options |= {"attention_resolutions": resolutions, "attention": attention}
    return FIELDS[request.param], module.Generator(**options), module.Discriminator(**options)


def test_receptive_fields_of_the_discriminator(network):
    (fields, _), _, discriminator = network
    found = discriminator_fields(discriminator, SIZE)
    assert {name: found[name] for name in fields} == fields
    assert list(found.values()) == sorted(found.values())


def test_reach_of_the_coarsest_features_of_the_generator(network):
    (_, reach), generator, _ = network
    assert generator_reach(generator, 5) == reach
