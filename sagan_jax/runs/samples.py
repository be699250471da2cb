"""Samples of a run as files, and as the picture that a run draws while it trains."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.generator import Samples, TrainedGenerator
from sagan_jax.evaluation.interpolation import Between, interpolate
from sagan_jax.runs.contracts import check_takes_mixtures
from sagan_jax.runs.latent_files import read_latents
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.image_files import save_animation, save_png
from sagan_jax.runtime.manifest import check_results, finish_results, read_manifest, start_results
from sagan_jax.runtime.progress import NullProgress, ProgressCallback
from sagan_jax.views.figures import class_rows, image_grid

_RESULT = "samples"
_FILE_NAME = re.compile(r"\d{6,}-class\d+\.png")


def sample_grid(generator: TrainedGenerator, *, columns: int = 10) -> np.ndarray:
    """Returns one picture of samples from fixed latents: a row for each of the first ten classes, or ten rows."""
    rows = min(10, generator.num_classes) if generator.num_classes else 10
    labels = range(rows) if generator.num_classes else None
    return class_rows(*generator.generate(rows * columns, labels=labels), columns=columns)


def check_samples_output(out: Path, *, overwrite: bool) -> None:
    """Refuses a folder that holds samples of an earlier call, before anything is drawn.

    Args:
        out: as for `write_samples`.
        overwrite: whether earlier samples may be replaced.

    Raises:
        InvalidInputError: `out` is a folder with earlier samples that may not be replaced, or with sample files of
            unknown origin, which are never removed.
    """
    if out.suffix or not out.is_dir():
        return
    check_results(out, {_RESULT: ()}, overwrite=overwrite)
    known = set(read_manifest(out).get(_RESULT, ()))
    unknown = [path.name for path in out.glob("*.png") if _FILE_NAME.fullmatch(path.name) and path.name not in known]
    if unknown:
        raise InvalidInputError(
            f"{str(out)!r} holds {len(unknown)} samples that no manifest lists, such as {min(unknown)!r}: "
            f"give another --out, or remove them."
        )


def samples_of_file(
    generator: TrainedGenerator,
    path: Path,
    num_images: int | None = None,
    *,
    labels: Sequence[int] = (),
    batch_size: int = 100,
    progress: ProgressCallback | None = None,
) -> Samples:
    """Returns the images of the latents in a file.

    Args:
        generator: the generator that draws the images.
        path: a file of latents; see `read_latents`.
        num_images: use only this many of the first latents. Defaults to all.
        labels: the classes, in turn. Defaults to those in the file, or else to all.
        batch_size: images per forward pass; affects only memory and the last bits.
        progress: receives the progress.

    Raises:
        InvalidInputError: the file is not usable or has too few latents, or the generator does not have a class.
        NonFiniteError: an image is not finite.
    """
    latents, named = read_latents(path, generator.latent_size)
    count = len(latents) if num_images is None else num_images
    if count > len(latents):
        raise InvalidInputError(f"--num-images {count} needs as many latents; {str(path)!r} has {len(latents)}.")
    if labels or named is None or not generator.num_classes:
        named = np.resize(generator.classes(labels), len(latents))
    classes = generator.classes(named).astype(np.int32)[:count] if generator.num_classes else np.zeros(count, np.int32)
    progress = progress or NullProgress()
    progress.begin("images", count)
    images = []
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + min(batch_size, len(latents))) % len(latents)  # all batches have one shape
        drawn = generator.images(latents[rows], classes[rows % count])
        images.append(drawn[: count - start])
        progress.tick(len(images[-1]))
    return Samples(np.concatenate(images), classes)


def write_samples(samples: Samples, out: Path) -> None:
    """Writes samples as an array file, as one picture, or as a folder of images.

    Args:
        samples: the samples to write.
        out: a .npz file (`arr_0`: images `[N, H, W, 3]` uint8, `arr_1`: labels), a .png grid, or a folder. In a folder,
            the samples replace earlier ones; see `check_samples_output`.

    Raises:
        StorageError: a file cannot be written.
    """
    kind = out.suffix.lower()
    if kind == ".npz":
        images = samples.images
        if images.shape[-1] == 1:  # evaluation tools read RGB
            images = images.repeat(3, axis=-1)
        content = io.BytesIO()
        np.savez(content, arr_0=images, arr_1=samples.labels)
        write_atomically(out, content.getvalue())
    elif kind == ".png":
        save_png(out, class_rows(*samples))
    else:
        names = [f"{number:06d}-class{label}.png" for number, label in enumerate(samples.labels)]
        start_results(out, {_RESULT: names})
        for name, image in zip(names, samples.images, strict=True):
            save_png(out / name, image)
        finish_results(out, {_RESULT: names})


def write_interpolation(
    generator: TrainedGenerator,
    out: Path,
    *,
    between: Between,
    rows: int,
    steps: int,
    classes: Sequence[int] = (),
    seed: int = 0,
) -> None:
    """Writes images from one sample to another.

    Args:
        generator: the generator that draws the images.
        out: a .png with one row per pair, or an animation: .gif or .webp.
        between: as for `interpolate`.
        rows: number of pairs.
        steps: number of images from one end to the other, both included.
        classes: the classes to interpolate between. Defaults to all.
        seed: seed of the latents.

    Raises:
        InvalidInputError: as for `interpolate`.
        NonFiniteError: an image is not finite.
        StorageError: a file cannot be written.
    """
    if between != "z":
        check_takes_mixtures(generator)
    images = interpolate(generator, between=between, rows=rows, steps=steps, classes=tuple(classes), seed=seed)
    if out.suffix.lower() == ".png":
        save_png(out, image_grid(images.reshape(-1, *images.shape[2:]), steps))
    else:
        frames = [image_grid(images[:, step], rows, scale=2) for step in range(steps)]
        save_animation(out, [*frames, *frames[-2:0:-1]])
