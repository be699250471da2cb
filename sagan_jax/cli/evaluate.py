"""`sagan-jax evaluate`: scores of a trained run, or of images against images, each named by its protocol."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure the images of a run against those it was trained on, or any images against any others.

    A score's name says how it is measured: fid50k_train, fid10k_validation, is50k, kid50k_train, prdc10k_train,
    intra_fid_train; with random features instead of a download fd5k_train_random, fd5k_test_random; with a classifier
    classifier_accuracy. Endings: _batch or _standing statistics, _raw weights.
    """

    workdir: Path | None = None
    """the run's folder"""
    images: str = ""
    """or images to score: a folder, .zip, .parquet, .npz or .npy"""
    reference: str = ""
    """the real images that those are compared with"""
    protocol: tuple[str, ...] = ()
    """the scores; fid50k_train where the FID network's weights are, else fd5k_train_random and classifier_accuracy"""
    source: str = ""
    """where the images of the run's --source lie now, if they have moved"""
    held_out: str = ""
    """the images of `_validation` and `_test`, unless the run's config says them"""
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
    if parsed.batch_size < 1:
        raise InvalidInputError(f"--batch-size needs to be at least 1; got {parsed.batch_size}.")
    from sagan_jax.cli import scoring

    with scoring.ProgressLines() as progress:
        scores = (
            scoring.scores_of_run(
                parsed.workdir,
                parsed.protocol,
                source=parsed.source,
                held_out=parsed.held_out,
                checkpoint=parsed.checkpoint,
                inception_weights=parsed.inception_weights,
                seed=parsed.seed,
                batch_size=parsed.batch_size,
                out=parsed.out,
                cache=parsed.cache,
                watcher=progress,
            )
            if parsed.workdir
            else scoring.scores_of_images(
                parsed.images,
                parsed.reference,
                parsed.protocol,
                inception_weights=parsed.inception_weights,
                resolution=parsed.resolution,
                seed=parsed.seed,
                batch_size=parsed.batch_size,
                out=parsed.out,
                cache=parsed.cache,
                watcher=progress,
            )
        )
        for score in scores:
            print(scoring.line(score), flush=True)
