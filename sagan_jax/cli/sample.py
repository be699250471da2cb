"""`sagan-jax sample`: images from a trained run, as an array file, a picture or many."""

import dataclasses
import io
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw samples from the checkpoint of a run."""

    workdir: Path
    """the run's folder"""
    out: Path
    """a .npz file (arr_0: uint8 images [N, H, W, 3], arr_1: labels), a .png grid, or a folder for one PNG an image"""
    num_images: int = 100
    classes: tuple[int, ...] = ()
    """ask for these classes in turn; all of them, balanced, unless given"""
    seed: int = 0
    truncation: float | None = None
    """the largest size of a latent's entries; below 1 gives more typical images"""
    truncation_rule: Literal["resampled", "clipped"] = "resampled"
    """redraw an entry above it until it is below, or set it to that size"""
    batch_size: int = 100
    checkpoint: Literal["newest", "best"] = "newest"
    """best: the one with the best score, where the run was scored while it trained"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax sample")
    kind = parsed.out.suffix.lower()
    if kind not in (".npz", ".png", "") or (not kind and parsed.out.is_file()):
        raise InvalidInputError(
            f"--out needs a .npz file, a .png file or a folder; got {str(parsed.out)!r}, which is of another kind."
        )
    from sagan_jax.cli import wiring
    from sagan_jax.runtime.files import write_atomically
    from sagan_jax.runtime.image_files import save_png
    from sagan_jax.views.figures import class_rows

    samples = wiring.load_run(parsed.workdir, checkpoint=parsed.checkpoint).generate(
        parsed.num_images,
        labels=parsed.classes,
        seed=parsed.seed,
        truncation=parsed.truncation,
        truncation_rule=parsed.truncation_rule,
        batch_size=parsed.batch_size,
    )
    if kind == ".npz":
        images = samples.images
        if images.shape[-1] == 1:  # evaluators read RGB
            images = images.repeat(3, axis=-1)
        content = io.BytesIO()
        np.savez(content, arr_0=images, arr_1=samples.labels)
        write_atomically(parsed.out, content.getvalue())
    elif kind == ".png":
        save_png(parsed.out, class_rows(*samples))
    else:
        for number, (image, label) in enumerate(zip(samples.images, samples.labels, strict=True)):
            save_png(parsed.out / f"{number:06d}-class{label}.png", image)
    print(f"{len(samples.images)} images in {parsed.out}")
