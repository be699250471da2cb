"""`sagan-jax invert`: finds the latent and class whose generated image is nearest to a photograph."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Find the latent and the class whose generated image is nearest to a photograph.

    The photograph is cropped to its centre square and resized. The search is gradient descent from several random
    latents. It writes latents.npz, which sagan-jax sample --latents reads; inversion.json, with loss, PSNR and SSIM;
    and inversion.png: the photograph, the generated image, and their difference, where grey means no difference.
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """image files, such as PNG or JPEG"""
    workdir: Path
    """the folder of the run"""
    out: Path | None = None
    """the folder for the files. Defaults to inverted/ in the workdir"""
    classes: tuple[str, ...] = ()
    """the classes to search, by number or by name. Defaults to all"""
    starts: int = 16
    """number of descents, which run in parallel; the nearest result is kept"""
    steps: int = 300
    """steps of each descent"""
    learning_rate: float = 0.1
    """initial learning rate of Adam, which decays along a cosine to 0"""
    prior: float = 1e-3
    """weight of the mean square of the latent's entries; keeps the latent close to those that G was trained with"""
    perceptual: float = 0.0
    """weight of a perceptual distance, in the activations of EfficientNet-Lite0; needs sagan-jax[lite0]"""
    seed: int = 0
    """seed of the initial latents"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    raw: bool = False
    """use the weights as trained, even where the run keeps a moving average"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax invert")
    if not parsed.photos:
        raise InvalidInputError("invert needs at least one photograph; got none.")
    if parsed.starts < 1 or parsed.steps < 1:
        raise InvalidInputError(
            f"invert needs --starts and --steps of at least 1; got {parsed.starts}, {parsed.steps}."
        )
    for flag in ("learning_rate", "prior", "perceptual"):
        value = getattr(parsed, flag)
        if not (math.isfinite(value) and value >= 0) or (flag == "learning_rate" and not value):
            least = "above 0" if flag == "learning_rate" else "from 0 up"
            raise InvalidInputError(f"--{flag.replace('_', '-')} needs to be a number {least}; got {value}.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    announce("looking for the latents", compilation_cache=parsed.compilation_cache)
    from sagan_jax.cli.progress import ScoreProgress
    from sagan_jax.runs.invert import LatentSearch, invert_photos

    fields = [field.name for field in dataclasses.fields(LatentSearch)]
    with ScoreProgress() as progress:
        found, written = invert_photos(
            parsed.workdir,
            parsed.photos,
            parsed.out,
            classes=parsed.classes,
            search=LatentSearch(**{name: getattr(parsed, name) for name in fields}),
            checkpoint=parsed.checkpoint,
            raw=parsed.raw,
            trust_checkpoint=parsed.trust_checkpoint,
            progress=progress,
        )
    for path, one in zip(parsed.photos, found, strict=True):
        label = f"class {one.label}, " if one.label is not None else ""
        print(f"{path.name}: {label}PSNR {one.psnr:.1f} dB, SSIM {one.ssim:.3f}")
    for path in written:
        print(path)
