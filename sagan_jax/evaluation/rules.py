"""Whether images follow the rule of a synthetic set, as a program tells: without a network or reference images.

Two questions are answered in turn. Are the parts valid: does the image hold what an image of the set holds, and has
each part clearly one of the rule's values? And do the parts agree? A generator that paints everything red agrees
easily. So the values that occur are counted too, and how often parts with these values would agree by chance.

The limits are wide, so that blur, dimness and noise of a generator matter little. `tests/evaluation/test_rules.py`
degrades real images and measures how much is tolerated.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from sagan_jax.data.synthetic import Blobs, Mirror, Pairs, SyntheticSet

GROUND = 0.3
"""A pixel can belong to a blob if its brightest channel is above this share of white."""
LEAST_LIGHT = 0.5
"""A blob is ignored if its brightness, which a tenth of its pixels exceeds, is below this share of white."""
EDGE = 0.5
"""A blob ends where it falls below this share of its own brightness, so blur and dimness do not move its outline."""
SPECK = 0.25
"""A blob is ignored if its area is below this share of the largest form's area."""
LEAST_SIZE = 0.75
"""A form is tried at all widths from this share of the rule's width to its inverse: a large disc is not a square."""
LEAST_OVERLAP = 0.75
"""A blob has the form with the greatest overlap (intersection over union), if that is at least this."""
LEAST_SATURATION = 0.5
"""Least saturation of a blob's mean colour: 1 - least channel / greatest channel."""
HUE_TOLERANCE = 0.35
"""Greatest distance of a blob's hue from the nearest hue of the set, as a share of the distance between two hues."""
LEAST_SHARE = 0.5
"""Least share of a blob's pixels that are nearest to the blob's hue: red beside green is not yellow."""
LEAST_CONTRAST = 0.7
"""Least standard deviation of half a texture, as a share of the smallest one among real textures."""
LEAST_CORRELATION = 0.8
"""Least correlation between half a texture and the mirrored other half, without the channel means."""


class Blob(NamedTuple):
    """A part of an image of `Pairs`."""

    region: np.ndarray
    """`[R, R]` bool"""
    hue: int
    form: int


class RuleResult(NamedTuple):
    """How N images follow a rule."""

    parts_valid: np.ndarray
    """`[N]` bool: whether the image has the right parts"""
    agreements: dict[str, np.ndarray]
    """by property, such as `hue`, `[N]` bool: whether all parts agree in it; False if the parts are not valid"""
    modes: np.ndarray
    """`[N]` integers: which of the values that the rule leaves open; meaningful only if the image follows the rule"""
    values: dict[str, np.ndarray]
    """by property, `[N, parts]` integers; meaningful only if the parts are valid; empty for textures"""

    @property
    def follows_rule(self) -> np.ndarray:
        """`[N]` bool: the parts are valid and agree in every property."""
        return functools.reduce(np.logical_and, self.agreements.values(), self.parts_valid)


def check_rule(images: np.ndarray, rule: SyntheticSet, labels: np.ndarray | None = None) -> RuleResult:
    """Checks images by the rule of a synthetic set.

    Args:
        images: `[N, R, R, 3]` uint8; N may be 0.
        rule: the set.
        labels: `[N]` integers, the class that each image was asked for; of `Blobs` alone.

    Raises:
        ValueError: the set is `Blobs`, and there are no labels.
    """
    if isinstance(rule, Blobs):
        if labels is None:
            raise ValueError("The rule of 'blobs' needs the class of each image; got none.")
        return check_blobs(images, rule, labels)
    return check_pairs(images, rule) if isinstance(rule, Pairs) else check_mirror(images, rule)


