"""`sagan-jax evaluate`: scores of a trained run, or of images against images."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Score the images of a run against its training images, or any images against others.

    The name of a score is its protocol: fid50k_train, fid10k_validation, is50k, kid50k_train, prdc10k_train,
    intra_fid_train. Random features need no download: fd5k_train_random, fd5k_test_random. A classifier gives
    classifier_accuracy. Images that follow a rule (pairs, mirror) give rule1k. The endings _batch and _standing name
    the batch-norm statistics; _raw names the weights as trained.

    A run that completes images fills holes of the --held-out photographs. It is scored by PSNR, L1, SSIM and the
    diversity of sampled completions, for each kind of hole. Protocols score its sampled completions.
    """

    workdir: Path | None = None
    """the folder of the run"""
    images: str = ""
    """or images to score: a folder, .zip, .parquet, .npz or .npy, or the name of a synthetic set"""
    reference: str = ""
    """the real images to compare --images with"""
    protocol: tuple[str, ...] = ()
    """the scores. Defaults to rule1k for images that follow a rule, else to fid50k_train where the FID network's
    weights are, else to fd5k_train_random and classifier_accuracy"""
    holes: tuple[str, ...] = ()
    """for a run that completes images: the kinds of holes, such as centre, half_left, strokes. Defaults to all"""
    samples: int = 4
    """for a run that completes images: completions of each image whose diversity is measured"""
    source: str = ""
    """where the training images are now, if they were moved"""
    held_out: str = ""
    """images for `_validation` and `_test`, or photographs to complete. Defaults to what the run's config says"""
    checkpoint: Literal["newest", "best"] = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained"""
    inception_weights: str = ""
    """weights of the FID network, .npz or .safetensors. Defaults to those of `sagan-jax fetch-weights`"""
    resolution: int = 0
    """of both sets, for --images. Defaults to the shorter side of the first image"""
    max_images: int = 0
    """use at most so many of --images and of --reference, of all classes equally; 0 for all"""
    seed: int = 0
    """of the latents, and of subsets of images"""
    batch_size: int = 100
    """images that are drawn and measured at once; fewer take less memory"""
    out: Path | None = None
    """folder for the result files. Defaults to scores/ in the workdir"""
    cache: str = "auto"
    """folder for decoded images; the statistics of real images are kept beside it. "" for none"""
    trust_checkpoint: bool = False
    """where config.json was changed: use the config that the checkpoint was saved with"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax evaluate")
    if bool(parsed.workdir) == bool(parsed.images):
        raise InvalidInputError("evaluate needs either --workdir, a run, or --images and --reference.")
    if bool(parsed.images) != bool(parsed.reference):
        raise InvalidInputError("--images and --reference go together: what is scored, and the real images.")
    if parsed.workdir and parsed.max_images:
        raise InvalidInputError("--max-images goes with --images; a run says in its config how many it trains on.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.samples < 0:
        raise InvalidInputError(f"--samples needs to be at least 0; got {parsed.samples}.")
    if parsed.batch_size < 1:
        raise InvalidInputError(f"--batch-size needs to be at least 1; got {parsed.batch_size}.")
    announce("scoring")
    from sagan_jax.cli.progress import ScoreProgress
    from sagan_jax.runs.evaluate import evaluate
    from sagan_jax.runs.scores import scores_of_images

    def show(score: object) -> None:
        print(score, flush=True)

    with ScoreProgress() as progress:
        shared: dict[str, Any] = {
            name: getattr(parsed, name) for name in ("inception_weights", "seed", "batch_size", "out", "cache")
        }
        if parsed.workdir:
            names = ("holes", "samples", "source", "held_out", "checkpoint", "trust_checkpoint")
            of_run = {name: getattr(parsed, name) for name in names}
            evaluate(parsed.workdir, *parsed.protocol, **of_run, **shared, progress=progress, on_score=show)
            return
        for score in scores_of_images(
            parsed.images,
            parsed.reference,
            parsed.protocol,
            resolution=parsed.resolution,
            max_images=parsed.max_images,
            **shared,
            progress=progress,
        ):
            show(score)
