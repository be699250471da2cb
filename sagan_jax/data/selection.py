"""Deterministic subsets of a data set: at most N images, the same ones in every run."""

import dataclasses
import hashlib

import numpy as np

from sagan_jax.data.encoded import EncodedImages
from sagan_jax.errors import InvalidInputError

_SEED = 0  # not the seed of a run: runs with different seeds train on the same images


def choose_images(count: int, labels: np.ndarray | None, class_names: list[str], most: int, where: str) -> np.ndarray:
    """Returns the indices of at most `most` of `count` images, ascending.

    Images are drawn in an order that depends only on `count` and the labels. With labels, the classes alternate, so
    each class gets an equal share, or all its images if it has fewer. The selection for a larger `most` contains that
    for a smaller one.

    Args:
        count: the number of images.
        labels: integers `[count]`, or None.
        class_names: one for each label.
        most: the maximum number of images, at least 1.
        where: the source, quoted, for the message.

    Returns:
        Integers `[min(count, most)]`.

    Raises:
        InvalidInputError: when `most` is smaller than the number of classes.

    Examples:
        >>> choose_images(6, np.array([0, 0, 0, 0, 1, 1]), ["a", "b"], 4, "'x'").size
        4
    """
    if most < len(class_names):
        raise InvalidInputError(
            f"{where} has {len(class_names):,} classes, and each needs an image; got at most {most:,} images."
        )
    order = np.random.default_rng(_SEED).permutation(count)
    if labels is not None:
        of_class = labels[order]
        by_class = np.argsort(of_class, kind="stable")
        sizes = np.unique(of_class, return_counts=True)[1]
        turns = np.empty(count, np.int64)
        turns[by_class] = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = order[np.lexsort((of_class, turns))]
    return np.sort(order[:most])


def part_of(images: EncodedImages, most: int) -> EncodedImages:
    """Returns at most `most` of the images, selected by `choose_images`; all of them for 0."""
    if not 0 < most < images.count:
        return images
    chosen = choose_images(images.count, images.labels, images.class_names, most, images.where)
    return dataclasses.replace(
        images,
        count=len(chosen),
        total=images.count,
        name=lambda index: images.name(int(chosen[index])),
        read=lambda index: images.read(int(chosen[index])),
        labels=None if images.labels is None else images.labels[chosen],
        content=lambda: part_content(images.content(), chosen),
    )


def part_content(content: str, chosen: np.ndarray) -> str:
    """Returns a digest of the content of a whole set and the indices of the selected images."""
    return hashlib.sha256(content.encode() + chosen.astype("<i8").tobytes()).hexdigest()
