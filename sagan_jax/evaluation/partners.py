"""Whether a blob looks at its partner: how much of its attention falls on the other blobs of an image of `Pairs`."""

import numpy as np

from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import AttentionLayer, AttentionRecord
from sagan_jax.evaluation.rules import find_blobs

_QUERY, _KEY = 0.5, 0.25
"""A position is of a blob when the blob covers this share of it; keys are larger where they are pooled."""


def partner_attention(looks: AttentionRecord, rule: Pairs) -> dict[str, float]:
    """Returns, for each attention layer, how much of a blob's attention falls on the other blobs, as metrics of a run.

    Args:
        looks: at images that a network made or was shown.
        rule: the set that they are to belong to; images whose blobs are not clear are left out.

    Returns:
        Such as `generator/partner_share_16`, the share of the weight with which positions on a blob look at positions
        on another, in the mean over blobs, and `generator/partner_lift_16`, the same divided by what looking everywhere
        alike would give; nothing where no image has clear blobs, or the rule but one blob an image.
    """
    if rule.blobs < 2:
        return {}
    regions = [[blob.region for blob in find_blobs(image, rule)] for image in looks.images]
    found = {}
    for layer in looks.layers:
        shares = np.array(
            [
                share
                for number, blobs in enumerate(regions)
                for index in range(len(blobs))
                for share in _shares(layer, number, blobs, index)
            ]
        )
        if len(shares):
            name = f"{layer.network}/partner_{{}}_{layer.resolution}"
            weight, alike = shares.mean(axis=0)
            found |= {name.format("share"): float(weight), name.format("lift"): float(weight / alike)}
    return found


def _shares(layer: AttentionLayer, number: int, blobs: list[np.ndarray], index: int) -> list[tuple[float, float]]:
    """Returns the weight with which one blob of an image looks at the others, and that of an even look."""
    own = _covered(blobs[index], layer.query_shape) >= _QUERY
    others = np.max([_covered(blob, layer.key_shape) for i, blob in enumerate(blobs) if i != index], axis=0) >= _KEY
    if not own.any() or not others.any():
        return []
    weights = layer.attention_map[number][own.ravel()].mean(axis=0)
    return [(float(weights[others.ravel()].sum()), float(others.mean()))]


def _covered(region: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the share of each position of a map that a region of the image covers."""
    height, width = shape
    return region.reshape(height, len(region) // height, width, -1).mean(axis=(1, 3))
