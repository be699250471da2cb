"""Images that follow a rule: functions of an index, with no file behind them.

A set is named like `mirror` or `mirror:grain=8,seed=1`; what it does not say is the default. Two sets that differ in
their seed have no image in common.
"""

import dataclasses
import difflib
import re

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


SETS = {"mirror": Mirror}
"""By the name in front of the colon."""


def is_synthetic(source: str) -> bool:
    """Tells whether `source` names a set of this file.

    >>> is_synthetic("mirror:grain=8"), is_synthetic("mirror.zip")
    (True, False)
    """
    return source.partition(":")[0] in SETS


def parse_synthetic(source: str) -> Mirror:
    """Returns the set that `source` names.

    Raises:
        InvalidInputError: it says what the set does not know, or no whole number where one is needed.

    >>> parse_synthetic("mirror:seed=1,images=500")
    Mirror(images=500, seed=1, grain=4)
    """
    name, _, settings = source.partition(":")
    kind = SETS[name]
    least = {field.name: 0 if field.name == "seed" else 1 for field in dataclasses.fields(kind)}
    values = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in least:
            near = difflib.get_close_matches(key, least, 1)
            hint = f" Perhaps you meant {near[0]!r}." if near else ""
            raise InvalidInputError(f"{name!r} knows {', '.join(least)}; got {key!r} in {source!r}.{hint}")
        if not re.fullmatch(r"\d{1,9}", value) or int(value) < least[key]:
            raise InvalidInputError(
                f"{key} of {name!r} needs a whole number from {least[key]} up; got {value!r} in {source!r}."
            )
        values[key] = int(value)
    return kind(**values)
