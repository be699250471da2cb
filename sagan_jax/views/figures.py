"""Static pictures: many images as one."""

import math
from collections.abc import Sequence

import numpy as np

from sagan_jax.errors import InvalidInputError


def image_grid(
    images: np.ndarray, columns: int, *, padding: int = 2, scale: int = 1, background: int = 255
) -> np.ndarray:
    """Returns the images side by side, row by row, as one image.

    Args:
        images: `[N, H, W, C]` uint8, N at least 1; nothing is normalised.
        columns: images a row, at least 1.
        padding: pixels of background between neighbours, not around; not scaled.
        scale: how many times each pixel is repeated along both axes, at least 1.
        background: 0 is black, 255 white; also fills what a last row leaves free.

    Returns:
        `[R * scale * H + (R - 1) * padding, columns * scale * W + (columns - 1) * padding, C]` uint8, with R rows.

    Raises:
        InvalidInputError: for another dtype or shape, or a number out of its range.

    >>> import numpy as np
    >>> image_grid(np.array([[[[7]]], [[[8]]], [[[9]]]], np.uint8), 2, padding=0)[:, :, 0].tolist()
    [[7, 8], [9, 255]]
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise InvalidInputError(
            f"image_grid needs images [N, H, W, C] of uint8; got {list(images.shape)} of {images.dtype}."
        )
    if columns < 1 or padding < 0 or scale < 1 or not 0 <= background <= 255:
        raise InvalidInputError(
            "image_grid needs columns >= 1, padding >= 0, scale >= 1 and background in 0..255; "
            f"got {columns}, {padding}, {scale} and {background}."
        )
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    number, height, width, channels = images.shape
    rows = -(-number // columns)
    cells = np.full((rows * columns, height + padding, width + padding, channels), background, np.uint8)
    cells[:number, :height, :width] = images
    cells = cells.reshape(rows, columns, height + padding, width + padding, channels)
    grid = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + padding), columns * (width + padding), channels)
    return grid[: grid.shape[0] - padding, : grid.shape[1] - padding]


def class_rows(images: np.ndarray, labels: np.ndarray, *, columns: int | None = None) -> np.ndarray:
    """Returns the images as one picture, sorted by class; no row holds two classes.

    Args:
        images: `[N, H, W, C]` uint8.
        labels: `[N]`, the class of each.
        columns: images a row; unless given, as many as the largest class has, up to 10, or, where there is one class
            only, enough for a square.

    Returns:
        The picture, as `image_grid` makes it.

    Raises:
        InvalidInputError: as `image_grid` does.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if columns is None:
        columns = min(10, int(counts.max())) if len(classes) > 1 else math.ceil(math.sqrt(len(labels)))
    blank = np.full_like(images[:1], 255)
    rows = []
    for wanted, count in zip(classes, counts, strict=True):
        rows += [images[labels == wanted], blank.repeat(-count % columns, axis=0)]
    return image_grid(np.concatenate(rows), columns)


def neighbour_sheet(
    images: np.ndarray, neighbours: Sequence[Sequence[Sequence[np.ndarray]]], *, gap: int = 8
) -> np.ndarray:
    """Returns each image beside its neighbours, a row each: the image, one space's neighbours, the next's, with gaps.

    Args:
        images: `[N, H, W, C]` uint8.
        neighbours: for each space, for each image, its neighbours, all of that shape.
        gap: pixels of white between the groups.

    Returns:
        One picture, uint8.
    """
    columns = [image_grid(images, 1)]
    for space in neighbours:
        columns.append(np.full((len(columns[0]), gap, images.shape[3]), 255, np.uint8))
        columns.append(image_grid(np.concatenate([np.stack(row) for row in space]), len(space[0])))
    return np.concatenate(columns, axis=1)


def completion_sheet(
    images: np.ndarray, masks: np.ndarray, completions: Sequence[np.ndarray], *, original: bool = True
) -> np.ndarray:
    """Returns a picture with a row an image: with its hole in grey, each completion, and the image itself.

    Args:
        images: `[N, H, W, C]` uint8.
        masks: `[N, H, W]` bool, True in the hole.
        completions: each `[N, H, W, C]` uint8.
        original: whether the last column shows what was hidden.

    Returns:
        As `image_grid`, of a column each.
    """
    holed = np.where(masks[..., None], np.uint8(128), images)
    columns = [holed, *completions, *([images] if original else [])]
    return image_grid(np.stack(columns, axis=1).reshape(-1, *images.shape[1:]), len(columns))
