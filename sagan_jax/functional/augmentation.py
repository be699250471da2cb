"""Differentiable augmentation: random transforms of real and generated images before they enter D."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays

Augmentation = Literal["color", "translation", "cutout"]
AugmentationFunction = Callable[[Array, Array], Array]
"""Maps a PRNG key and an image `[H, W, C]` to an image of that shape."""


def augment(keys: Array, images: Array, augmentations: Sequence[Augmentation | AugmentationFunction]) -> Array:
    """Returns the images after all augmentations, applied in the order given.

    - `color` shifts the brightness by up to 0.5, then scales the saturation by 0 to 2, then the contrast by 0.5 to 1.5.
    - `translation` shifts the image by up to an eighth of each side and fills with 0.
    - `cutout` sets a rectangle of half of each side to 0. Its center may lie anywhere in the image, so a part of it may
      lie outside.

    Lengths are rounded half up.

    Args:
        keys: `[B]`, one PRNG key per image.
        images: `[B, H, W, C]`, floating, in [-1, 1]; the result of `color` may lie outside that range.
        augmentations: names out of `Augmentation`, or functions of a key and an image `[H, W, C]` that return an image
            of that shape. An empty sequence returns the images unchanged.

    Returns:
        `[B, H, W, C]`, the dtype of `images`.

    Raises:
        AssertionError: at trace time, when shapes or dtypes do not fit.
        ValueError: when a name is not in `Augmentation`.

    Source: Zhao et al. 2020 (arXiv:2006.10738); mit-han-lab/data-efficient-gans:DiffAugment_pytorch.py.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> holes = augment(keys, jnp.ones((2, 8, 8, 3)), ["cutout"])
        >>> holes.shape, float(holes.min()), float(holes.max())
        ((2, 8, 8, 3), 0.0, 1.0)
    """
    check_arrays("augment", images=(images, "floating [B, H, W, C]"), keys=(keys, "[B]"))
    for place, chosen in enumerate(augmentations):
        if callable(chosen):
            number, function = len(_AUGMENTATIONS) + place, chosen
        elif chosen in _AUGMENTATIONS:
            number, function = list(_AUGMENTATIONS).index(chosen), _AUGMENTATIONS[chosen]
            if chosen in augmentations[:place]:  # a repeated name draws other numbers
                number = len(_AUGMENTATIONS) + place
        else:
            raise ValueError(f"augment needs augmentations out of {', '.join(_AUGMENTATIONS)}; got {chosen!r}.")
        images = jax.vmap(function)(jax.vmap(jax.random.fold_in, (0, None))(keys, number), images)
    return images


def _color(key: Array, image: Array) -> Array:
    """Shifts the brightness, then scales the saturation, then the contrast of `[H, W, C]`."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
    image = image + (brightness - 0.5)
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * (2 * saturation)
    mean = image.mean()
    return mean + (image - mean) * (contrast + 0.5)


def _translation(key: Array, image: Array) -> Array:
    """Shifts `[H, W, C]` by whole pixels and fills with 0."""
    for axis in (0, 1):
        furthest = (image.shape[axis] + 4) // 8
        shift = jax.random.randint(jax.random.fold_in(key, axis), (), -furthest, furthest + 1)
        image = _shift(image, shift, axis, furthest)
    return image


def _shift(image: Array, shift: Array, axis: int, furthest: int) -> Array:
    """Shifts `[H, W, C]` along an axis by up to `furthest` pixels in either direction, and fills with 0.

    The image is padded for the largest shift. Each step then crops 1, 2, 4, ... pixels of the padding. It crops at the
    start if that bit of `in_front` is set, and otherwise at the end. Two simpler methods have drawbacks. A product with
    a one-hot matrix would spread a NaN over the whole image. The gradient of a gather is a scatter.
    """
    bits = (2 * furthest).bit_length()
    in_front = furthest - shift
    margins = [(0, 0, 0)] * image.ndim
    margins[axis] = (furthest, 2**bits - 1 - furthest, 0)
    image = jax.lax.pad(image, jnp.zeros((), image.dtype), margins)
    for step in (2**bit for bit in range(bits)):
        length = image.shape[axis]
        cut = jax.lax.slice_in_dim(image, step, length, axis=axis)
        image = jnp.where(in_front & step, cut, jax.lax.slice_in_dim(image, 0, length - step, axis=axis))
    return image


def _cutout(key: Array, image: Array) -> Array:
    """Sets a rectangle of `[H, W, C]` to 0."""
    height, width, _ = image.shape

    def in_hole(key: Array, size: int) -> Array:
        length = (size + 1) // 2
        start = jax.random.randint(key, (), 0, size + 1 - length % 2) - length // 2
        places = jnp.arange(size)
        return (places >= start) & (places < start + length)

    rows = in_hole(jax.random.fold_in(key, 0), height)
    columns = in_hole(jax.random.fold_in(key, 1), width)
    return jnp.where(rows[:, None, None] & columns[None, :, None], 0, image)


_AUGMENTATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}
