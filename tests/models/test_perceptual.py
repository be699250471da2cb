"""The activations that the perceptual term compares, with an untrained network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.models.lite0 import Lite0
from sagan_jax.models.perceptual import LAYERS, Lite0Activations

BATCH, HEIGHT, WIDTH = 2, 64, 36  # images keep their own size: nothing is resized


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (BATCH, HEIGHT, WIDTH, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    shapes = jax.eval_shape(Lite0().init, jax.random.key(0), images)
    numbers = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: numbers.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


def of_network(variables, images):
    """The network's own activations, for pixels of 0 to 255 in the scale that its authors state."""
    outputs = Lite0().apply(variables, ((images + 1) * 255 / 2 - 127) / 128, with_activations=True)
    return [outputs[f"block_{number}"] for number in (0, 2, 4, 10, 15)]


@pytest.mark.slow
@pytest.mark.one_jax
def test_activations_are_those_of_the_network_at_the_images_own_size(images, variables):
    found, wanted = (jax.jit(function)(variables, images) for function in (Lite0Activations().apply, of_network))
    sides = [(BATCH, -(-HEIGHT // step), -(-WIDTH // step)) for step in (2, 4, 8, 16, 32)]
    assert [layer.shape[:3] for layer in found] == sides
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * abs(other).max())


def test_grey_images_are_seen_as_grey_colours(images, variables):
    grey = images[..., :1]
    activations = jax.jit(Lite0Activations().apply)
    for one, other in zip(activations(variables, grey), activations(variables, grey.repeat(3, -1)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * abs(other).max())


def test_activations_have_the_dtype_that_is_asked_for(images, variables):
    found = jax.eval_shape(Lite0Activations(jnp.bfloat16).apply, variables, images)
    assert [layer.dtype for layer in found] == [jnp.bfloat16] * len(LAYERS)
