"""`sagan-jax sample`: samples of a run, as an array file, a picture or a folder."""

import dataclasses
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments, refuse_given
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write

_NUM_IMAGES = 100


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw samples from the checkpoint of a run."""

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .npz file (arr_0: uint8 images [N, H, W, 3], arr_1: labels), a .png grid, or a folder with a PNG per image"""
    num_images: int | None = None
    """number of images. Defaults to 100, or with --latents to all of them"""
    classes: tuple[str, ...] = ()
    """the classes to sample, by number or by name, in turn. Defaults to all, balanced, or to those of --latents"""
    latents: Path | None = None
    """use these latents instead of random ones: a .npy file [N, latent size] of float32, or .npz with latents and
    labels"""
    seed: int = 0
    """seed of the latents. Image i does not depend on the number of images"""
    truncation: float | None = None
    """largest absolute value of a latent's entries; below 1 gives more typical images"""
    truncation_rule: Literal["resampled", "clipped"] = "resampled"
    """what happens to larger entries: they are drawn again, or clipped"""
    batch_size: int = 100
    """images that are generated at once; fewer take less memory"""
    overwrite: bool = False
    """remove the samples that an earlier call wrote into the folder --out"""
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
    parsed = parse_arguments(Arguments, arguments, "sagan-jax sample")
    kind = parsed.out.suffix.lower()
    if kind not in (".npz", ".png", "") or (not kind and parsed.out.is_file()):
        raise InvalidInputError(
            f"--out needs a .npz file, a .png file or a folder; got {str(parsed.out)!r}, which is of another kind."
        )
    for flag, number in (("num-images", parsed.num_images), ("batch-size", parsed.batch_size)):
        if number is not None and number < 1:
            raise InvalidInputError(f"--{flag} needs to be at least 1; got {number}.")
    if not 0 <= parsed.seed < 2**32:
        raise InvalidInputError(f"--seed needs to be in [0, 2**32); got {parsed.seed}.")
    if parsed.truncation is not None and not parsed.truncation > 0:
        raise InvalidInputError(f"--truncation needs to be above 0; got {parsed.truncation}.")
    if parsed.truncation is None and not parsed.latents:
        refuse_given(parsed, ["truncation_rule"], "does nothing without --truncation: give both, or leave it out.")
    check_can_write(parsed.out if kind else parsed.out / "000000.png")
    if parsed.latents:
        drawn = ("seed", "truncation", "truncation_rule")
        refuse_given(parsed, drawn, "does nothing with --latents: they are drawn already. Leave one out.")
    number = "the" if parsed.latents and not parsed.num_images else f"{parsed.num_images or _NUM_IMAGES:,}"
    announce(f"drawing {number} images", compilation_cache=parsed.compilation_cache)
    from sagan_jax.cli.progress import ScoreProgress
    from sagan_jax.runs.class_names import class_numbers
    from sagan_jax.runs.load import open_run
    from sagan_jax.runs.samples import check_samples_output, samples_of_file, write_samples

    check_samples_output(parsed.out, overwrite=parsed.overwrite)
    run = open_run(parsed.workdir, checkpoint=parsed.checkpoint, trust_checkpoint=parsed.trust_checkpoint)
    generator, classes = run.generator(raw=parsed.raw), class_numbers(run, parsed.classes)
    with ScoreProgress() as progress:
        common = {"labels": classes, "batch_size": parsed.batch_size, "progress": progress}
        if parsed.latents:
            samples = samples_of_file(generator, parsed.latents, parsed.num_images, **common)
        else:
            samples = generator.generate(
                parsed.num_images or _NUM_IMAGES,
                seed=parsed.seed,
                truncation=parsed.truncation,
                truncation_rule=parsed.truncation_rule,
                **common,
            )
    write_samples(samples, parsed.out)
    print(f"{len(samples.images)} images in {parsed.out}")
