"""A generator of the real family, as small as it can be."""

import jax
import jax.numpy as jnp

from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.models.sagan import Generator


def make_generator(num_classes: int = 3) -> TrainedGenerator:
    """Returns an untrained generator of 32x32 images, with attention and latents of six numbers."""
    network = Generator(resolution=32, num_classes=num_classes, base_channels=1, attention_resolutions=(16,))
    labels = jnp.zeros(2, jnp.int32)
    variables = network.init(jax.random.key(0), jnp.zeros((2, 6)), labels, train=False)
    return TrainedGenerator(network, jax.device_get(dict(variables)), 6, num_classes, step=7)
