"""Synthetic data sets whose images follow a rule. Each image is a function of its index; there are no files.

Examples of names are `pairs`, `mirror`, `blobs` and `mirror:grain=8,seed=1`. Options that are not given have their
defaults. Sets with different seeds are drawn independently. Two such sets share no textures. They share a few images of
pairs (89 of 10,000 for the seeds 0 and 1), and many images of blobs, since each class has few possible images.
`sagan_jax.evaluation.rules` measures whether other images follow the rule.
"""

import colorsys
import dataclasses
import difflib
import functools
import re
from collections.abc import Callable

import numpy as np

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Random textures whose right half mirrors the left half.

    A pixel determines its mirror image and is independent of other distant pixels. Colours are drawn uniformly at the
    corners of a grid and interpolated bilinearly between them.

    Attributes:
        images: the number of images.
        seed: the seed of all images.
        grain: the distance between two corners in pixels.
    """

    images: int = 10_000
    seed: int = 0
    grain: int = 4

    def check(self, resolution: int) -> None:
        """Checks that the grid is fine enough for the resolution.

        Raises:
            InvalidInputError: when `grain` is larger than half of the image.
        """
        if self.grain > resolution / 2:
            raise InvalidInputError(
                f"grain of 'mirror' needs to be at most half of the image's {resolution} pixels; got {self.grain}."
            )

    def draw(self, index: int, resolution: int) -> np.ndarray:
        """Returns an image, `[R, R, 3]` uint8. For odd R, the middle column is its own mirror image.

        Args:
            index: the index of the image, from 0.
            resolution: R.
        """
        random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index,)))
        width = (resolution + 1) // 2
        rows, columns = (_interpolation_weights(length, self.grain) for length in (resolution, width))
        corners = random.uniform(0, 255, (rows.shape[1], columns.shape[1], 3))
        half = np.rint(columns @ np.tensordot(rows, corners, axes=1)).astype(np.uint8)
        return np.concatenate([half, half[:, : resolution // 2][:, ::-1]], axis=1)


def _interpolation_weights(length: int, grain: int) -> np.ndarray:
    """Returns linear interpolation weights `[length, corners]`: each row sums to 1, with two nonzero entries or one."""
    place = (np.arange(length) + 0.5) / grain
    corners = np.arange(-(-length // grain) + 1)
    return np.maximum(0, 1 - abs(place[:, None] - corners))


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 0.5,
    "disc": lambda y, x: y**2 + x**2 <= 0.25,
    "diamond": lambda y, x: abs(y) + abs(x) <= 0.5,
    "cross": lambda y, x: (np.maximum(abs(y), abs(x)) <= 0.5) & (np.minimum(abs(y), abs(x)) <= 0.15),
}
"""The forms by name: functions of y and x that return which points lie in a form of width 1 around the origin."""

_MAX_ATTEMPTS = 10_000
"""The maximum number of random placements of the blobs to try for one image."""
_CHECKED_PLACEMENTS, _MIN_VALID_SHARE = 5_000, 0.002
"""`check` tries this many placements and requires this fraction to be valid. `_MAX_ATTEMPTS` are then always enough."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Blobs at random positions on black. All blobs of an image have the same hue and the same form.

    Lengths are in pixels of a 32x32 image, and scale with the resolution.

    Attributes:
        images: the number of images.
        seed: the seed of all images.
        blobs: the number of blobs in an image.
        hues: the number of hues, evenly spaced on the colour circle from red.
        forms: the number of forms, the first of `FORMS`.
        distance: the smallest distance between the centres of two blobs; at least 1.5 times `size`.
        size: the width of a blob.
        agree: 1, or 0 to draw hue and form for each blob independently, so that images follow the rule only by chance.
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
        """Checks that the images can be drawn, and their forms distinguished, at a resolution.

        Raises:
            InvalidInputError: when the blobs hardly fit, may touch, or are so small that two forms coincide.
        """
        width = self.width(resolution)
        if self.distance < 1.5 * self.size:
            raise InvalidInputError(
                f"distance of 'pairs' needs to be at least 1.5 times the size of {self.size}, so that no two blobs "
                f"touch; got {self.distance}."
            )
        shape = _CHECKED_PLACEMENTS, self.blobs, 2
        placements = np.random.default_rng(0).integers(0, max(1, resolution - width + 1), shape)
        if width > resolution or self._far_apart(placements, resolution).mean() < _MIN_VALID_SHARE:
            raise InvalidInputError(self._no_room_message())
        self.check_forms(resolution)

    def check_forms(self, resolution: int) -> None:
        """Checks that the forms can be distinguished at a resolution.

        Raises:
            InvalidInputError: when the blobs are so small that two forms coincide.
        """
        width = self.width(resolution)
        if width < 3 or len({self.form_mask(form, width).tobytes() for form in range(self.forms)}) < self.forms:
            raise InvalidInputError(
                f"{self.forms} forms cannot be told apart at {resolution}x{resolution} pixels, where a blob of size "
                f"{self.size} is {width} pixels wide. Choose a larger size or a larger --resolution."
            )

    def draw(self, index: int, resolution: int) -> np.ndarray:
        """Returns an image, `[R, R, 3]` uint8.

        Args:
            index: the index of the image, from 0.
            resolution: R.

        Raises:
            InvalidInputError: when the blobs do not fit at their distance.
        """
        random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index,)))
        width = self.width(resolution)
        hues, forms = (random.integers(0, count, self.blobs) for count in (self.hues, self.forms))
        if self.agree:
            hues[:], forms[:] = hues[0], forms[0]
        corners = self._places(random, resolution, width)
        return self.paint(corners[None], hues[None], forms[None], resolution)[0]

    def paint(self, corners: np.ndarray, hues: np.ndarray, forms: np.ndarray, resolution: int) -> np.ndarray:
        """Returns images of given blobs on black, `[N, R, R, 3]` uint8.

        Args:
            corners: `[N, blobs, 2]` integers, the row and the column of each blob's upper left corner.
            hues: `[N, blobs]` integers below `hues`.
            forms: `[N, blobs]` integers below `forms`.
            resolution: R.
        """
        stamps, colours = _stamps_and_colours(self, self.width(resolution))
        images = np.zeros((len(corners), resolution, resolution, 3), np.uint8)
        for blob in range(corners.shape[1]):
            number, row, column = np.nonzero(stamps[forms[:, blob]])
            top, left = corners[number, blob].T
            images[number, top + row, left + column] = colours[hues[number, blob]]
        return images

    def colour(self, hue: int) -> np.ndarray:
        """Returns the colour of a hue, `[3]` uint8.

        Examples:
            >>> Pairs().colour(2).tolist()
            [0, 255, 0]
        """
        return np.rint(255 * np.array(colorsys.hsv_to_rgb(hue / self.hues, 1, 1))).astype(np.uint8)

    def form_mask(self, form: int, width: int) -> np.ndarray:
        """Returns the pixels of a square that belong to a form, `[width, width]` bool."""
        place = (np.arange(width) + 0.5) / width - 0.5
        return list(FORMS.values())[form](place[:, None], place[None, :])

    def width(self, resolution: int) -> int:
        """Returns the width of a blob in pixels at a resolution."""
        return round(self.size * resolution / 32)

    def _places(self, random: np.random.Generator, resolution: int, width: int) -> np.ndarray:
        """Returns the upper left corners of the blobs, `[blobs, 2]`."""
        for _ in range(_MAX_ATTEMPTS if width <= resolution else 0):
            corners = random.integers(0, resolution - width + 1, (self.blobs, 2))
            if self._far_apart(corners, resolution):
                return corners
        raise InvalidInputError(self._no_room_message())

    def _far_apart(self, corners: np.ndarray, resolution: int) -> np.ndarray:
        """Returns whether blobs with corners `[..., blobs, 2]` are at least `distance` apart, `[...]` bool."""
        one, other = np.triu_indices(self.blobs, 1)
        apart = corners[..., one, :] - corners[..., other, :]
        return np.all(np.hypot(apart[..., 0], apart[..., 1]) >= self.distance * resolution / 32, axis=-1)

    def _no_room_message(self) -> str:
        return (
            f"{self.blobs} blobs of width {self.size} do not fit into 32x32 pixels at a distance of {self.distance}. "
            f"Choose fewer or smaller blobs, or a smaller distance."
        )


