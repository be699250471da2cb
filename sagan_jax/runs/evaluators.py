"""Evaluators for a run, for images, and for published statistics of images."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from sagan_jax.config import Experiment
from sagan_jax.data import ImageSource, open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import dinov2
from sagan_jax.evaluation.embeddings import Embedding, dinov2_embedding, inception_embedding
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.inception import find_weights
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.evaluation.statistics_files import holds_images, is_statistics_file, read_statistics
from sagan_jax.runs.build import open_labelled_images
from sagan_jax.runs.load import GenerationRun
from sagan_jax.runs.protocol_choice import default_protocols, default_protocols_of_statistics
from sagan_jax.runtime.cache_folders import cache_folder
from sagan_jax.runtime.progress import NullProgress, ProgressCallback


def evaluator_of_run(
    run: GenerationRun,
    protocols: Sequence[Protocol],
    *,
    reference: str = "",
    inception_weights: str = "",
    dinov2_weights: str = "",
    progress: ProgressCallback | None = None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns an evaluator for a run, and the protocols. The arguments are those of `scores_of_run`."""
    experiment = run.experiment
    weights = {
        "inception_weights": inception_weights or experiment.evaluation.inception_weights,
        "dinov2_weights": dinov2_weights or experiment.evaluation.dinov2_weights,
    }
    if reference:
        statistics = read_statistics(_require_statistics(reference))
        protocols = protocols or [parse_protocol(name) for name in default_protocols_of_statistics(statistics)]
        networks = _networks(protocols, **weights)
        evaluator = Evaluator(None, progress=progress or NullProgress(), statistics=statistics, **networks)
        return evaluator, protocols
    evaluation = dataclasses.replace(experiment.evaluation, **weights)
    experiment = dataclasses.replace(experiment, evaluation=evaluation)
    return evaluator_for_run(experiment, run.images(), protocols, progress=progress)


def _require_statistics(reference: str) -> str:
    if not is_statistics_file(reference):
        raise InvalidInputError(
            f"With --workdir, --reference needs an .npz file with `mu` and `sigma`; got {reference!r}. Images are "
            f"named with --source."
        )
    return reference


def evaluator_of_reference(
    reference: str,
    protocols: Sequence[Protocol],
    resolution: int,
    batch_size: int,
    *,
    inception_weights: str,
    dinov2_weights: str,
    cache: str,
    max_images: int = 0,
    label_column: str = "",
    image_column: str = "",
    progress: ProgressCallback | None,
) -> Evaluator:
    """Returns an evaluator whose real images, or their statistics, are read from the path `reference`."""
    statistics = read_statistics(reference) if is_statistics_file(reference) else None
    if statistics and not protocols:
        protocols = [parse_protocol(name) for name in default_protocols_of_statistics(statistics)]
    networks = _networks(protocols, inception_weights=inception_weights, dinov2_weights=dinov2_weights)
    real = None
    if statistics is None or holds_images(reference):
        source = open_source(
            reference,
            resolution=resolution,
            cache=cache,
            max_images=max_images,
            label_column=label_column,
            image_column=image_column,
            absent_classes=True,
        )
        real = RealImages(source, batch_size)
    folder = cache_folder(cache, "references")
    return Evaluator(real, real, cache=folder, progress=progress or NullProgress(), statistics=statistics, **networks)


def evaluator_for_run(
    experiment: Experiment,
    source: ImageSource,
    protocols: Sequence[Protocol],
    *,
    progress: ProgressCallback | None = None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns an evaluator for the images of a run, with only what the protocols need; and the protocols.

    Args:
        experiment: the config of the run.
        source: the training images.
        protocols: defaults to `default_protocols` when empty.
        progress: receives the progress.
    """
    held_out = None
    if any(protocol.held_out for protocol in protocols) and experiment.data.held_out:
        held_out = RealImages(open_labelled_images(experiment, held_out=True))
    return evaluator_for(
        RealImages(source),
        held_out,
        protocols,
        inception_weights=experiment.evaluation.inception_weights,
        dinov2_weights=experiment.evaluation.dinov2_weights,
        cache=experiment.data.cache,
        progress=progress,
    )


def evaluator_for(
    train: RealImages,
    held_out: RealImages | None,
    protocols: Sequence[Protocol],
    *,
    inception_weights: str,
    dinov2_weights: str,
    cache: str,
    progress: ProgressCallback | None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns an evaluator with only what the protocols need; and the protocols.

    Args:
        train: the training images.
        held_out: images that were not trained on, or None.
        protocols: defaults to `default_protocols` when empty.
        inception_weights: file of the FID network's weights. Defaults to the usual place when empty.
        dinov2_weights: file of DINOv2's weights. Defaults to the usual place when empty.
        cache: as `Data.cache`.
        progress: receives the progress.
    """
    networks = _networks(protocols, inception_weights=inception_weights, dinov2_weights=dinov2_weights)
    protocols = protocols or [parse_protocol(name) for name in default_protocols(train.source, networks["inception"])]
    folder = cache_folder(cache, "references")
    return Evaluator(train, held_out, cache=folder, progress=progress or NullProgress(), **networks), protocols


class _Networks(TypedDict):
    inception: Embedding | None
    dinov2: Embedding | None


def _networks(protocols: Sequence[Protocol], *, inception_weights: str, dinov2_weights: str) -> _Networks:
    """Returns the networks that the protocols need and that are read from files. Without protocols: the FID network."""
    needed = {protocol.embedding for protocol in protocols} or {"inception"}
    inception = find_inception(inception_weights) if "inception" in needed else None
    return {"inception": inception, "dinov2": find_dinov2(dinov2_weights) if "dinov2" in needed else None}


def find_inception(path: str) -> Embedding | None:
    """Returns the FID network with the named weights, else with those in the usual place, else None."""
    found = find_weights(path or None)
    return inception_embedding(found) if found else None


def find_dinov2(path: str) -> Embedding | None:
    """Returns DINOv2 with the named weights, else with those in the usual place, else None."""
    found = dinov2.find_weights(path or None)
    return dinov2_embedding(found) if found else None
