"""Programmatic checks of whether images follow the rule of a synthetic set, without a network or reference images.

Two checks are made. First, are the parts valid: does the image contain the right parts, each with a clear value of
every property? Second, do the parts agree? In images of a generator that paints everything red, parts agree
trivially. So two more things are counted: the values that occur, and how often parts with these values would agree by
chance.

The thresholds are tolerant, so that blur, low brightness and noise of generated images matter little.
`tests/evaluation/test_rules.py` degrades real images and measures the tolerance.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from sagan_jax.data.synthetic import Blobs, Mirror, Pairs, SyntheticSet

GROUND = 0.3
"""A pixel can belong to a blob if its brightest channel is above this fraction of white."""
LEAST_LIGHT = 0.5
"""A blob is ignored if its brightness, the 90% quantile over its pixels, is below this fraction of white."""
EDGE = 0.5
"""A blob includes pixels above this fraction of its own brightness, so blur and dimness do not move its outline."""
SPECK = 0.25
"""A blob is ignored if its area is below this fraction of the largest form's area."""
LEAST_SIZE = 0.75
"""Forms are matched at all widths from this fraction of the rule's width to the rule's width divided by this fraction.
So a large disc is not matched as a square."""
LEAST_OVERLAP = 0.75
"""Minimum intersection over union of a blob and its form. The form is the one with the largest value."""
LEAST_SATURATION = 0.5
"""Minimum saturation of a blob's mean colour: 1 - smallest channel / largest channel."""
HUE_TOLERANCE = 0.35
"""Maximum distance of a blob's hue to the nearest hue of the set, as a fraction of the spacing of hues."""
LEAST_SHARE = 0.5
"""Minimum fraction of a blob's pixels whose nearest hue is the blob's. So a half red, half green blob is not yellow."""
LEAST_CONTRAST = 0.7
"""Minimum standard deviation of half a texture, as a fraction of the smallest one among real textures."""
LEAST_CORRELATION = 0.8
"""Minimum correlation between half a texture and the mirrored other half, without the channel means."""


class Blob(NamedTuple):
    """A part of an image of `Pairs`."""

    region: np.ndarray
    """`[R, R]` bool"""
    hue: int
    form: int


class RuleResult(NamedTuple):
    """The result of checking N images against a rule."""

    parts_valid: np.ndarray
    """`[N]` bool: whether the image has the right parts"""
    agreements: dict[str, np.ndarray]
    """`[N]` bool by property, such as `hue`: whether all parts agree in it; False if the parts are not valid"""
    modes: np.ndarray
    """`[N]` integers: the mode, an index of the free values of the rule; meaningful only if the rule is followed"""
    values: dict[str, np.ndarray]
    """`[N, parts]` integers by property; meaningful only if the parts are valid; empty for textures and for `Blobs`"""

    @property
    def follows_rule(self) -> np.ndarray:
        """`[N]` bool: the parts are valid and agree in every property."""
        return functools.reduce(np.logical_and, self.agreements.values(), self.parts_valid)


def check_rule(images: np.ndarray, rule: SyntheticSet, labels: np.ndarray | None = None) -> RuleResult:
    """Checks images against the rule of a synthetic set.

    Args:
        images: `[N, R, R, 3]` uint8; N may be 0.
        rule: the set.
        labels: `[N]` integers, the requested class of each image; only for `Blobs`.

    Raises:
        ValueError: the set is `Blobs`, and there are no labels.
    """
    if isinstance(rule, Blobs):
        if labels is None:
            raise ValueError("The rule of 'blobs' needs the class of each image; got none.")
        return check_blobs(images, rule, labels)
    return check_pairs(images, rule) if isinstance(rule, Pairs) else check_mirror(images, rule)


def num_modes(rule: SyntheticSet) -> int:
    """Returns the number of modes of a rule: pairs of hue and form, classes, or eight coarse textures.

    Examples:
        >>> num_modes(Pairs()), num_modes(Blobs())
        (12, 48)
    """
    if isinstance(rule, Blobs):
        return rule.num_classes
    return rule.hues * rule.forms if isinstance(rule, Pairs) else 8


def check_pairs(images: np.ndarray, rule: Pairs) -> RuleResult:
    """Checks images of blobs: their number, and whether all blobs have one hue and one form.

    Args:
        images: `[N, R, R, 3]` uint8.
        rule: the set; its `images`, `seed`, `distance` and `agree` are not used.
    """
    found = [find_blobs(image, rule) for image in images]
    parts_valid = np.array([bool(blobs) for blobs in found], bool)
    values = np.zeros((len(images), rule.blobs, 2), int)
    for number in np.flatnonzero(parts_valid):
        values[number] = [(blob.hue, blob.form) for blob in found[number]]
    same = (values == values[:, :1]).all(axis=1) & parts_valid[:, None]
    modes = values[:, 0, 0] * rule.forms + values[:, 0, 1]
    agreements = {"hue": same[:, 0], "form": same[:, 1]}
    return RuleResult(parts_valid, agreements, modes, {"hue": values[..., 0], "form": values[..., 1]})


