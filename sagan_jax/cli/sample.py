"""`sagan-jax sample`: samples of a run, as an array file, a picture or a folder."""

import dataclasses
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw samples from the checkpoint of a run."""

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .npz file (arr_0: uint8 images [N, H, W, 3], arr_1: labels), a .png grid, or a folder with one PNG an image"""
    num_images: int = 100
    """number of images"""
    classes: tuple[int, ...] = ()
    """the classes to sample, in turn. Defaults to all, balanced"""
    seed: int = 0
    """of the latents. Image i is the same however many are drawn"""
    truncation: float | None = None
    """largest absolute value of a latent's entries; below 1 gives more typical images"""
    truncation_rule: Literal["resampled", "clipped"] = "resampled"
    """what happens to larger entries: they are drawn again, or clipped"""
    batch_size: int = 100
    """images that are drawn at once; fewer take less memory"""
    overwrite: bool = False
    """remove the samples that an earlier call wrote into the folder --out"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    raw: bool = False
    """use the weights as trained, even where the run keeps a moving average"""
    trust_checkpoint: bool = False
    """where config.json was changed: use the config that the checkpoint was saved with"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax sample")
    kind = parsed.out.suffix.lower()
    if kind not in (".npz", ".png", "") or (not kind and parsed.out.is_file()):
        raise InvalidInputError(
            f"--out needs a .npz file, a .png file or a folder; got {str(parsed.out)!r}, which is of another kind."
        )
    for flag, number in (("num-images", parsed.num_images), ("batch-size", parsed.batch_size)):
        if number < 1:
            raise InvalidInputError(f"--{flag} needs to be at least 1; got {number}.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.truncation is not None and not parsed.truncation > 0:
        raise InvalidInputError(f"--truncation needs to be above 0; got {parsed.truncation}.")
    announce(f"drawing {parsed.num_images:,} images", compilation_cache=parsed.compilation_cache)
    from sagan_jax.cli.progress import ScoreProgress
    from sagan_jax.runs.load import load_run
    from sagan_jax.runs.samples import check_samples_output, write_samples

    check_samples_output(parsed.out, overwrite=parsed.overwrite)
    run = {"checkpoint": parsed.checkpoint, "raw": parsed.raw, "trust_checkpoint": parsed.trust_checkpoint}
    generator = load_run(parsed.workdir, **run)
    with ScoreProgress() as progress:
        samples = generator.generate(
            parsed.num_images,
            labels=parsed.classes,
            seed=parsed.seed,
            truncation=parsed.truncation,
            truncation_rule=parsed.truncation_rule,
            batch_size=parsed.batch_size,
            progress=progress,
        )
    write_samples(samples, parsed.out)
    print(f"{len(samples.images)} images in {parsed.out}")
