"""Whether images follow the rule of a synthetic set, told by a program: exactly, with no network and no reference.

A verdict has two steps. First, are the parts right: does the image hold what an image of the set holds, each part
clearly one of the rule's values? Then, do the parts agree? A generator that paints everything red agrees cheaply, so
the values that come up are counted too, and how often parts of such values would agree if drawn apart from each other.

Limits are wide, so that blur, dimness and noise of a generator count little; `tests/evaluation/test_rules.py` degrades
real images and measures how much they tolerate.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from matplotlib.colors import rgb_to_hsv
from scipy import ndimage

from sagan_jax.data.synthetic import Mirror, Pairs, SyntheticSet

GROUND = 0.3
"""A pixel may belong to a blob when its brightest channel is above this share of white."""
LEAST_LIGHT = 0.5
"""What is not as bright as this share of white is not seen; a tenth of its pixels may be brighter than a blob is."""
EDGE = 0.5
"""A blob ends where it is less than this share of its own brightness, so that blur and dimness move no outline."""
SPECK = 0.25
"""A blob of less than this share of the largest form's area is not seen."""
LEAST_SIZE = 0.75
"""A form is looked for at any width from this share of the rule's to its inverse: a large disc is no square."""
LEAST_OVERLAP = 0.75
"""A blob is the form with which it shares most: at least this share of what the two cover together."""
LEAST_SATURATION = 0.5
"""Of a blob's mean colour: 1 - least channel / greatest channel."""
HUE_TOLERANCE = 0.35
"""How far a blob's hue may lie from the nearest of the set, as a share of the way to the next."""
LEAST_SHARE = 0.5
"""Of a blob's pixels, so many are nearer to its hue than to another: red beside green is no yellow."""
LEAST_CONTRAST = 0.7
"""The deviation of a half of a texture, as a share of the least of real ones."""
LEAST_CORRELATION = 0.8
"""Of a texture's half with the mirror of the other, channel means taken off."""


class Blob(NamedTuple):
    """A part of an image of `Pairs`."""

    region: np.ndarray
    """`[R, R]` bool"""
    hue: int
    form: int


class RuleResult(NamedTuple):
    """What a rule says of N images."""

    right: np.ndarray
    """`[N]` bool: the parts are what they should be."""
    agreements: dict[str, np.ndarray]
    """By what the parts are to agree in, `[N]` bool; False where the parts are not right."""
    kinds: np.ndarray
    """`[N]` integers: which of the values that the rule leaves open; read only where the parts agree in everything."""
    values: dict[str, np.ndarray]
    """By what parts are to agree in, `[N, parts]` integers, read only where the parts are right; textures have none."""

    @property
    def follows_rule(self) -> np.ndarray:
        """`[N]` bool: the parts are right and agree in everything."""
        return functools.reduce(np.logical_and, self.agreements.values(), self.right)


def judge(images: np.ndarray, rule: SyntheticSet) -> RuleResult:
    """Returns what the rule of a set says of images.

    Args:
        images: `[N, R, R, 3]` uint8; N may be 0.
        rule: the set that they are to belong to.
    """
    return check_pairs(images, rule) if isinstance(rule, Pairs) else check_mirror(images, rule)


def num_modes(rule: SyntheticSet) -> int:
    """Returns how many values a rule leaves open: with which hue and form blobs agree, or eight coarse textures.

    >>> num_modes(Pairs())
    12
    """
    return rule.hues * rule.forms if isinstance(rule, Pairs) else 8


def check_pairs(images: np.ndarray, rule: Pairs) -> RuleResult:
    """Returns what is to be said of images of blobs: their number, and whether all have one hue and one form.

    Args:
        images: `[N, R, R, 3]` uint8.
        rule: the set that they are to belong to; `images`, `seed`, `distance` and `agree` are not read.
    """
    found = [find_blobs(image, rule) for image in images]
    right = np.array([bool(blobs) for blobs in found], bool)
    values = np.zeros((len(images), rule.blobs, 2), int)
    for number in np.flatnonzero(right):
        values[number] = [(blob.hue, blob.form) for blob in found[number]]
    same = (values == values[:, :1]).all(axis=1) & right[:, None]
    kinds = values[:, 0, 0] * rule.forms + values[:, 0, 1]
    agreements = {"hue": same[:, 0], "form": same[:, 1]}
    return RuleResult(right, agreements, kinds, {"hue": values[..., 0], "form": values[..., 1]})


