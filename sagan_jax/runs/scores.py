"""Scores of a run's checkpoint, and of images against images."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sagan_jax.config import Experiment
from sagan_jax.data import ImageSource, natural_resolution, open_source
from sagan_jax.data.cache import cache_folder
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, inception_embedding
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.image_sets import GeneratedImages, RealImages
from sagan_jax.evaluation.inception import find_weights
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runs.build import open_labelled_images
from sagan_jax.runs.load import GenerationRun
from sagan_jax.runtime.environment import reproducibility_info
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.progress import NullProgress, ProgressCallback


def scores_of_run(
    run: GenerationRun,
    names: Sequence[str] = (),
    *,
    inception_weights: str = "",
    seed: int = 0,
    batch_size: int = 100,
    out: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[Score]:
    """Yields the scores of a run's checkpoint, each after it was written to a result file.

    Args:
        run: an opened run that has saved.
        names: of protocols. Defaults to `default_protocols`.
        inception_weights: file of the FID network's weights. Defaults to the config's, then to the usual place.
        seed: of latents and classes.
        batch_size: images a pass. With `_batch` statistics it is part of the score, and always 100.
        out: folder of the result files. Defaults to `scores/` in the workdir.
        progress: receives the progress.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; raised before anything is measured.
    """
    experiment = run.experiment
    if inception_weights:
        evaluation = dataclasses.replace(experiment.evaluation, inception_weights=inception_weights)
        experiment = dataclasses.replace(experiment, evaluation=evaluation)
    protocols: Sequence[Protocol] = [parse_protocol(name) for name in names]
    load = functools.cache(lambda raw: run.generator(raw=raw))
    load(False)  # a missing checkpoint is reported before the images are read
    evaluator, protocols = evaluator_for_run(experiment, run.images(), protocols, progress=progress)
    for protocol in protocols:
        evaluator.check(protocol, experiment.networks.num_classes)
    for protocol in protocols:
        generator = generator_for(protocol, load)
        images = GeneratedImages(generator, 100 if protocol.statistics == "batch" else batch_size)
        score = evaluator.score(protocol, images, seed=seed)
        write_result(
            out / f"{protocol.name}.json" if out else result_path(run.workdir, protocol, generator.step), score
        )
        yield score


def scores_of_images(
    images: str,
    reference: str,
    names: Sequence[str] = (),
    *,
    inception_weights: str = "",
    resolution: int = 0,
    max_images: int = 0,
    seed: int = 0,
    batch_size: int = 100,
    out: Path | None = None,
    cache: str = "auto",
    progress: ProgressCallback | None = None,
) -> Iterator[Score]:
    """Yields the scores of images against reference images. Each is written when `out` names a folder.

    Args:
        images: the images to score, as `sagan_jax.data.open_source` takes them.
        reference: the real images, likewise; they serve as `_train`, `_validation` and `_test` alike.
        names: of protocols. Defaults to `default_protocols`.
        inception_weights: file of the FID network's weights. Defaults to the usual place.
        resolution: both sets are cropped and resized to it. Defaults to the shorter side of the first of `images`.
        max_images: as for `sagan_jax.data.open_source`, of both sets.
        seed: decides which images are taken where there are more than the protocol needs.
        batch_size: images a pass.
        out: folder of the result files. Defaults to none: nothing is written.
        cache: as `Data.cache`.
        progress: receives the progress.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; raised before anything is measured.
    """
    protocols: Sequence[Protocol] = [parse_protocol(name) for name in names]
    for protocol in protocols:
        if protocol.statistics != "stored" or protocol.raw:
            raise InvalidInputError(f"{protocol.name} says how a generator is used; images have none.")
    resolution = resolution or natural_resolution(images)
    scored, real = (
        open_source(path, resolution=resolution, cache=cache, max_images=max_images) for path in (images, reference)
    )
    evaluator, protocols = evaluator_for(
        RealImages(real, batch_size),
        RealImages(real, batch_size),
        protocols,
        inception_weights=inception_weights,
        cache=cache,
        progress=progress,
    )
    for protocol in protocols:
        evaluator.check(protocol, scored.num_classes)
    for protocol in protocols:
        score = evaluator.score(protocol, RealImages(scored, batch_size), seed=seed)
        score.details["resolution"] = resolution
        if out:
            write_result(out / f"{protocol.name}.json", score)
        yield score


def default_protocols(source: ImageSource, inception: Embedding | None) -> tuple[str, ...]:
    """Returns the protocols to measure by default: FID where its network is there, else what needs no download."""
    if source.rule:
        return ("rule1k",)
    if inception:
        return ("fid50k_train",)
    return ("fd5k_train_random", *(("classifier_accuracy",) if source.num_classes > 1 else ()))


def generator_for(protocol: Protocol, load: Callable[[bool], TrainedGenerator]) -> TrainedGenerator:
    """Returns the generator with the weights and the batch-norm statistics that a protocol names.

    Args:
        protocol: the protocol.
        load: `load(raw)` returns the generator, with the weights as trained when `raw` is True.
    """
    generator = load(protocol.raw)
    if protocol.statistics == "standing":
        return generator.with_standing_statistics()
    return generator.with_batch_statistics() if protocol.statistics == "batch" else generator


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
    needs_inception = not protocols or any(protocol.embedding == "inception" for protocol in protocols)
    inception = find_inception(inception_weights) if needs_inception else None
    protocols = protocols or [parse_protocol(name) for name in default_protocols(train.source, inception)]
    folder = cache_folder(cache, "references")
    return Evaluator(train, held_out, inception, folder, progress or NullProgress()), protocols


def find_inception(path: str) -> Embedding | None:
    """Returns the FID network with the named weights, else with those in the usual place, else None."""
    found = find_weights(path or None)
    return inception_embedding(found) if found else None


def result_path(workdir: Path, protocol: Protocol, step: int) -> Path:
    """Returns where the score of a run at a step is written."""
    return workdir / "scores" / f"{protocol.name}-{step:08d}.json"


def write_result(path: Path, score: Score) -> None:
    """Writes a result file, whole or not at all: values, settings of the protocol, and what they were measured on."""
    write_atomically(path, (json.dumps(_result(score), indent=2) + "\n").encode())


def _result(score: Score) -> dict[str, Any]:
    environment = reproducibility_info()
    return {
        "values": score.values,
        "protocol": score.protocol.settings(),
        **score.details,
        "versions": environment["versions"],
        "devices": f"{environment['device_count']} {environment['device_kind']}",
    }