def check_blobs(images: np.ndarray, rule: Blobs, labels: np.ndarray) -> RuleResult:
    """Checks images of one blob: whether it is clear, and has the hue and the cell of the requested class.

    A blob belongs to the cell that contains the centroid of its pixels. The properties are `hue`, `column` and `row`.
    If all classes are requested equally often, a generator that ignores them agrees in hue with probability 1 / `hues`,
    in column with 1 / `columns` and in row with 1 / `rows`.

    Args:
        images: `[N, R, R, 3]` uint8.
        rule: the set; its `images` and `seed` are not used.
        labels: `[N]` integers below `num_classes`.
    """
    found = np.full((len(images), 3), -1)
    for number, image in enumerate(images):
        for blob in find_blobs(image, rule.blob):
            middle = np.mean(np.nonzero(blob.region), axis=1) + 0.5
            row, column = (middle * (rule.rows, rule.columns) / image.shape[:2]).astype(int)
            found[number] = blob.hue, column, row
    valid = found[:, 0] >= 0
    asked = np.stack(rule.factors(np.asarray(labels, int)), axis=1).reshape(-1, 3)
    agreements = {name: found[:, place] == asked[:, place] for place, name in enumerate(("hue", "column", "row"))}
    modes = np.ravel_multi_index(tuple(np.maximum(found, 0).T), (rule.hues, rule.columns, rule.rows))
    return RuleResult(valid, agreements, modes, {})


