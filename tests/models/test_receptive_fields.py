"""How far convolutions alone can see: what is not a number anywhere becomes none wherever it is looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.models import dcgan, sagan

SIZE = 32
NETWORKS = {
    "none": (sagan, (), "release"),
    "residual at 16": (sagan, (16,), "residual"),
    "residual at 16 and 8": (sagan, (16, 8), "residual"),
    "dcgan": (dcgan, (), "release"),
    "attention at 16": (sagan, (16,), "release"),
}
# Columns of the image that D's feature map of that name sees in its middle; columns that the first of G's 4 reaches.
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
    images = np.where(np.eye(SIZE)[:, None, :, None] == 1, np.nan, np.zeros((SIZE, SIZE, SIZE, 3), np.float32))
    variables = discriminator.init(jax.random.key(0), images, None, train=False)
    _, seen = discriminator.apply(
        variables, images, None, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    for name, width in fields.items():
        features = jax.tree.leaves(seen["intermediates"][name]["__call__"])[0]
        columns = np.isnan(features).any(axis=(1, 3)).sum(axis=0)
        assert columns[len(columns) // 2] == width, name


def test_reach_of_the_coarsest_features_of_the_generator(network):
    (_, reach), generator, _ = network
    latents = jnp.zeros((1, 5))
    variables = generator.init(jax.random.key(0), latents, None, train=False)
    linear = variables["params"]["linear"]
    bias = linear["bias"].reshape(4, 4, -1).at[:, 0].set(jnp.nan).ravel()
    broken = variables | {"params": variables["params"] | {"linear": linear | {"bias": bias}}}
    images = generator.apply(broken, latents, None, train=False)
    assert np.flatnonzero(np.isnan(images).any(axis=(0, 1, 3))).tolist() == list(range(reach))
