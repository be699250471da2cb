"""Groups of four images of two parts each, which differ only in the hues of the parts."""

from typing import NamedTuple

import numpy as np

from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError


class Quartets(NamedTuple):
    """Groups of four images of `Pairs`. With two hues A and B, the parts have the hues AA, BB, AB and BA.

    So the first two images of a quartet follow the rule and the last two do not. Both halves contain the same parts at
    the same positions. A function that is a sum of one term per part has equal sums over both halves.
    """

    images: np.ndarray
    """`[N, 4, R, R, 3]` uint8"""
    gaps: np.ndarray
    """`[N]` integers: the empty columns or rows between the two parts, whichever are more.

    A square window with a side of `gap + 1` pixels never holds pixels of both parts. One of `gap + 2` pixels can, if
    the forms are square.
    """


def draw_quartets(
    rule: Pairs, count: int, resolution: int, gaps: tuple[int, int], random: np.random.Generator
) -> Quartets:
    """Draws quartets. All gaps are equally likely, as are all pairs of hues. Both parts have the same form.

    Args:
        rule: the set, with two blobs and at least two hues. Its `distance`, `images`, `seed` and `agree` are not used.
        count: N, the number of quartets.
        resolution: R.
        gaps: the smallest and the largest gap in pixels, from 0 to R - 2 w for blobs of w pixels.
        random: the random generator.

    Raises:
        InvalidInputError: when there are not two blobs or two hues, or the gaps do not fit.
    """
    width = rule.width(resolution)
    if rule.blobs != 2 or rule.hues < 2:
        raise InvalidInputError(f"A quartet needs 2 blobs and 2 hues at least; got {rule.blobs} and {rule.hues}.")
    if not 0 <= gaps[0] <= gaps[1] <= resolution - 2 * width:
        raise InvalidInputError(
            f"Two blobs of {width} pixels in images of {resolution} need gaps in order, from 0 to "
            f"{resolution - 2 * width}; got {gaps[0]} to {gaps[1]}."
        )
    shifts = random.integers(*gaps, count, endpoint=True) + width
    corners = _corners(shifts, resolution - width, random)
    one = random.integers(0, rule.hues, count)
    other = (one + random.integers(1, rule.hues, count)) % rule.hues
    hues = np.stack([one, one, other, other, one, other, other, one], axis=1).reshape(count * 4, 2)
    forms = np.repeat(random.integers(0, rule.forms, count), 4)
    images = rule.paint(np.repeat(corners, 4, axis=0), hues, np.stack([forms, forms], axis=1), resolution)
    return Quartets(images.reshape(count, 4, *images.shape[1:]), shifts - width)


def _corners(shifts: np.ndarray, room: int, random: np.random.Generator) -> np.ndarray:
    """Returns the upper left corners of two blobs, integers `[N, 2, 2]`.

    Along one axis, which is random, the two corners are `shifts` apart. Along the other they are at most as far apart.

    Args:
        shifts: the distances in pixels, integers `[N]`.
        room: the greatest coordinate of a corner.
        random: the random generator.
    """
    count = len(shifts)
    apart = np.stack([shifts * random.choice([-1, 1], count), random.integers(-shifts, shifts, endpoint=True)], axis=1)
    apart = np.where(random.random((count, 1)) < 0.5, apart, apart[:, ::-1])
    first = random.integers(np.maximum(0, -apart), room - np.maximum(0, apart), endpoint=True)
    return np.stack([first, first + apart], axis=1)
