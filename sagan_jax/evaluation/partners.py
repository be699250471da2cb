"""How much of a blob's attention falls on its partners: the other blobs of an image of `Pairs`."""

import numpy as np

from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import AttentionLayer, AttentionRecord
from sagan_jax.evaluation.rules import find_blobs

_QUERY, _KEY = 0.5, 0.25
"""A position belongs to a blob that covers this share of it. Pooled keys are larger, so they need less."""


def partner_attention(record: AttentionRecord, rule: Pairs) -> dict[str, float]:
    """Returns how much of a blob's attention falls on the other blobs, as metrics of each attention layer.

    Args:
        record: attention on images that a network generated or was shown.
        rule: the set that the images belong to. Images without clear blobs are left out.

    Returns:
        Such as `generator/partner_share_16` and `generator/partner_lift_16`. The share is the weight with which
        positions on a blob attend to positions on another, averaged over blobs. The lift divides it by the share that
        uniform attention would give. Empty if no image has clear blobs, or if the rule has one blob an image.
    """
    if rule.blobs < 2:
        return {}
    regions = [[blob.region for blob in find_blobs(image, rule)] for image in record.images]
    found = {}
    for layer in record.layers:
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
            share, uniform = shares.mean(axis=0)
            found |= {name.format("share"): float(share), name.format("lift"): float(share / uniform)}
    return found


def _shares(layer: AttentionLayer, number: int, blobs: list[np.ndarray], index: int) -> list[tuple[float, float]]:
    """Returns the weight that one blob of an image gives to the others, and what uniform attention would give.

    The list is empty if a blob covers no position.
    """
    own = _coverage(blobs[index], layer.query_shape) >= _QUERY
    others = np.max([_coverage(blob, layer.key_shape) for i, blob in enumerate(blobs) if i != index], axis=0) >= _KEY
    if not own.any() or not others.any():
        return []
    weights = layer.rows(number, range(own.size))[own.ravel()].mean(axis=0)
    return [(float(weights[others.ravel()].sum()), float(others.mean()))]


def _coverage(region: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the share of each position of a map that a region of the image covers."""
    height, width = shape
    return region.reshape(height, len(region) // height, width, -1).mean(axis=(1, 3))
