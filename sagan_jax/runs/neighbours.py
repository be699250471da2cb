"""The training images nearest to samples of a run, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, lite0_embedding, random_embedding
from sagan_jax.evaluation.lite0 import is_installed
from sagan_jax.evaluation.neighbours import NeighbourReport, check_training_images, nearest_training_images
from sagan_jax.runs.class_names import class_numbers
from sagan_jax.runs.evaluators import find_dinov2, find_inception
from sagan_jax.runs.load import CheckpointName, open_run
from sagan_jax.runtime.image_files import save_png
from sagan_jax.runtime.progress import ProgressCallback
from sagan_jax.views.figures import neighbour_sheet

Features = Literal["auto", "inception", "lite0", "dinov2", "random"]


def write_neighbours(
    workdir: Path,
    out: Path,
    *,
    num_images: int = 8,
    nearest: int = 5,
    classes: Sequence[int | str] = (),
    source: str = "",
    features: Features = "auto",
    inception_weights: str = "",
    dinov2_weights: str = "",
    seed: int = 0,
    checkpoint: CheckpointName = "newest",
    trust_checkpoint: bool = False,
    progress: ProgressCallback,
) -> tuple[NeighbourReport, NeighbourReport]:
    """Writes samples beside their nearest training images, and returns the neighbours in pixels and in features.

    Args:
        workdir: the folder of a run with a checkpoint.
        out: a .png file: a row for each sample.
        num_images: number of samples.
        nearest: number of training images beside each sample, in pixels and in features.
        classes: numbers or names of the classes of the samples, in turn. Defaults to all.
        source: where the training images are. Defaults to the source in the config.
        features: the network that gives the features. `auto` takes the FID network if its weights are found, else
            EfficientNet-Lite0 if it is installed, else random features.
        inception_weights: file of the FID network's weights. Defaults to the config's, then to the usual place.
        dinov2_weights: file of DINOv2's weights. Defaults likewise.
        seed: seed of the latents.
        checkpoint: `newest`, `best` (the best score), or the step of a checkpoint.
        trust_checkpoint: as for `open_run`.
        progress: receives the progress.

    Raises:
        InvalidInputError: there is no run, no checkpoint or no such class, there are too few training images, or the
            weights of the features are missing.
        NonFiniteError: an image is not finite.
        StorageError: a file cannot be written.
    """
    run = open_run(workdir, checkpoint=checkpoint, source=source, trust_checkpoint=trust_checkpoint)
    named = run.experiment.evaluation
    embedding = _embedding(
        features, inception_weights or named.inception_weights, dinov2_weights or named.dinov2_weights
    )
    generator, images = run.generator(), run.images()
    check_training_images(images, nearest)
    samples = generator.generate(num_images, labels=class_numbers(run, classes), seed=seed)
    reports = nearest_training_images(samples.images, images, embedding, count=nearest, progress=progress)
    real = [[[images[int(index)][0] for index in row] for row in report.nearest.indices] for report in reports]
    save_png(out, neighbour_sheet(samples.images, real))
    return reports


def _embedding(features: Features, inception_weights: str, dinov2_weights: str) -> Embedding:
    """Returns the network that gives the features."""
    if features == "lite0":
        return lite0_embedding()
    if features == "dinov2":
        return _required(find_dinov2(dinov2_weights), "dinov2", "DINOv2", "fetch-weights dinov2")
    if features == "random":
        return random_embedding()
    found = find_inception(inception_weights)
    if features == "inception":
        return _required(found, "inception", "the FID network", "fetch-weights")
    return found or (lite0_embedding() if is_installed() else random_embedding())


def _required(found: Embedding | None, features: Features, network: str, command: str) -> Embedding:
    if found is None:
        raise InvalidInputError(
            f"--features {features} needs the weights of {network}, which were not found: run sagan-jax {command}, or "
            f"name a file with --{features}-weights."
        )
    return found
