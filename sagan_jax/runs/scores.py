"""Scores of a run's checkpoint, and of images against images."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sagan_jax.data import natural_resolution, open_source
from sagan_jax.data.columns import ColumnNames
from sagan_jax.data.sources import fitting_columns
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.image_sets import GeneratedImages, RealImages
from sagan_jax.evaluation.protocols import Protocol, Statistics, parse_protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runs.evaluators import evaluator_of_reference, evaluator_of_run
from sagan_jax.runs.load import GenerationRun
from sagan_jax.runs.protocol_choice import choose_protocols, default_protocols_of_images, print_to_stderr
from sagan_jax.runs.reference_statistics import save_reference_statistics
from sagan_jax.runs.result_files import ResultFiles, result_content, result_path
from sagan_jax.runs.scoring_time import say_minutes
from sagan_jax.runtime.progress import ProgressCallback


def scores_of_run(
    run: GenerationRun,
    names: Sequence[str] = (),
    *,
    reference: str = "",
    inception_weights: str = "",
    dinov2_weights: str = "",
    seed: int = 0,
    batch_size: int = 100,
    out: Path | None = None,
    save_statistics: Path | None = None,
    keep_going: bool = False,
    notify: Callable[[str], None] = print_to_stderr,
    progress: ProgressCallback | None = None,
) -> Iterator[Score]:
    """Yields the scores of a run's checkpoint. Each is written to a result file.

    Args:
        run: an opened run with a checkpoint.
        names: names of protocols. Defaults to `default_protocols`.
        reference: an .npz file with statistics of features, in place of the run's images; see `read_statistics`. The
            scores are then written only if `out` names a folder.
        inception_weights: file of the FID network's weights. Defaults to the config's, then to the usual place.
        dinov2_weights: file of DINOv2's weights. Defaults likewise.
        seed: seed of latents and classes.
        batch_size: images per forward pass. With `_batch` statistics it is part of the score, and always 100.
        out: folder of the result files. Defaults to `scores/` in the workdir.
        save_statistics: an .npz file for the statistics of the real images; see `write_statistics`.
        keep_going: when a named protocol cannot be measured, measure the others and raise the error afterwards.
        notify: receives a line for each protocol that is left out. Defaults to printing on stderr.
        progress: receives the progress.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; raised before anything is measured.
        NonFiniteError: an image, a feature or a score is not finite.
        StorageError: a result file cannot be written; raised after all scores.
    """
    protocols = [parse_protocol(name) for name in names]
    load = functools.cache(lambda raw: run.generator(raw=raw))
    load(False)  # a missing checkpoint is reported before the images are read
    evaluator, protocols = evaluator_of_run(
        run,
        protocols,
        reference=reference,
        inception_weights=inception_weights,
        dinov2_weights=dinov2_weights,
        progress=progress,
    )
    choice = choose_protocols(
        protocols,
        lambda protocol: evaluator.check_images(protocol, GeneratedImages(load(False))),
        named=bool(names),
        keep_going=keep_going,
        notify=notify,
    )
    if save_statistics:
        save_reference_statistics(evaluator, choice.possible, save_statistics, notify)
    say_minutes(evaluator, choice.possible, notify)
    files, generator_of = ResultFiles(), generators(load)
    for protocol in choice.possible:
        score = score_of_generator(evaluator, protocol, generator_of, seed=seed, batch_size=batch_size)
        if out:
            files.write(out / f"{score.protocol.name}.json", result_content(score))
        elif not reference:
            files.write(result_path(run.workdir, score.protocol, load(False).step), result_content(score))
        yield score
    files.raise_refused()
    choice.raise_refused()


def score_of_generator(
    evaluator: Evaluator,
    protocol: Protocol,
    generator_of: Callable[[Protocol], TrainedGenerator],
    *,
    seed: int,
    batch_size: int,
) -> Score:
    """Returns a score. `generators` returns `generator_of`; `scores_of_run` explains the other arguments."""
    images = GeneratedImages(generator_of(protocol), 100 if protocol.statistics == "batch" else batch_size)
    return evaluator.score(protocol, images, seed=seed)


def scores_of_images(
    images: str,
    reference: str,
    names: Sequence[str] = (),
    *,
    inception_weights: str = "",
    dinov2_weights: str = "",
    resolution: int = 0,
    max_images: int = 0,
    label_column: str = "",
    image_column: str = "",
    seed: int = 0,
    batch_size: int = 100,
    out: Path | None = None,
    save_statistics: Path | None = None,
    cache: str = "auto",
    keep_going: bool = False,
    notify: Callable[[str], None] = print_to_stderr,
    progress: ProgressCallback | None = None,
) -> Iterator[Score]:
    """Yields the scores of images against reference images. Each is written when `out` names a folder.

    Args:
        images: the images to score, as `sagan_jax.data.open_source` takes them. Classes may be absent from them.
        reference: the real images, likewise. They serve as `_train`, `_validation` and `_test`. Or an .npz file with
            statistics of features, for Fréchet distances; see `read_statistics`.
        names: names of protocols. Defaults to `default_protocols_of_images`.
        inception_weights: file of the FID network's weights. Defaults to the usual place.
        dinov2_weights: file of DINOv2's weights. Defaults to the usual place.
        resolution: the side, in pixels, to which both sets are cropped and resized. Defaults to the shorter side of the
            first of `images`.
        max_images: as for `sagan_jax.data.open_source`, of both sets.
        label_column: as for `sagan_jax.data.open_source`, of each set that has columns.
        image_column: as for `label_column`.
        seed: selects the images if there are more than the protocol needs.
        batch_size: images per forward pass.
        out: folder of the result files. Defaults to none: nothing is written.
        save_statistics: as for `scores_of_run`.
        cache: as `Data.cache`.
        keep_going: as for `scores_of_run`.
        notify: as for `scores_of_run`.
        progress: receives the progress.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; raised before anything is measured.
        NonFiniteError: an image, a feature or a score is not finite.
        StorageError: a result file cannot be written; raised after all scores.
    """
    protocols = [parse_protocol(name) for name in names]
    columns: ColumnNames = {"label_column": label_column, "image_column": image_column}
    of_images = fitting_columns(images, **columns)
    # If the images have no columns, the names refer to the columns of the reference.
    of_reference = fitting_columns(reference, **columns) if any(of_images.values()) else columns
    resolution = resolution or natural_resolution(images, **of_images)
    opened = open_source(
        images, resolution=resolution, cache=cache, max_images=max_images, **of_images, absent_classes=True
    )
    scored = RealImages(opened, batch_size)
    evaluator = evaluator_of_reference(
        reference,
        protocols,
        resolution,
        batch_size,
        inception_weights=inception_weights,
        dinov2_weights=dinov2_weights,
        cache=cache,
        max_images=max_images,
        **of_reference,
        progress=progress,
    )
    real = evaluator.statistics or evaluator.references.require_train().source
    defaults = default_protocols_of_images(scored.source, real, evaluator.inception)

    def check(protocol: Protocol) -> None:
        if protocol.statistics != "stored" or protocol.raw:
            raise InvalidInputError(f"{protocol.name} names a way to run a generator; --images has no generator.")
        evaluator.check_images(protocol, scored)

    choice = choose_protocols(
        protocols or [parse_protocol(name) for name in defaults],
        check,
        named=bool(names),
        keep_going=keep_going,
        notify=notify,
    )
    _say_absent_classes(scored, evaluator.train, notify)
    if save_statistics:
        save_reference_statistics(evaluator, choice.possible, save_statistics, notify)
    say_minutes(evaluator, choice.possible, notify)
    files = ResultFiles()
    for protocol in choice.possible:
        score = evaluator.score(protocol, scored, seed=seed)
        score.details["resolution"] = resolution
        if out:
            files.write(out / f"{score.protocol.name}.json", result_content(score))
        yield score
    files.raise_refused()
    choice.raise_refused()


def _say_absent_classes(scored: RealImages, real: RealImages | None, notify: Callable[[str], None]) -> None:
    if real and scored.classes and len(scored.classes) < real.num_classes:
        notify(
            f"{scored.source.description}: images of {len(scored.classes)} of the {real.num_classes} classes. Scores "
            f"by class are over these; distances compare with the real images of all."
        )


def generators(load: Callable[[bool], TrainedGenerator]) -> Callable[[Protocol], TrainedGenerator]:
    """Returns a function from a protocol to the generator with the protocol's weights and batch-norm statistics.

    Each generator is made once, so that protocols of the same generator share the features of its images.

    Args:
        load: `load(raw)` returns the generator, with the weights as trained when `raw` is True.
    """
    load = functools.cache(load)

    @functools.cache
    def made(raw: bool, statistics: Statistics) -> TrainedGenerator:
        generator = load(raw)
        if statistics == "standing":
            return generator.with_standing_statistics()
        return generator.with_batch_statistics() if statistics == "batch" else generator

    return lambda protocol: made(protocol.raw, protocol.statistics)
