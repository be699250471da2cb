"""Differentiable augmentation: what D sees of real and of generated images, changed in the same random ways."""

from collections.abc import Sequence
from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jax import Array

Augmentation = Literal["color", "translation", "cutout"]


def augment(keys: Array, images: Array, kinds: Sequence[Augmentation]) -> Array:
    """Returns the images after each of the kinds, in the order given.

    `color` adds to the brightness, scales the distance of each pixel from its grey and then that of the image from its
    mean; `translation` moves by up to an eighth of each side and fills with 0; `cutout` sets a rectangle of half of
    each side to 0, whose middle may lie anywhere, so that it may stick out. Halves are rounded up.

    Args:
        keys: `[B]`, a PRNG key an image.
        images: `[B, H, W, C]`, floating, in [-1, 1]; `color` may leave that range.
        kinds: of `Augmentation`; none returns the images as they are.

    Returns:
        `[B, H, W, C]`, the same dtype.

    Raises:
        AssertionError: at trace time, when shapes do not fit.
        ValueError: for a kind that there is not.

    Source: Zhao et al. 2020 (arXiv:2006.10738); mit-han-lab/data-efficient-gans:DiffAugment_pytorch.py.

    >>> import jax, jax.numpy as jnp
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> holes = augment(keys, jnp.ones((2, 8, 8, 3)), ["cutout"])
    >>> holes.shape, float(holes.min()), float(holes.max())
    ((2, 8, 8, 3), 0.0, 1.0)
    """
    message = (
        f"augment needs keys [B] and floating images [B, H, W, C]; got {keys.shape}, {images.shape} {images.dtype}."
    )
    chex.assert_rank(images, 4, custom_message=message)
    chex.assert_type(images, float, custom_message=message)
    chex.assert_shape(keys, images.shape[:1], custom_message=message)
    for kind in kinds:
        if kind not in _KINDS:
            raise ValueError(f"augment needs kinds out of {', '.join(_KINDS)}; got {kind!r}.")
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, list(_KINDS).index(kind))
        images = jax.vmap(_KINDS[kind])(own, images)
    return images


def _color(key: Array, image: Array) -> Array:
    brightness, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
    image = image + (brightness - 0.5)
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * (2 * saturation)
    mean = image.mean()
    return mean + (image - mean) * (contrast + 0.5)


def _translation(key: Array, image: Array) -> Array:
    height, width, _ = image.shape

    def moved(key: Array, size: int) -> Array:
        furthest = (size + 4) // 8
        shift = jax.random.randint(key, (), -furthest, furthest + 1)
        # Row i looks at row i - shift, and nowhere if that lies outside; the gradient is a product, not a scatter.
        return jax.nn.one_hot(jnp.arange(size) - shift, size, dtype=image.dtype)

    rows, columns = moved(jax.random.fold_in(key, 0), height), moved(jax.random.fold_in(key, 1), width)
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image, precision="highest")


def _cutout(key: Array, image: Array) -> Array:
    height, width, _ = image.shape

    def hole(key: Array, size: int) -> Array:
        length = (size + 1) // 2
        start = jax.random.randint(key, (), 0, size + 1 - length % 2) - length // 2
        places = jnp.arange(size)
        return (places >= start) & (places < start + length)

    rows, columns = hole(jax.random.fold_in(key, 0), height), hole(jax.random.fold_in(key, 1), width)
    return jnp.where(rows[:, None, None] & columns[None, :, None], 0, image)


_KINDS = {"color": _color, "translation": _translation, "cutout": _cutout}
