"""`sagan-jax evaluate`: scores of a trained run, or of images against images."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure the images of a run against those it was trained on, or any images against any others.

    A score's name says how it is measured: fid50k_train, fid10k_validation, is50k, kid50k_train, prdc10k_train,
    intra_fid_train; with random features instead of a download fd5k_train_random, fd5k_test_random; with a classifier
    classifier_accuracy; of images that follow a rule (pairs, mirror) rule1k. Endings: _batch or _standing statistics,
    _raw weights.

    A run that completes images fills the holes of the --held-out photographs: PSNR, L1, SSIM and how different sampled
    completions are, by kind of hole; and its sampled completions are scored by the protocols that are named.
    """

    workdir: Path | None = None
    """the run's folder"""
    images: str = ""
    """or images to score: a folder, .zip, .parquet, .npz or .npy, or the name of a set"""
    reference: str = ""
    """the real images that those are compared with"""
    protocol: tuple[str, ...] = ()
    """the scores; fid50k_train where the FID network's weights are, else fd5k_train_random and classifier_accuracy, and
    rule1k where the images follow a rule"""
    holes: tuple[str, ...] = ()
    """for a run that completes images: the kinds of holes, such as centre, half_left, strokes; all unless given"""
    samples: int = 4
    """completions of each image whose difference is measured"""
    source: str = ""
    """where the images of the run's --source lie now, if they have moved"""
    held_out: str = ""
    """the images of `_validation` and `_test`, and photographs to complete, unless the run's config says them"""
    checkpoint: Literal["newest", "best"] = "newest"
    inception_weights: str = ""
    """the FID network's weights, .npz or .safetensors; those of `sagan-jax fetch-weights` unless given"""
    resolution: int = 0
    """of both sets, for --images: the shorter side of the first image unless given"""
    seed: int = 0
    batch_size: int = 100
    out: Path | None = None
    """folder for the result files; scores/ in the workdir unless given"""
    cache: str = "auto"
    """folder for decoded images, and beside it for what was measured of real ones; "" for none"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax evaluate")
    if bool(parsed.workdir) == bool(parsed.images):
        raise InvalidInputError("evaluate needs either --workdir, a run, or --images and --reference.")
    if bool(parsed.images) != bool(parsed.reference):
        raise InvalidInputError("--images and --reference go together: what is scored, and the real images.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.samples < 0:
        raise InvalidInputError(f"--samples needs to be at least 0; got {parsed.samples}.")
    if parsed.batch_size < 1:
        raise InvalidInputError(f"--batch-size needs to be at least 1; got {parsed.batch_size}.")
    from sagan_jax.cli import scoring
    from sagan_jax.cli.checks import require_completion

    shared = {name: getattr(parsed, name) for name in ("inception_weights", "seed", "batch_size", "out", "cache")}
    with scoring.ScoreProgress() as progress:
        shared["watcher"] = progress
        if parsed.workdir:
            of_run: dict[str, Any] = {"source": parsed.source, "held_out": parsed.held_out}
            if parsed.holes or completes_images(parsed.workdir):
                require_completion(parsed.workdir)
                of_run |= {"holes": parsed.holes, "samples": parsed.samples}
                if parsed.checkpoint != "newest":
                    raise InvalidInputError(
                        "--checkpoint best is for a run that generates images; this one has no best."
                    )
            else:
                of_run["checkpoint"] = parsed.checkpoint
            scores = scores_of_any_run(parsed.workdir, parsed.protocol, **of_run, **shared)
        else:
            sets = parsed.images, parsed.reference
            scores = scoring.scores_of_images(*sets, parsed.protocol, resolution=parsed.resolution, **shared)
        for score in scores:
            print(score, flush=True)


def completes_images(workdir: Path) -> bool:
    """Tells whether the run in `workdir`, if there is one, is one that completes images."""
    from sagan_jax.cli.checks import saved_experiment
    from sagan_jax.config import CompletionExperiment

    return isinstance(saved_experiment(workdir), CompletionExperiment)


def scores_of_any_run(workdir: Path, protocols: Sequence[str], **options: Any) -> Iterator[Any]:
    """Returns the scores of a run's checkpoint, whatever its task.

    Args:
        workdir: of a run that has saved.
        protocols: their names.
        options: as for `scores_of_run`, or for `completion_scores_of_run` of a run that completes images.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol; with the first score, before it is measured.
    """
    from sagan_jax.cli.completion_scoring import completion_scores_of_run
    from sagan_jax.cli.scoring import scores_of_run

    return (completion_scores_of_run if completes_images(workdir) else scores_of_run)(workdir, protocols, **options)


def evaluate(workdir: str | Path, *protocols: str, **options: Any) -> dict[str, float]:
    """Returns the scores of a run's checkpoint by name, each written to a result file: `sagan-jax evaluate` in Python.

    Args:
        workdir: of a run that has saved.
        protocols: names such as `fid50k_train`; the usual ones unless given. Of a run that completes images none unless
            given, and the likeness of its completions besides, such as `centre/psnr`.
        options: as for `scores_of_any_run`.

    Raises:
        InvalidInputError: something is missing, or contradicts a protocol.
    """
    found: dict[str, float] = {}
    for score in scores_of_any_run(Path(workdir), protocols, **options):
        found |= score.values
    return found
