"""Evaluators for a run, for images, and for published statistics of images."""

import dataclasses
from collections.abc import Sequence

from sagan_jax.config import Experiment
from sagan_jax.data import ImageSource, open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, inception_embedding
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
    progress: ProgressCallback | None = None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns an evaluator for a run, and the protocols; the arguments are those of `scores_of_run`."""
    experiment = run.experiment
    weights = inception_weights or experiment.evaluation.inception_weights
    if reference:
        statistics = read_statistics(_require_statistics(reference))
        inception = find_inception(weights) if _needs_inception(protocols) else None
        evaluator = Evaluator(None, None, inception, None, progress or NullProgress(), statistics)
        return evaluator, protocols or [parse_protocol(name) for name in default_protocols_of_statistics(statistics)]
    evaluation = dataclasses.replace(experiment.evaluation, inception_weights=weights)
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
    cache: str,
    max_images: int = 0,
    progress: ProgressCallback | None,
) -> Evaluator:
    """Returns an evaluator whose real images, or whose statistics of them, are those of a path."""
    inception = find_inception(inception_weights) if _needs_inception(protocols) else None
    statistics = read_statistics(reference) if is_statistics_file(reference) else None
    real = None
    if statistics is None or holds_images(reference):
        source = open_source(reference, resolution=resolution, cache=cache, max_images=max_images, absent_classes=True)
        real = RealImages(source, batch_size)
    folder = cache_folder(cache, "references")
    return Evaluator(real, real, inception, folder, progress or NullProgress(), statistics)


def evaluator_for_run(
    experiment: Experiment,
    source: ImageSource,
    protocols: Sequence[Protocol],
    *,
    progress: ProgressCallback | None = None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns an evaluator for the images of a run, with what the protocols need and no more; and the protocols.

    Args:
        experiment: of the run.
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
        cache=experiment.data.cache,
        progress=progress,
    )


def evaluator_for(
    train: RealImages,
    held_out: RealImages | None,
    protocols: Sequence[Protocol],
    *,
    inception_weights: str,
    cache: str,
    progress: ProgressCallback | None,
) -> tuple[Evaluator, Sequence[Protocol]]:
    """Returns an evaluator with what the protocols need and no more; and the protocols.

    Args:
        train: the training images.
        held_out: images that were not trained on, or None.
        protocols: defaults to `default_protocols` when empty.
        inception_weights: file of the FID network's weights. Defaults to the usual place when empty.
        cache: as `Data.cache`.
        progress: receives the progress.
    """
    inception = find_inception(inception_weights) if _needs_inception(protocols) else None
    protocols = protocols or [parse_protocol(name) for name in default_protocols(train.source, inception)]
    folder = cache_folder(cache, "references")
    return Evaluator(train, held_out, inception, folder, progress or NullProgress()), protocols


def _needs_inception(protocols: Sequence[Protocol]) -> bool:
    return not protocols or any(protocol.embedding == "inception" for protocol in protocols)


def find_inception(path: str) -> Embedding | None:
    """Returns the FID network with the named weights, else with those in the usual place, else None."""
    found = find_weights(path or None)
    return inception_embedding(found) if found else None
