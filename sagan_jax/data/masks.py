"""Masks for image completion, as pure numpy functions of a kind, a size, a seed and an index.

A mask is bool `[H, W]`, True in the hole. It always has at least one True and one False entry.
"""

import functools
import itertools
from collections.abc import Callable, Iterable

import numpy as np

from sagan_jax.errors import InvalidInputError

MIN_SIDE = 8
"""The smallest side of an image in pixels. Below it, some kinds coincide."""

AREA_BINS = {f"area_{low}_{low + 10}": (low, low + 10) for low in (10, 20, 30, 40, 50)}
"""Kinds of masks by area: the hole covers [low, high) percent of the image."""

HALVES = ("half_left", "half_right", "half_top", "half_bottom")
"""Kinds whose hole is one half of the image. The kind `half` draws one of them."""


def _centre(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """The central rectangle of half the height and half the width, rounded down."""
    mask = np.zeros((height, width), bool)
    top, left = (height - height // 2) // 2, (width - width // 2) // 2
    mask[top : top + height // 2, left : left + width // 2] = True
    return mask


def _half(side: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """One half of the image. If the side is odd, it is the smaller half."""
    mask = np.zeros((height, width), bool)
    part = {
        "half_left": np.s_[:, : width // 2],
        "half_right": np.s_[:, width - width // 2 :],
        "half_top": np.s_[: height // 2],
        "half_bottom": np.s_[height - height // 2 :],
    }[side]
    mask[part] = True
    return mask


def _any_half(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    return _half(HALVES[random.integers(len(HALVES))], height, width, random)


def _rectangle(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """One rectangle at a random position, each side from 1/4 to 3/4 of the image's side."""
    mask = np.zeros((height, width), bool)
    tall = random.integers(height // 4, 3 * height // 4 + 1)
    wide = random.integers(width // 4, 3 * width // 4 + 1)
    top = random.integers(height - tall + 1)
    left = random.integers(width - wide + 1)
    mask[top : top + tall, left : left + wide] = True
    return mask


def _rectangles(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Two to five rectangles, each side from 1/8 to 3/8 of the image's side; they may overlap."""
    mask = np.zeros((height, width), bool)
    for _ in range(random.integers(2, 6)):
        tall = random.integers(height // 8, 3 * height // 8 + 1)
        wide = random.integers(width // 8, 3 * width // 8 + 1)
        top = random.integers(height - tall + 1)
        left = random.integers(width - wide + 1)
        mask[top : top + tall, left : left + wide] = True
    return mask


def _stroke(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """One stroke of a round brush along two to five straight segments, with turns of up to 90 degrees."""
    shorter = min(height, width)
    radius = random.uniform(shorter / 32, shorter / 10)
    points = [random.uniform((0, 0), (height - 1, width - 1))]
    angle = random.uniform(0, 2 * np.pi)
    for _ in range(random.integers(2, 6)):
        angle += random.uniform(-np.pi / 2, np.pi / 2)
        step = random.uniform(shorter / 8, shorter / 2) * np.array([np.sin(angle), np.cos(angle)])
        points.append(np.clip(points[-1] + step, 0, (height - 1, width - 1)))
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    nearest = np.full((height, width), np.inf)
    for (row, column), (next_row, next_column) in itertools.pairwise(points):
        along = np.array([next_row - row, next_column - column])
        length = max(float(along @ along), 1e-9)
        share = np.clip(((rows - row) * along[0] + (columns - column) * along[1]) / length, 0, 1)
        distance = (rows - row - share * along[0]) ** 2 + (columns - column - share * along[1]) ** 2
        nearest = np.minimum(nearest, distance)
    return nearest <= max(radius, 0.75) ** 2  # a thinner brush could miss every pixel


def _strokes(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """One to four strokes. Stops early when another stroke would make the hole larger than half of the image."""
    mask = np.zeros((height, width), bool)
    for _ in range(random.integers(1, 5)):
        wider = mask | _stroke(height, width, random)
        if mask.any() and 2 * wider.sum() > wider.size:
            break
        mask = wider
    return mask


def _area(low: int, high: int, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Strokes with a total area drawn uniformly from the bin. The last stroke is truncated to fit."""
    mask = np.zeros((height, width), bool)
    wanted = random.integers(-(-low * mask.size // 100), -(-high * mask.size // 100))
    while mask.sum() < wanted:
        added = np.flatnonzero(_stroke(height, width, random) & ~mask)
        mask.flat[added[: wanted - mask.sum()]] = True
    return mask


def _mixed(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """`centre` with probability 1/2, `half` 1/4, and `rectangle`, `rectangles` and `strokes` 1/12 each."""
    drawn = random.random()
    if drawn < 0.5:
        return _centre(height, width, random)
    if drawn < 0.75:
        return _any_half(height, width, random)
    return (_rectangle, _rectangles, _strokes)[random.integers(3)](height, width, random)


_DRAW: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "centre": _centre,
    "rectangle": _rectangle,
    "rectangles": _rectangles,
    "half": _any_half,
    **{side: functools.partial(_half, side) for side in HALVES},
    "strokes": _strokes,
    **{name: functools.partial(_area, *bounds) for name, bounds in AREA_BINS.items()},
    "mixed": _mixed,
}

MASK_KINDS = tuple(_DRAW)
"""The kinds of masks that `draw_mask` can draw."""


def draw_mask(kind: str, height: int, width: int, *, seed: int, index: int) -> np.ndarray:
    """Returns the mask of one image: bool `[H, W]`, True where pixels are missing.

    The mask depends only on the arguments. Other numpy versions may draw other random numbers.

    Args:
        kind: the shape of the hole.
            `centre`: the central rectangle of half the height and half the width.
            `rectangle`: one rectangle at a random position, each side from 1/4 to 3/4 of the image's side.
            `rectangles`: two to five rectangles, each side from 1/8 to 3/8 of the image's side; they may overlap.
            `half_left`, `half_right`, `half_top`, `half_bottom`: that half; if the side is odd, the smaller half.
            `half`: one of these four.
            `strokes`: one to four strokes of a round brush that cover at most half of the image.
            `area_10_20`, `area_20_30`, `area_30_40`, `area_40_50`, `area_50_60`: strokes that cover this percentage of
            the image, with the upper bound excluded. Each number of pixels is equally likely.
            `mixed`: `centre` with probability 1/2, `half` 1/4, `rectangle`, `rectangles` and `strokes` 1/12 each.
        height: H, at least `MIN_SIDE`.
        width: W, at least `MIN_SIDE`.
        seed: at least 0.
        index: at least 0: the index of the image, or its position in the training order.

    Returns:
        The mask. It has at least one True and one False entry.

    Raises:
        InvalidInputError: when the kind is unknown, or a number is outside its range.

    Examples:
        >>> draw_mask("centre", 8, 12, seed=0, index=0).sum(axis=0).tolist()
        [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0]
    """
    if kind not in _DRAW:
        raise InvalidInputError(f"The kind of a mask needs to be one of {', '.join(_DRAW)}; got {kind!r}.")
    if min(height, width) < MIN_SIDE:
        raise InvalidInputError(f"A mask needs sides of at least {MIN_SIDE} pixels; got {height}x{width}.")
    if seed < 0 or index < 0:
        raise InvalidInputError(f"A mask needs a seed and an index of at least 0; got {seed} and {index}.")
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    return _DRAW[kind](height, width, random)


def draw_masks(kind: str, height: int, width: int, *, seed: int, indices: Iterable[int]) -> np.ndarray:
    """Returns the masks of several images: bool `[N, H, W]`.

    Args:
        kind: as for `draw_mask`.
        height: H.
        width: W.
        seed: as for `draw_mask`.
        indices: N indices in any order, at least one.

    Returns:
        The masks. Mask n is `draw_mask(..., index=indices[n])`.

    Raises:
        InvalidInputError: as for `draw_mask`, or when there is no index.

    Examples:
        >>> draw_masks("half_left", 8, 8, seed=0, indices=[3, 1]).mean(axis=(1, 2)).tolist()
        [0.5, 0.5]
    """
    masks = [draw_mask(kind, height, width, seed=seed, index=int(index)) for index in indices]
    if not masks:
        raise InvalidInputError("draw_masks needs at least one index; got none.")
    return np.stack(masks)
