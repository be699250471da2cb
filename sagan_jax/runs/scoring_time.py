"""Estimates how long the feature networks of scores will take, before they begin."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from sagan_jax.evaluation.embeddings import Embedding, ImageBatch
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.protocols import Protocol

WORTH_SAYING = 1000
"""Least number of images for an estimate; fewer take only seconds."""


def say_minutes(evaluator: Evaluator, protocols: Sequence[Protocol], notify: Callable[[str], None]) -> None:
    """Reports how long each network with shared features will take, from the measured speed of one batch.

    The time to generate the images is not included. Nothing is reported for few images, or if the reference is only
    statistics.

    Args:
        evaluator: the evaluator that has the real images.
        protocols: the protocols that will be measured.
        notify: receives a line for each network.
    """
    train = evaluator.train
    if train is None:
        return
    for name in dict.fromkeys(protocol.embedding for protocol in protocols if protocol.shares_features):
        chosen = [protocol for protocol in protocols if protocol.embedding == name]
        real, scored = images_to_come(evaluator, chosen)
        if real + scored > WORTH_SAYING:
            speed = images_per_second(evaluator.references.embedding(chosen[0]), train)
            kept = " The features of the real images are cached for the next time." if real and evaluator.cache else ""
            notify(
                f"{name} features of {real:,} real and {scored:,} other images: about {_words(real + scored, speed)} "
                f"at {speed:.3g} images a second, plus the time to draw them.{kept}"
            )


def images_to_come(evaluator: Evaluator, protocols: Sequence[Protocol]) -> tuple[int, int]:
    """Returns how many real and how many other images will pass through a network whose features are shared.

    Args:
        evaluator: the evaluator that has the real images.
        protocols: protocols that use features of the same network.
    """
    of_reference: dict[bool, int] = {}
    scored: dict[tuple[object, ...], int] = {}
    for protocol in protocols:
        missing = evaluator.references.missing_features(protocol)
        of_reference[protocol.held_out] = max(of_reference.get(protocol.held_out, 0), missing)
        intra = protocol.kind == "intra_fd"
        count = len(evaluator.references.require_images(protocol).source) if intra else protocol.images
        apart = protocol.kind if intra or protocol.kind in ("is", "classifier_accuracy") else "shared"
        scored[(apart, count, protocol.statistics, protocol.raw)] = count
    return sum(of_reference.values()), sum(scored.values())


def images_per_second(embedding: Embedding, real: RealImages) -> float:
    """Returns the speed of a network, measured on a second batch so that compilation is excluded."""
    image = real.source[0][0]
    batch = ImageBatch(np.zeros((real.batch_size, *image.shape), np.uint8), np.zeros(real.batch_size, np.int32))
    list(embedding([batch]))
    start = time.perf_counter()
    list(embedding([batch]))
    return real.batch_size / (time.perf_counter() - start)


def _words(images: int, speed: float) -> str:
    minutes = images / speed / 60
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"
