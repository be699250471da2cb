"""Resizing of batches of images by Pillow, as pretrained networks expect, on the host with one thread per image."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from PIL import Image


def bicubic(images: np.ndarray, size: int) -> np.ndarray:
    """Returns images resized by Pillow, bicubically with antialiasing. Nothing is cropped; the aspect ratio may change.

    The result is rounded to uint8. Pillow also rounds the intermediate result between its two passes.

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


def bicubic_in_floats(images: np.ndarray, size: int) -> np.ndarray:
    """Returns images resized by Pillow, bicubically with antialiasing, each channel separately and without rounding.

    Values outside [0, 255], which the negative lobes of the kernel cause, are clipped.

    Args:
        images: `[B, H, W, C]` uint8.
        size: height and width of the result.

    Returns:
        `[B, size, size, C]` float32 in [0, 255].

    Source: GaParmar/clean-fid:cleanfid/resize.py, mode `clean`.
    """

    def resized(channel: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC))

    channels = np.moveaxis(images.astype(np.float32), -1, 1).reshape(-1, *images.shape[1:3])
    found = np.stack(list(_threads().map(resized, channels))).clip(0, 255)
    return np.moveaxis(found.reshape(len(images), -1, size, size), 1, -1)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())  # Pillow releases the GIL while it resizes