def check_mirror(images: np.ndarray, rule: Mirror) -> RuleResult:
    """Checks textures: whether both halves have enough contrast, and whether they mirror each other.

    The mode has one bit per channel: whether the upper half is brighter on average than the lower one.

    Args:
        images: `[N, R, R, 3]` uint8.
        rule: the set.
    """
    half = images.shape[2] // 2
    left = images[:, :, :half].astype(np.float64)
    right = images[:, :, ::-1][:, :, :half].astype(np.float64)
    least = LEAST_CONTRAST * _least_deviation(rule, images.shape[1])
    deviations = [part.std(axis=(1, 2)).min(axis=-1) for part in (left, right)]
    textured = np.minimum(*deviations) >= least
    correlation = _correlation(left, right)
    upper, lower = np.split(left[:, : images.shape[1] // 2 * 2], 2, axis=1)
    signs = upper.mean(axis=(1, 2)) > lower.mean(axis=(1, 2))
    agreements = {"mirror": textured & (correlation >= LEAST_CORRELATION)}
    return RuleResult(textured, agreements, signs @ (1, 2, 4), {})


def rule_accuracy(result: RuleResult, modes: int) -> dict[str, float]:
    """Returns the fraction of images that follow a rule, and how evenly these are distributed over its modes.

    Args:
        result: the result for at least one image.
        modes: the number of modes of the rule; see `num_modes`.

    Returns:
        Values by name.
        `follows_rule`: the fraction of images that follow the rule.
        `parts`: the fraction of images whose parts are valid.
        Each property, such as `hue`: among images with valid parts, the fraction whose parts agree in it.
        Its chance level, such as `hue_chance`: the fraction that would agree if these parts were shuffled among the
        images. Both are 0 if no image has valid parts.
        `chance`: the fraction of all images that would follow the rule after this shuffle, in which each part keeps all
        its properties. If hue and form are correlated, it is not the product of their chances. `beyond_chance`:
        `follows_rule` minus `chance`; a generator that always draws the same parts has 0. Textures and `Blobs` have no
        chance levels, no `chance` and no `beyond_chance`.
        `kinds`: the fraction of modes that occur among images that follow the rule.
        `entropy`: the entropy of their distribution over modes, divided by the maximum entropy. Both are 0 if no image
        follows the rule.
    """
    valid, follows = result.parts_valid, result.follows_rule
    shares = np.bincount(result.modes[follows], minlength=modes) / max(1, follows.sum())
    present = shares[shares > 0]
    chance = float(valid.mean()) * _chance(_joint(result.values)[valid]) if result.values else 0.0
    return {
        "follows_rule": float(follows.mean()),
        "parts": float(valid.mean()),
        **{name: float(agree.sum() / max(1, valid.sum())) for name, agree in result.agreements.items()},
        **{f"{name}_chance": _chance(values[valid]) for name, values in result.values.items()},
        **({"chance": chance, "beyond_chance": float(follows.mean()) - chance} if result.values else {}),
        "kinds": len(present) / modes,
        "entropy": float(-(present * np.log(present)).sum() / np.log(modes)) if len(present) > 1 else 0.0,
    }


def _chance(values: np.ndarray) -> float:
    """Returns the probability that all parts of an image are equal if all of `values`, `[N, parts]`, are shuffled."""
    shares = np.bincount(values.ravel()) / max(1, values.size)
    return float((shares ** values.shape[1]).sum())


def _joint(values: dict[str, np.ndarray]) -> np.ndarray:
    """Returns an index of the combination of all properties for each part, `[N, parts]`."""
    stacked = np.stack(list(values.values()), axis=-1)
    _, numbers = np.unique(stacked.reshape(-1, stacked.shape[-1]), axis=0, return_inverse=True)
    return numbers.reshape(stacked.shape[:-1])


def find_blobs(image: np.ndarray, rule: Pairs) -> list[Blob]:
    """Returns the blobs of an image `[R, R, 3]` uint8; an empty list if they are too few, too many or unclear."""
    from scipy import ndimage  # imported here, so that commands that score no rule start sooner

    width = rule.width(len(image))
    light = image.max(axis=-1)
    labels, count = ndimage.label(light > 255 * GROUND, structure=np.ones((3, 3)))
    seen = []
    for number in range(1, count + 1):
        bright = np.quantile(light[labels == number], 0.9)
        region = (labels == number) & (light >= EDGE * bright)
        if bright >= 255 * LEAST_LIGHT and region.sum() >= SPECK * width**2:
            seen.append(region)
    if len(seen) != rule.blobs:
        return []
    found = [Blob(region, _hue(image[region], rule), _form(region, width, rule.forms)) for region in seen]
    return [] if any(-1 in (blob.hue, blob.form) for blob in found) else found


def _hue(pixels: np.ndarray, rule: Pairs) -> int:
    """Returns the index of the hue of a blob's pixels `[N, 3]`; -1 if it is pale or between two hues."""
    from matplotlib.colors import rgb_to_hsv

    hue, saturation, _ = rgb_to_hsv(pixels.mean(axis=0) / 255)
    nearest = round(hue * rule.hues)
    own = np.rint(rgb_to_hsv(pixels / 255)[:, 0] * rule.hues) % rule.hues == nearest % rule.hues
    clear = saturation >= LEAST_SATURATION and abs(hue * rule.hues - nearest) <= HUE_TOLERANCE
    return nearest % rule.hues if clear and own.mean() >= LEAST_SHARE else -1


def _form(region: np.ndarray, width: int, count: int) -> int:
    """Returns the index of the form that overlaps a region most; -1 if the overlap is small."""
    from scipy import ndimage

    area, overlaps = region.sum(), np.zeros(count)
    margin = 2 * width  # keeps every tried form inside the image
    region = np.pad(region, margin)
    middle = np.array(ndimage.center_of_mass(region))
    for side in range(math.ceil(LEAST_SIZE * width), math.floor(width / LEAST_SIZE) + 1):
        forms = _stamps(count, side)
        corner = middle - (side - 1) / 2
        for top, left in itertools.product(*({math.floor(place), math.ceil(place)} for place in corner)):
            shared = (forms & region[top : top + side, left : left + side]).sum(axis=(1, 2))
            overlaps = np.maximum(overlaps, shared / (forms.sum(axis=(1, 2)) + area - shared))
    return int(np.argmax(overlaps)) if overlaps.max() >= LEAST_OVERLAP else -1


@functools.cache
def _stamps(count: int, side: int) -> np.ndarray:
    """Returns the first `count` forms with a width of `side` pixels, `[count, side, side]` bool."""
    return np.stack([Pairs().form_mask(form, side) for form in range(count)])


@functools.cache
def _least_deviation(rule: Mirror, resolution: int) -> float:
    """Returns the smallest standard deviation of a channel in half a texture, among a hundred textures of the set."""
    halves = np.stack([rule.draw(index, resolution)[:, : resolution // 2] for index in range(100)])
    return float(halves.std(axis=(1, 2)).min())


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the correlation between two stacks of images, `[N]`.

    It is computed over all values after subtracting each channel's mean, so that a shared tint does not count.
    """
    one, other = (part - part.mean(axis=(1, 2), keepdims=True) for part in (one, other))
    values = 1, 2, 3
    size = np.sqrt((one**2).sum(axis=values) * (other**2).sum(axis=values))
    return (one * other).sum(axis=values) / np.maximum(size, 1e-12)