def num_modes(rule: SyntheticSet) -> int:
    """Returns how many values a rule leaves open: pairs of hue and form, classes, or eight coarse textures.

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
    """Checks images of one blob: whether it is clear, and has the hue and lies in the cell of its image's class.

    A blob is in the cell that holds the middle of its pixels. The properties are `hue`, `column` and `row`. Where all
    classes are asked for equally often, a generator that does not look at them agrees in one of `hues`, and so on.

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
    """Checks textures: whether both halves have contrast, and whether they mirror each other.

    The mode is made of one sign a channel: whether the upper half is brighter on average than the lower one.

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
    """Returns the share of images that follow a rule, and how evenly these are spread over its modes.

    Args:
        result: of at least one image.
        modes: number of modes of the rule; see `num_modes`.

    Returns:
        Values by name.
        `follows_rule`: the share of images that follow the rule.
        `parts`: the share of images whose parts are valid.
        Such as `hue`: among images with valid parts, the share whose parts agree in this property.
        Such as `hue_chance`: the share that would agree if these parts were shuffled among the images. Both are 0 if no
        image has valid parts.
        `chance`: the share of all images that would follow the rule after this shuffle, in which each part keeps all
        its properties. Where hue and form go together, the product of their shares is not it. Textures have no such
        properties, and neither value.
        `kinds`: the share of the modes that occur among images that follow the rule.
        `entropy`: the entropy of their distribution over modes, as a share of the greatest one. Both are 0 if no image
        follows the rule.
    """
    valid, follows = result.parts_valid, result.follows_rule
    shares = np.bincount(result.modes[follows], minlength=modes) / max(1, follows.sum())
    present = shares[shares > 0]
    return {
        "follows_rule": float(follows.mean()),
        "parts": float(valid.mean()),
        **{name: float(agree.sum() / max(1, valid.sum())) for name, agree in result.agreements.items()},
        **{f"{name}_chance": _chance(values[valid]) for name, values in result.values.items()},
        **({"chance": float(valid.mean()) * _chance(_joint(result.values)[valid])} if result.values else {}),
        "kinds": len(present) / modes,
        "entropy": float(-(present * np.log(present)).sum() / np.log(modes)) if len(present) > 1 else 0.0,
    }


def _chance(values: np.ndarray) -> float:
    """Returns how often all parts of an image would be equal if all of `values`, `[N, parts]`, were shuffled."""
    shares = np.bincount(values.ravel()) / max(1, values.size)
    return float((shares ** values.shape[1]).sum())


def _joint(values: dict[str, np.ndarray]) -> np.ndarray:
    """Returns one number for each combination of all properties that a part has, `[N, parts]`."""
    stacked = np.stack(list(values.values()), axis=-1)
    _, numbers = np.unique(stacked.reshape(-1, stacked.shape[-1]), axis=0, return_inverse=True)
    return numbers.reshape(stacked.shape[:-1])


def find_blobs(image: np.ndarray, rule: Pairs) -> list[Blob]:
    """Returns the blobs of an image `[R, R, 3]` uint8; none if they are too few, too many or unclear."""
    from scipy import ndimage  # a command that scores no rule starts sooner without it

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
    """Returns the number of the hue of a blob's pixels `[N, 3]`; -1 if it is pale or between two hues."""
    from matplotlib.colors import rgb_to_hsv

    hue, saturation, _ = rgb_to_hsv(pixels.mean(axis=0) / 255)
    nearest = round(hue * rule.hues)
    own = np.rint(rgb_to_hsv(pixels / 255)[:, 0] * rule.hues) % rule.hues == nearest % rule.hues
    clear = saturation >= LEAST_SATURATION and abs(hue * rule.hues - nearest) <= HUE_TOLERANCE
    return nearest % rule.hues if clear and own.mean() >= LEAST_SHARE else -1


def _form(region: np.ndarray, width: int, count: int) -> int:
    """Returns the number of the form that overlaps a region most; -1 if the overlap is small."""
    from scipy import ndimage

    area, overlaps = region.sum(), np.zeros(count)
    margin = 2 * width  # keeps every form that is tried inside the image
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
    """Returns the first forms with `side` pixels a side, `[count, side, side]` bool."""
    return np.stack([Pairs().form_mask(form, side) for form in range(count)])


@functools.cache
def _least_deviation(rule: Mirror, resolution: int) -> float:
    """Returns the smallest standard deviation of a channel in half a texture, among a hundred textures of the set."""
    halves = np.stack([rule.draw(index, resolution)[:, : resolution // 2] for index in range(100)])
    return float(halves.std(axis=(1, 2)).min())


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the correlation between two stacks of images, `[N]`.

    It is taken over all values after each channel's mean is subtracted, so that a shared tint does not count.
    """
    one, other = (part - part.mean(axis=(1, 2), keepdims=True) for part in (one, other))
    values = 1, 2, 3
    size = np.sqrt((one**2).sum(axis=values) * (other**2).sum(axis=values))
    return (one * other).sum(axis=values) / np.maximum(size, 1e-12)
