"""Images that follow a rule: functions of an index, with no file behind them.

A set is named like `pairs`, `mirror` or `mirror:grain=8,seed=1`; what it does not say is the default. Two sets that
differ in their seed are drawn apart: textures never coincide, blobs sometimes do (89 of 10,000, seeds 0 and 1). Whether
other images follow the rule is told by `sagan_jax.evaluation.rules`.
"""

import colorsys
import dataclasses
import difflib
import re
from collections.abc import Callable

import numpy as np

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Random textures whose right half is the mirror image of the left: no pixel says anything of its far neighbours,
    and each says all of its twin.

    Colours are drawn evenly at the corners of a grid, and lie on straight lines between them.

    Attributes:
        images: how many there are.
        seed: of all of them.
        grain: the distance between two corners, in pixels.
    """

    images: int = 10_000
    seed: int = 0
    grain: int = 4

    def check(self, resolution: int) -> None:
        """Refuses what is no texture at a resolution.

        Raises:
            InvalidInputError: there are hardly two corners in a half.
        """
        if self.grain > resolution / 2:
            raise InvalidInputError(
                f"grain of 'mirror' needs to be at most half of the image's {resolution} pixels; got {self.grain}."
            )

    def draw(self, index: int, resolution: int) -> np.ndarray:
        """Returns an image, `[R, R, 3]` uint8; a column in the middle of an odd width is its own twin.

        Args:
            index: which, from 0.
            resolution: R.
        """
        random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index,)))
        width = (resolution + 1) // 2
        rows, columns = (_between(length, self.grain) for length in (resolution, width))
        corners = random.uniform(0, 255, (rows.shape[1], columns.shape[1], 3))
        half = np.rint(columns @ np.tensordot(rows, corners, axes=1)).astype(np.uint8)
        return np.concatenate([half, half[:, : resolution // 2][:, ::-1]], axis=1)


def _between(length: int, grain: int) -> np.ndarray:
    """Returns the weights of a line's corners at each of its pixels, `[length, corners]`; two a row, and 1 in all."""
    place = (np.arange(length) + 0.5) / grain
    corners = np.arange(-(-length // grain) + 1)
    return np.maximum(0, 1 - abs(place[:, None] - corners))


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 0.5,
    "disc": lambda y, x: y**2 + x**2 <= 0.25,
    "diamond": lambda y, x: abs(y) + abs(x) <= 0.5,
    "cross": lambda y, x: (np.maximum(abs(y), abs(x)) <= 0.5) & (np.minimum(abs(y), abs(x)) <= 0.15),
}
"""Which points lie in a form of width 1 around the origin, by its name."""

_ATTEMPTS = 10_000
"""So often blobs are thrown before they are said not to fit."""
_TRIED, _FITTING = 5_000, 0.002
"""Of so many throws such a share has to fit, for ten thousand attempts never to be too few."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Blobs at random places on black, all of one hue and one form: what one of them is says what the others are.

    Lengths are in pixels of an image of 32x32, and grow with the resolution.

    Attributes:
        images: how many there are.
        seed: of all of them.
        blobs: in an image.
        hues: of which an image has one, evenly spaced on the colour circle from red on.
        forms: of which an image has one, the first of `FORMS`.
        distance: from the middle of a blob to any other's, at least; 1.5 times `size` or more, so that none touch.
        size: the width of a blob.
        agree: 1; with 0 each blob has a hue and a form of its own, and the rule is followed by chance alone.
    """

    images: int = 10_000
    seed: int = 0
    blobs: int = 2
    hues: int = 6
    forms: int = 2
    distance: int = 12
    size: int = 8
    agree: int = 1

    def check(self, resolution: int) -> None:
        """Refuses what cannot be drawn at a resolution, or could not be told apart.

        Raises:
            InvalidInputError: blobs that do not fit, or hardly; that may touch; or so small that two forms are one.
        """
        width = self.width(resolution)
        if self.distance < 1.5 * self.size:
            raise InvalidInputError(
                f"distance of 'pairs' needs to be at least 1.5 times the size of {self.size}, so that no two blobs "
                f"touch; got {self.distance}."
            )
        throws = np.random.default_rng(0).integers(0, max(1, resolution - width + 1), (_TRIED, self.blobs, 2))
        if width > resolution or self._far_apart(throws, resolution).mean() < _FITTING:
            raise InvalidInputError(self._no_room())
        if width < 3 or len({self.stamp(form, width).tobytes() for form in range(self.forms)}) < self.forms:
            raise InvalidInputError(
                f"{self.forms} forms cannot be told apart at {resolution}x{resolution} pixels, where a blob of size "
                f"{self.size} is {width} wide: ask for larger ones, or a larger --resolution."
            )

    def draw(self, index: int, resolution: int) -> np.ndarray:
        """Returns an image, `[R, R, 3]` uint8.

        Args:
            index: which, from 0.
            resolution: R.

        Raises:
            InvalidInputError: so many blobs do not fit so far apart.
        """
        random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index,)))
        width = self.width(resolution)
        hues, forms = (random.integers(0, count, self.blobs) for count in (self.hues, self.forms))
        if self.agree:
            hues[:], forms[:] = hues[0], forms[0]
        image = np.zeros((resolution, resolution, 3), np.uint8)
        for (top, left), hue, form in zip(self._places(random, resolution, width), hues, forms, strict=True):
            part = image[top : top + width, left : left + width]
            part[self.stamp(form, width)] = self.colour(hue)
        return image

    def colour(self, hue: int) -> np.ndarray:
        """Returns the colour of a hue, `[3]` uint8.

        >>> Pairs().colour(2).tolist()
        [0, 255, 0]
        """
        return np.rint(255 * np.array(colorsys.hsv_to_rgb(hue / self.hues, 1, 1))).astype(np.uint8)

    def stamp(self, form: int, width: int) -> np.ndarray:
        """Returns which pixels of a square of `width` belong to a form, `[width, width]` bool."""
        place = (np.arange(width) + 0.5) / width - 0.5
        return list(FORMS.values())[form](place[:, None], place[None, :])

    def width(self, resolution: int) -> int:
        """Returns the width of a blob in an image of a resolution, in pixels."""
        return round(self.size * resolution / 32)

    def _places(self, random: np.random.Generator, resolution: int, width: int) -> np.ndarray:
        """Returns the upper left corners of the blobs, `[blobs, 2]`."""
        for _ in range(_ATTEMPTS if width <= resolution else 0):
            corners = random.integers(0, resolution - width + 1, (self.blobs, 2))
            if self._far_apart(corners, resolution):
                return corners
        raise InvalidInputError(self._no_room())

    def _far_apart(self, corners: np.ndarray, resolution: int) -> np.ndarray:
        """Returns whether blobs at `[*, blobs, 2]` are as far apart as they need to be, `[*]` bool."""
        one, other = np.triu_indices(self.blobs, 1)
        apart = corners[..., one, :] - corners[..., other, :]
        return np.all(np.hypot(apart[..., 0], apart[..., 1]) >= self.distance * resolution / 32, axis=-1)

    def _no_room(self) -> str:
        return (
            f"{self.blobs} blobs of width {self.size} do not fit into 32x32 pixels {self.distance} apart: ask for "
            f"fewer, smaller or nearer ones."
        )


