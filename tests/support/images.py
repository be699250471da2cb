"""Images of noise, and image files in memory."""

import io
from typing import Any

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Returns uint8 noise of the shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Returns RGB images `[count, size, size, 3]` uint8 of coarse noise, resized smoothly."""
    coarse = [Image.fromarray(image) for image in noise(count, 8, 8, 3, seed=seed)]
    return np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in coarse])


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Returns the bytes of the image as a file of that kind; Pillow takes the options."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
