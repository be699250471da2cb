"""`sagan-jax sample`: samples of a run, as an array file, a picture or a folder."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw samples from the checkpoint of a run."""

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .npz file (arr_0: uint8 images [N, H, W, 3], arr_1: labels), a .png grid, or a folder with one PNG an image"""
    num_images: int = 100
    classes: tuple[int, ...] = ()
    """the classes to sample, in turn. Defaults to all, balanced"""
    seed: int = 0
    truncation: float | None = None
    """largest absolute value of a latent's entries; below 1 gives more typical images"""
    truncation_rule: Literal["resampled", "clipped"] = "resampled"
    """what happens to larger entries: they are drawn again, or clipped"""
    batch_size: int = 100
    overwrite: bool = False
    """remove the samples that an earlier call wrote into the folder --out"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax sample")
    kind = parsed.out.suffix.lower()
    if kind not in (".npz", ".png", "") or (not kind and parsed.out.is_file()):
        raise InvalidInputError(
            f"--out needs a .npz file, a .png file or a folder; got {str(parsed.out)!r}, which is of another kind."
        )
    from sagan_jax.runs.load import load_run
    from sagan_jax.runs.samples import check_samples_output, write_samples

    check_samples_output(parsed.out, overwrite=parsed.overwrite)
    samples = load_run(parsed.workdir, checkpoint=parsed.checkpoint).generate(
        parsed.num_images,
        labels=parsed.classes,
        seed=parsed.seed,
        truncation=parsed.truncation,
        truncation_rule=parsed.truncation_rule,
        batch_size=parsed.batch_size,
    )
    write_samples(samples, parsed.out)
    print(f"{len(samples.images)} images in {parsed.out}")
