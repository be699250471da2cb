"""The attention of a blob to its partners, the other blobs in an image of `Pairs`."""

from collections.abc import Sequence

import numpy as np

from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import AttentionLayer, AttentionRecord
from sagan_jax.evaluation.rules import find_blobs

_QUERY, _KEY = 0.5, 0.25
"""A position belongs to a blob that covers at least this fraction of it. Pooled keys are larger, so they need less."""


def partner_attention(record: AttentionRecord, rule: Pairs) -> dict[str, float]:
    """Returns the fraction of a blob's attention that goes to the other blobs, as metrics of each attention layer.

    Args:
        record: the attention of a network for images that it generated or got as input.
        rule: the set that the images belong to. Images without clear blobs are skipped.

    Returns:
        Metrics such as `generator/partner_share_16` and `generator/partner_lift_16`. The share is the attention weight
        from positions on a blob to positions on the other blobs, averaged over blobs. The lift divides it by the share
        under uniform attention. Empty if no image has clear blobs, or if the rule has one blob per image.
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
    """Returns the attention weight of one blob of an image to the others, and the weight under uniform attention.

    The list is empty if a blob covers no position.
    """
    own, others = partner_positions(blobs, index, layer.query_shape, layer.key_shape)
    if not own.any() or not others.any():
        return []
    weights = layer.rows(number, range(own.size))[own].mean(axis=0)
    return [(float(weights[others].sum()), float(others.mean()))]


def partner_positions(
    blobs: Sequence[np.ndarray], index: int, query_shape: tuple[int, int], key_shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the query positions `[N]` bool on one blob of an image, and the key positions `[M]` bool on the others.

    Args:
        blobs: the region of each blob of the image, `[R, R]` bool, two or more.
        index: the index of the one blob.
        query_shape: height and width of the queries, in positions.
        key_shape: height and width of the keys.
    """
    own = _coverage(blobs[index], query_shape) >= _QUERY
    others = np.max([_coverage(blob, key_shape) for i, blob in enumerate(blobs) if i != index], axis=0) >= _KEY
    return own.ravel(), others.ravel()


def _coverage(region: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the fraction of each position of a map that a region of the image covers."""
    height, width = shape
    return region.reshape(height, len(region) // height, width, -1).mean(axis=(1, 3))