SyntheticSet = Mirror | Pairs

SETS: dict[str, type[SyntheticSet]] = {"mirror": Mirror, "pairs": Pairs}
"""By the name in front of the colon."""


def is_synthetic(source: str) -> bool:
    """Tells whether `source` names a set of this file.

    >>> is_synthetic("mirror:grain=8"), is_synthetic("mirror.zip")
    (True, False)
    """
    return source.partition(":")[0] in SETS


def parse_synthetic(source: str) -> SyntheticSet:
    """Returns the set that `source` names.

    Raises:
        InvalidInputError: it says what the set does not know, the same twice, or no whole number where one is needed.

    >>> parse_synthetic("mirror:seed=1,images=500")
    Mirror(images=500, seed=1, grain=4)
    """
    name, _, settings = source.partition(":")
    kind = SETS[name]
    least = {field.name: 0 if field.name in ("seed", "agree") else 1 for field in dataclasses.fields(kind)}
    most = {"agree": 1, "forms": len(FORMS), "hues": 64, "blobs": 16, "size": 32}
    values = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in least:
            near = difflib.get_close_matches(key, least, 1)
            hint = f" Perhaps you meant {near[0]!r}." if near else ""
            raise InvalidInputError(f"{name!r} knows {', '.join(least)}; got {key!r} in {source!r}.{hint}")
        if key in values:
            raise InvalidInputError(f"{key} of {name!r} stands twice in {source!r}: which is meant?")
        if not re.fullmatch(r"\d{1,9}", value) or not least[key] <= int(value) <= most.get(key, 10**9):
            end = f"to {most[key]}" if key in most else "up"
            raise InvalidInputError(
                f"{key} of {name!r} needs a whole number from {least[key]} {end}; got {value!r} in {source!r}."
            )
        values[key] = int(value)
    return kind(**values)