def check_mirror(images: np.ndarray, rule: Mirror) -> RuleResult:
    """Returns what is to be said of textures: whether both halves have contrast, and mirror each other.

    A kind is the sign, channel by channel, of the difference between the mean of the upper and of the lower half.

    Args:
        images: `[N, R, R, 3]` uint8.
        rule: the set that they are to belong to.
    """
    half = images.shape[2] // 2
    left = images[:, :, :half].astype(np.float64)
    right = images[:, :, ::-1][:, :, :half].astype(np.float64)
    least = LEAST_CONTRAST * _deviation(rule, images.shape[1])
    deviations = [part.std(axis=(1, 2)).min(axis=-1) for part in (left, right)]
    textured = np.minimum(*deviations) >= least
    correlation = _correlation(left, right)
    upper, lower = np.split(left[:, : images.shape[1] // 2 * 2], 2, axis=1)
    signs = upper.mean(axis=(1, 2)) > lower.mean(axis=(1, 2))
    agreements = {"mirror": textured & (correlation >= LEAST_CORRELATION)}
    return RuleResult(textured, agreements, signs @ (1, 2, 4), {})


def rule_accuracy(verdicts: RuleResult, kinds: int) -> dict[str, float]:
    """Returns shares of the images, and how evenly those that obey are spread over the rule's values.

    Args:
        verdicts: of one image at least.
        kinds: how many values there are; see `num_modes`.

    Returns:
        `obey`, the share whose parts are right and agree in everything; `parts`, the share whose parts are right; of
        those, by what parts agree in, the share that does, and as `hue_chance` and the like the share that would if
        the same parts were dealt out anew (0 where no image has the right parts); `kinds`, the share of the rule's
        values that come up among the images that obey, and `entropy`, that of their distribution over them as a share
        of the greatest, both 0 where none follows_rule.
    """
    right = verdicts.right.sum()
    shares = np.bincount(verdicts.kinds[verdicts.follows_rule], minlength=kinds) / max(1, verdicts.follows_rule.sum())
    present = shares[shares > 0]
    return {
        "obey": float(verdicts.follows_rule.mean()),
        "parts": float(verdicts.right.mean()),
        **{name: float(agree.sum() / max(1, right)) for name, agree in verdicts.agreements.items()},
        **{f"{name}_chance": _chance(values[verdicts.right]) for name, values in verdicts.values.items()},
        "kinds": len(present) / kinds,
        "entropy": float(-(present * np.log(present)).sum() / np.log(kinds)) if len(present) > 1 else 0.0,
    }


def _chance(values: np.ndarray) -> float:
    """Returns how often the parts of an image would be alike if all of `values`, `[N, parts]`, were dealt out anew."""
    shares = np.bincount(values.ravel()) / max(1, values.size)
    return float((shares ** values.shape[1]).sum())


def find_blobs(image: np.ndarray, rule: Pairs) -> list[Blob]:
    """Returns the blobs of an image `[R, R, 3]` uint8, or none where they are not the rule's number of clear ones."""
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
    """Returns the number of a blob's hue, -1 where it has none or lies between two."""
    hue, saturation, _ = rgb_to_hsv(pixels.mean(axis=0) / 255)
    nearest = round(hue * rule.hues)
    own = np.rint(rgb_to_hsv(pixels / 255)[:, 0] * rule.hues) % rule.hues == nearest % rule.hues
    clear = saturation >= LEAST_SATURATION and abs(hue * rule.hues - nearest) <= HUE_TOLERANCE
    return nearest % rule.hues if clear and own.mean() >= LEAST_SHARE else -1


def _form(region: np.ndarray, width: int, count: int) -> int:
    """Returns the number of the form that a region has most in common with, -1 where that is little."""
    area, overlaps = region.sum(), np.zeros(count)
    margin = 2 * width  # so that no form that is tried leaves the image
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
    """Returns the forms of so many pixels a side, `[count, side, side]` bool."""
    return np.stack([Pairs().stamp(form, side) for form in range(count)])


@functools.cache
def _deviation(rule: Mirror, resolution: int) -> float:
    """Returns the least deviation of a channel of a half of a hundred of the set's own textures."""
    halves = np.stack([rule.draw(index, resolution)[:, : resolution // 2] for index in range(100)])
    return float(halves.std(axis=(1, 2)).min())


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the correlation of two stacks of images, `[N]`.

    Over all their values, each channel about its own mean: two halves of one tint are not alike for that.
    """
    one, other = (part - part.mean(axis=(1, 2), keepdims=True) for part in (one, other))
    values = 1, 2, 3
    size = np.sqrt((one**2).sum(axis=values) * (other**2).sum(axis=values))
    return (one * other).sum(axis=values) / np.maximum(size, 1e-12)
