"""Kinds of damage to images, in five strengths each, to measure the sensitivity of scores."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

_GREY = 128


class Damage(NamedTuple):
    """One kind of damage.

    Attributes:
        unit: the meaning of a strength.
        strengths: from mild to strong.
        apply: `(images [N, R, R, 3] uint8, strength, random) -> images`. The same random numbers at another strength
            damage the same places, or in the same directions.
    """

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blur(images: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """Blurs with a Gaussian; `sigma` is its standard deviation in pixels of a 32x32 image."""
    width = sigma * images.shape[1] / 32
    return _to_uint8(ndimage.gaussian_filter(images.astype(np.float32), (0, width, width, 0), mode="nearest"))


def noise(images: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise to every pixel; `deviation` is its standard deviation in grey levels."""
    return _to_uint8(images + deviation * random.standard_normal(images.shape, np.float32))


def jpeg(images: np.ndarray, quality: float, random: np.random.Generator) -> np.ndarray:
    """Stores each image as a JPEG of Pillow's `quality`, and reads it back."""
    return np.stack([_through_jpeg(image, int(quality)) for image in images])


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def cut_out(images: np.ndarray, side: float, random: np.random.Generator) -> np.ndarray:
    """Covers each image with a grey square at a random place; `side` is relative to the side of the image."""
    damaged, size = images.copy(), round(side * images.shape[1])
    for image, place in zip(damaged, random.random((len(images), 2)), strict=True):
        top, left = np.floor(place * (images.shape[1] - size + 1)).astype(int)
        image[top : top + size, left : left + size] = _GREY
    return damaged


def _to_uint8(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


DAMAGES = {
    "blur": Damage("deviation in pixels of 32", (0.5, 0.75, 1, 2, 4), blur),
    "noise": Damage("deviation in grey levels", (8, 16, 32, 64, 128), noise),
    "jpeg": Damage("JPEG quality", (75, 50, 25, 10, 5), jpeg),
    "cut-out": Damage("side of the square / side of the image", (0.125, 0.25, 0.375, 0.5, 0.75), cut_out),
}
"""The kinds of damage that change each image."""

MIXED = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of images that are replaced by those of another set."""

MISSING = (1, 2, 3, 5, 8)
"""Numbers of missing classes, of ten."""
