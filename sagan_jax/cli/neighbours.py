"""`sagan-jax neighbours`: the training images nearest to samples, the check that none was learned by heart."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Show the training images nearest to samples of a run, in pixels and in features.

    Each row is a sample, its nearest in pixels, a gap, and its nearest in features: those of the FID network where its
    weights are, else random ones. What is printed compares with how near real images lie to one another: samples much
    nearer than that are learned by heart.
    """

    workdir: Path
    """the run's folder"""
    out: Path
    """a .png"""
    num_images: int = 8
    """samples, one a row"""
    nearest: int = 5
    """training images beside each, in pixels and in features"""
    classes: tuple[int, ...] = ()
    """of the samples, in turn; all unless given"""
    source: str = ""
    """where the images of the run's --source lie now, if they have moved"""
    inception_weights: str = ""
    """the FID network's weights; those of `sagan-jax fetch-weights` unless given"""
    seed: int = 0
    checkpoint: Literal["newest", "best"] = "newest"


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax neighbours")
    if parsed.out.suffix.lower() != ".png":
        raise InvalidInputError(f"--out needs a .png file; got {str(parsed.out)!r}.")
    if parsed.num_images < 1 or parsed.nearest < 1:
        raise InvalidInputError(
            f"neighbours needs --num-images and --nearest of at least 1; got {parsed.num_images}, {parsed.nearest}."
        )
    from sagan_jax.cli.checks import require_experiment
    from sagan_jax.cli.scoring import ScoreProgress, find_inception
    from sagan_jax.cli.wiring import load_run, open_data
    from sagan_jax.evaluation.embeddings import random_embedding
    from sagan_jax.evaluation.neighbours import compare
    from sagan_jax.runtime.image_files import save_png
    from sagan_jax.views.figures import neighbour_sheet

    experiment = require_experiment(parsed.workdir)
    data = dataclasses.replace(experiment.data, source=parsed.source or experiment.data.source)
    generator = load_run(parsed.workdir, checkpoint=parsed.checkpoint)
    samples = generator.generate(parsed.num_images, labels=parsed.classes, seed=parsed.seed)
    source = open_data(dataclasses.replace(experiment, data=data))
    embedding = find_inception(parsed.inception_weights) or random_embedding()
    with ScoreProgress() as progress:
        spaces = compare(samples.images, source, embedding, count=parsed.nearest, watcher=progress)
    real = [[[source[int(index)][0] for index in row] for row in space.nearest.indices] for space in spaces]
    save_png(parsed.out, neighbour_sheet(samples.images, real))
    for space in spaces:
        distances = space.nearest.distances[:, 0]
        print(
            f"{space.name}: the nearest training image is {np.median(distances):.3g} away in the median, "
            f"{distances.min():.3g} at least; between real images {np.median(space.between_real):.3g} and "
            f"{space.between_real.min():.3g}"
        )
    print(f"samples with their nearest in {' and in '.join(space.name for space in spaces)}: {parsed.out}")