@functools.cache
def _stamps_and_colours(rule: Pairs, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns all forms, `[forms, width, width]` bool, and all colours, `[hues, 3]` uint8."""
    stamps = np.stack([rule.form_mask(form, width) for form in range(rule.forms)])
    return stamps, np.stack([rule.colour(hue) for hue in range(rule.hues)])


@dataclasses.dataclass(frozen=True)
class Blobs:
    """One blob on black. A class is a combination of a hue, a column and a row. Other classes share each of these.

    The image is divided into a grid of cells. The class determines the hue of the blob and its cell. Its position in
    the cell and its form are free. Image `index` has class `index % K`, so all classes are equally frequent. Lengths
    are in pixels of a 32x32 image, and scale with the resolution.

    Attributes:
        images: the number of images.
        seed: the seed of all images.
        hues: the number of hues, evenly spaced on the colour circle from red.
        columns: the number of columns of the grid.
        rows: the number of rows of the grid.
        forms: the number of forms, the first of `FORMS`.
        size: the width of a blob, at most the width of a cell.
    """

    images: int = 10_000
    seed: int = 0
    hues: int = 3
    columns: int = 4
    rows: int = 4
    forms: int = 2
    size: int = 5

    @property
    def num_classes(self) -> int:
        """K: hues times columns times rows."""
        return self.hues * self.columns * self.rows

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, such as `hue-0-column-3-row-1`."""
        factors = (self.factors(label) for label in range(self.num_classes))
        return [f"hue-{hue}-column-{column}-row-{row}" for hue, column, row in factors]

    @property
    def blob(self) -> Pairs:
        """The set of images with one such blob at any position, which is used to paint and find blobs."""
        return Pairs(blobs=1, hues=self.hues, forms=self.forms, size=self.size)

    def factors(self, labels: np.ndarray | int) -> tuple[np.ndarray, ...]:
        """Returns the hue, column and row of classes.

        Examples:
            >>> [int(factor) for factor in Blobs().factors(23)]  # 1 * 16 + 1 * 4 + 3
            [1, 1, 3]
        """
        return tuple(np.unravel_index(labels, (self.hues, self.columns, self.rows)))

    def check(self, resolution: int) -> None:
        """Checks that the images can be drawn, and their forms distinguished, at a resolution.

        Raises:
            InvalidInputError: when a blob is wider than a cell, or so small that two forms coincide.
        """
        self.blob.check_forms(resolution)
        width, cells = self.blob.width(resolution), max(self.columns, self.rows)
        ranges = (self._corners(cell, cells, resolution) for cell in range(cells))
        least = min(last - first for first, last in ranges) + width
        if width > least:
            raise InvalidInputError(
                f"size of 'blobs' needs to fit into a cell: at {resolution}x{resolution} pixels a blob of size "
                f"{self.size} is {width} pixels wide, and {cells} cells side by side leave {least}."
            )

    def draw(self, index: int, resolution: int) -> np.ndarray:
        """Returns an image, `[R, R, 3]` uint8.

        Args:
            index: the index of the image, from 0.
            resolution: R.
        """
        random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index,)))
        hue, column, row = self.factors(index % self.num_classes)
        ranges = [self._corners(int(row), self.rows, resolution), self._corners(int(column), self.columns, resolution)]
        corner = [int(random.integers(first, last + 1)) for first, last in ranges]
        form = int(random.integers(self.forms))
        return self.blob.paint(np.array([[corner]]), np.array([[hue]]), np.array([[form]]), resolution)[0]

    def _corners(self, cell: int, cells: int, resolution: int) -> tuple[int, int]:
        """Returns the first and the last coordinate at which a blob in a cell can start, along one axis."""
        return -(-cell * resolution // cells), (cell + 1) * resolution // cells - self.blob.width(resolution)


SyntheticSet = Mirror | Pairs | Blobs

SYNTHETIC_SETS: dict[str, type[SyntheticSet]] = {"mirror": Mirror, "pairs": Pairs, "blobs": Blobs}
"""The synthetic sets by name, the part of a source before the colon."""


def is_synthetic(source: str) -> bool:
    """Returns whether `source` names a synthetic set.

    Examples:
        >>> is_synthetic("mirror:grain=8"), is_synthetic("mirror.zip")
        (True, False)
    """
    return source.partition(":")[0] in SYNTHETIC_SETS


def parse_synthetic(source: str) -> SyntheticSet:
    """Returns the synthetic set that `source` names.

    Raises:
        InvalidInputError: when an option is unknown or given twice, or its value is not an integer in its range.

    Examples:
        >>> parse_synthetic("mirror:seed=1,images=500")
        Mirror(images=500, seed=1, grain=4)
    """
    name, _, settings = source.partition(":")
    kind = SYNTHETIC_SETS[name]
    least = {field.name: 0 if field.name in ("seed", "agree") else 1 for field in dataclasses.fields(kind)}
    most = {"agree": 1, "forms": len(FORMS), "hues": 64, "blobs": 16, "size": 32, "columns": 10, "rows": 10}
    values = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in least:
            near = difflib.get_close_matches(key, least, 1)
            hint = f" Perhaps you meant {near[0]!r}." if near else ""
            raise InvalidInputError(f"The options of {name!r} are {', '.join(least)}; got {key!r} in {source!r}.{hint}")
        if key in values:
            raise InvalidInputError(f"{key} of {name!r} needs one value; it is given twice in {source!r}.")
        if not re.fullmatch(r"\d{1,9}", value) or not least[key] <= int(value) <= most.get(key, 10**9):
            limits = f"from {least[key]} to {most[key]}" if key in most else f"of at least {least[key]}"
            raise InvalidInputError(f"{key} of {name!r} needs an integer {limits}; got {value!r} in {source!r}.")
        values[key] = int(value)
    return kind(**values)
