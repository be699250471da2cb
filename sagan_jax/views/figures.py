"""Static figures: grids of images, and matplotlib figures as files."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from sagan_jax.errors import InvalidInputError

if TYPE_CHECKING:  # grids need no matplotlib, which takes long to import
    from matplotlib.figure import Figure


def image_grid(
    images: np.ndarray, columns: int, *, padding: int = 2, scale: int = 1, background: int = 255
) -> np.ndarray:
    """Returns the images side by side, row by row, as one image.

    Args:
        images: `[N, H, W, C]` uint8, N at least 1; values are not rescaled.
        columns: images per row, at least 1.
        padding: pixels of background between neighbours, but not around the grid; not scaled.
        scale: number of repetitions of each pixel along both axes, at least 1.
        background: 0 is black, 255 white; also fills the rest of the last row.

    Returns:
        `[R * scale * H + (R - 1) * padding, columns * scale * W + (columns - 1) * padding, C]` uint8, with R rows.

    Raises:
        InvalidInputError: another dtype or shape, or a number out of its range.

    Examples:
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
    """Returns the images as one grid, sorted by class; no row holds two classes.

    Args:
        images: `[N, H, W, C]` uint8.
        labels: `[N]`, the class of each image.
        columns: images per row. Defaults to the size of the largest class, at most 10; for one class, to a square.

    Returns:
        `[.., .., C]` uint8, as `image_grid` returns it.

    Raises:
        InvalidInputError: another dtype or shape.
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
    """Returns a grid with a row for each image: the image, then its neighbours in each feature space.

    Args:
        images: `[N, H, W, C]` uint8.
        neighbours: for each feature space, for each image, its neighbours, each `[H, W, C]` uint8.
        gap: pixels of white between the groups of a row.

    Returns:
        `[.., .., C]` uint8.
    """
    columns = [image_grid(images, 1)]
    for space in neighbours:
        columns.append(np.full((len(columns[0]), gap, images.shape[3]), 255, np.uint8))
        columns.append(image_grid(np.concatenate([np.stack(row) for row in space]), len(space[0])))
    return np.concatenate(columns, axis=1)


def completion_sheet(
    images: np.ndarray, masks: np.ndarray, completions: Sequence[np.ndarray], *, original: bool = True
) -> np.ndarray:
    """Returns a grid with a row for each image: its hole in grey, each completion, and the image itself.

    Args:
        images: `[N, H, W, C]` uint8.
        masks: `[N, H, W]` bool, True in the hole.
        completions: each `[N, H, W, C]` uint8.
        original: add the image itself as the last column.

    Returns:
        `[.., .., C]` uint8, as `image_grid` returns it.
    """
    holed = np.where(masks[..., None], np.uint8(128), images)
    columns = [holed, *completions, *([images] if original else [])]
    return image_grid(np.stack(columns, axis=1).reshape(-1, *images.shape[1:]), len(columns))


def encode_figure(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """Returns a figure as the content of a PNG or SVG file, at 160 dots per inch.

    The file holds no date. The same figure gives the same PNG. The element ids of an SVG differ each time, unless
    `svg.hashsalt` is set.

    Args:
        figure: a matplotlib figure; it is not changed.
        kind: the file format.
    """
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(content, format=kind, dpi=160, metadata=metadata)
    return content.getvalue()
