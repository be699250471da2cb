"""Images as files: PNG, and GIF or WebP animations."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import write_atomically


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        path: replaced if it exists; the folders above are made.
        image: `[H, W, C]` uint8, C 1 (grey) or 3 (RGB).

    Raises:
        InvalidInputError: for another dtype or shape.
        StorageError: when the disk refused.
    """
    write_atomically(path, encode_png(image))


def encode_png(image: np.ndarray) -> bytes:
    """Returns the content of a PNG file.

    Args:
        image: `[H, W, C]` uint8, C 1 (grey) or 3 (RGB).

    Raises:
        InvalidInputError: for another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise InvalidInputError(
            f"A PNG needs an image [H, W, 1 or 3] of uint8; got {list(image.shape)} of {image.dtype}."
        )
    encoded = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(encoded, format="PNG")
    return encoded.getvalue()


def save_animation(path: str | Path, frames: Sequence[np.ndarray], *, milliseconds: int = 90) -> None:
    """Writes an animation that repeats for ever, whole or not at all.

    Args:
        path: .gif or .webp; replaced if it exists.
        frames: at least one, each `[H, W, C]` uint8 of one shape, C 1 or 3.
        milliseconds: that each is shown.

    Raises:
        StorageError: when the disk refused.
    """
    pictures = [Image.fromarray(np.broadcast_to(frame, (*frame.shape[:2], 3))) for frame in frames]
    encoded = io.BytesIO()
    kind = "GIF" if Path(path).suffix.lower() == ".gif" else "WEBP"
    pictures[0].save(encoded, kind, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    write_atomically(path, encoded.getvalue())
