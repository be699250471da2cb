"""How far networks see: what is not a number in one place becomes none wherever it is looked at."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def discriminator_fields(discriminator: nn.Module, resolution: int) -> dict[str, int]:
    """Returns how many columns of an image the middle of each of D's feature maps sees.

    Args:
        discriminator: of a family of this package.
        resolution: height and width of its images.

    Returns:
        Columns, of at most `resolution`, by the name of the block or layer that makes the map; the narrowest first.
    """
    images = np.zeros((resolution, resolution, resolution, 3), np.float32)  # in each, another column is not a number
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
    """Returns how many columns of an image the first column of G's 4x4 coarsest features reaches.

    The latents themselves reach all of them: the coarsest features are a linear map of the latents.

    Args:
        generator: of a family of this package.
        latent_size: entries of its latents.
    """
    latents, labels = jnp.zeros((1, latent_size)), jnp.zeros(1, jnp.int32)
    variables: Any = generator.init(jax.random.key(0), latents, labels, train=False)
    linear = variables["params"]["linear"]
    bias = linear["bias"].reshape(4, 4, -1).at[:, 0].set(jnp.nan).ravel()
    broken = variables | {"params": variables["params"] | {"linear": linear | {"bias": bias}}}
    images: Any = generator.apply(broken, latents, labels, train=False)
    return int(np.isnan(images).any(axis=(0, 1, 3)).sum())
