"""Resizes batches of images as Pillow does, which trained networks expect: on the host, one thread for each image."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from PIL import Image


def bicubic(images: np.ndarray, size: int) -> np.ndarray:
    """Returns images resized bicubically with antialiasing, by Pillow. The whole image is kept, squashed if need be.

    Each result is rounded to uint8, as Pillow does between rows and columns too.

    Args:
        images: `[B, H, W, C]` uint8; C is 1 or 3.
        size: height and width of the result.

    Returns:
        `[B, size, size, C]` uint8.
    """

    def resized(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).reshape(size, size, -1)

    if images.shape[1:3] == (size, size):
        return images
    return np.stack(list(_threads().map(resized, images)))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())  # Pillow lets other threads run while it resizes
