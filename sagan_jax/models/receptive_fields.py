"""Receptive fields of networks, measured by propagating a NaN from one position through the network."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def discriminator_fields(discriminator: nn.Module, resolution: int) -> dict[str, int]:
    """Returns the receptive field, in image columns, of the middle column of each of D's feature maps.

    Args:
        discriminator: a discriminator of this package.
        resolution: the height and width of its images.

    Returns:
        The number of columns, at most `resolution`, by the name of the block or layer; smallest first.
    """
    images = np.zeros((resolution, resolution, resolution, 3), np.float32)  # image i has NaN in column i
    images = np.where(np.eye(resolution, dtype=bool)[:, None, :, None], np.nan, images)
    labels = jnp.zeros(resolution, jnp.int32)
    variables = discriminator.init(jax.random.key(0), images[:1], labels[:1], train=False)
    applied: Any = discriminator.apply(
        variables, images, labels, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    made = {name: parts["__call__"][0] for name, parts in applied[1]["intermediates"].items() if name != "__call__"}
    seen = {
        name: int(np.isnan(features[:, :, features.shape[2] // 2]).any(axis=(1, 2)).sum())
        for name, features in made.items()
        if features.ndim == 4
    }
    return dict(sorted(seen.items(), key=lambda item: item[1]))


def generator_reach(generator: nn.Module, latent_size: int) -> int:
    """Returns how many columns of an image depend on the first column of G's 4x4 features, its coarsest.

    The latents affect all columns, since the 4x4 features are a linear map of the latents.

    Args:
        generator: a generator of this package.
        latent_size: the size of its latents.
    """
    latents, labels = jnp.zeros((1, latent_size)), jnp.zeros(1, jnp.int32)
    variables: Any = generator.init(jax.random.key(0), latents, labels, train=False)
    linear = variables["params"]["linear"]
    bias = linear["bias"].reshape(4, 4, -1).at[:, 0].set(jnp.nan).ravel()
    broken = variables | {"params": variables["params"] | {"linear": linear | {"bias": bias}}}
    images: Any = generator.apply(broken, latents, labels, train=False)
    return int(np.isnan(images).any(axis=(0, 1, 3)).sum())
