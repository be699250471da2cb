"""The scores of any run, whatever its task."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.scores import Score
from sagan_jax.runs.completion_scores import HoleScore, completion_scores_of_run
from sagan_jax.runs.load import CheckpointName, CompletionRun, open_any_run
from sagan_jax.runs.scores import scores_of_run
from sagan_jax.runtime.progress import ProgressCallback


def evaluate(
    workdir: str | Path,
    *protocols: str,
    holes: Sequence[str] = (),
    samples: int = 4,
    source: str = "",
    held_out: str = "",
    reference: str = "",
    checkpoint: CheckpointName = "newest",
    inception_weights: str = "",
    dinov2_weights: str = "",
    seed: int = 0,
    batch_size: int | None = None,
    out: Path | None = None,
    save_statistics: Path | None = None,
    keep_going: bool = False,
    cache: str | None = None,
    trust_checkpoint: bool = False,
    progress: ProgressCallback | None = None,
    on_score: Callable[[Score | HoleScore], None] | None = None,
) -> dict[str, float]:
    """Returns the scores of a run's checkpoint by name. Each is written to a result file.

    Args:
        workdir: the folder of a run with a checkpoint.
        protocols: names such as `fid50k_train`. Defaults to those that suit the training images and can be measured.
            For a run that completes images the default is none; its result also has the quality of the completions,
            such as `centre/psnr`.
        holes: for a run that completes images: the kinds of holes. Defaults to all.
        samples: for a run that completes images: number of completions of each image, to measure their diversity.
        source: where the training images are. Defaults to the source in the config.
        held_out: where the held-out images are. Defaults to those in the config.
        reference: for a run that generates images: an .npz file with `mu` and `sigma`, the mean and the covariance of
            features, in place of the training images. Scores are then written only if `out` is given.
        checkpoint: `newest`, `best` (the best score of a run that generates images), or the step of a checkpoint.
        inception_weights: file of the FID network's weights. Defaults to the config's, then to the usual place.
        dinov2_weights: file of DINOv2's weights. Defaults likewise.
        seed: seed of latents, classes and holes, in [0, 2**32).
        batch_size: images per forward pass. Defaults to 100, or 50 for a run that completes images.
        out: folder of the result files. Defaults to `scores/` in the workdir.
        save_statistics: for a run that generates images: an .npz file for the statistics of the real images, which
            `reference` takes.
        keep_going: when a named protocol cannot be measured, measure the others and raise the error afterwards.
        cache: as `Data.cache`. Defaults to the cache in the config.
        trust_checkpoint: as for `open_run`.
        progress: receives the progress of each pass over images.
        on_score: receives each score as soon as it is measured.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; raised before anything is measured.
        NonFiniteError: an image, a feature or a score is not finite.
        StorageError: a result file cannot be written; raised after everything was measured.
    """
    run = open_any_run(
        workdir,
        checkpoint=checkpoint,
        source=source,
        held_out=held_out,
        cache=cache,
        trust_checkpoint=trust_checkpoint,
    )
    shared: Any = {"inception_weights": inception_weights, "dinov2_weights": dinov2_weights}
    shared |= {"seed": seed, "out": out, "progress": progress, "keep_going": keep_going}
    scores: Iterator[Score | HoleScore]
    if isinstance(run, CompletionRun):
        if reference or save_statistics:
            raise InvalidInputError("--reference and --save-statistics are for a run that generates images.")
        size = 50 if batch_size is None else batch_size
        scores = completion_scores_of_run(run, protocols, holes=holes, samples=samples, batch_size=size, **shared)
    elif holes:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} generates images (sagan-jax sample); --holes need one that completes them."
        )
    else:
        size = 100 if batch_size is None else batch_size
        scores = scores_of_run(
            run, protocols, batch_size=size, reference=reference, save_statistics=save_statistics, **shared
        )
    found: dict[str, float] = {}
    for score in scores:
        found |= score.values
        if on_score:
            on_score(score)
    return found
