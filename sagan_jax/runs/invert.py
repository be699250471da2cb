"""Inverts photographs: finds the latents and classes whose generated images are nearest to them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagan_jax.data.decoding import MAX_FILE_BYTES, decode, unreadable_reason
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.inversion import Inversion, LatentSearch, invert
from sagan_jax.evaluation.lite0 import read_lite0
from sagan_jax.runs.build import image_shape
from sagan_jax.runs.class_names import class_numbers
from sagan_jax.runs.export import checked_folder
from sagan_jax.runs.latent_files import Latents, latent_content
from sagan_jax.runs.load import CheckpointName, GenerationRun, open_run
from sagan_jax.runtime.files import read_regular, write_files_atomically
from sagan_jax.runtime.image_files import encode_png
from sagan_jax.runtime.progress import ProgressCallback
from sagan_jax.views.figures import image_grid

LATENTS, RESULT, PICTURE = "latents.npz", "inversion.json", "inversion.png"
_SHOWN_SIDE = 128  # pixels of an image in the picture, at least


def invert_photos(
    workdir: str | Path,
    photos: Sequence[Path],
    out: str | Path | None = None,
    *,
    classes: Sequence[int | str] = (),
    search: LatentSearch | None = None,
    checkpoint: CheckpointName = "newest",
    raw: bool = False,
    trust_checkpoint: bool = False,
    progress: ProgressCallback | None = None,
) -> tuple[list[Inversion], list[Path]]:
    """Inverts photographs, writes three files, all or none, and returns the inversions and the paths of the files.

    `latents.npz` has the latents and the classes, in the order of the photographs, as `read_latents` reads them.
    `inversion.json` has loss, PSNR and SSIM of each. `inversion.png` has a row for each: the photograph at the
    generator's resolution, the generated image, and their difference, where grey means no difference.

    Args:
        workdir: the folder of a run with a checkpoint.
        photos: image files; cropped to their centre square and resized.
        out: a folder; files of an earlier call are replaced. Defaults to `inverted` in the workdir.
        classes: the numbers or names of the classes to search. Defaults to all.
        search: the settings of the search; None for the defaults.
        checkpoint: `newest`, `best` (the best score of a run that was scored while it trained), or the step of a
            checkpoint.
        raw: use the weights as trained, even where there is a moving average.
        trust_checkpoint: as for `open_run`.
        progress: receives the progress.

    Raises:
        InvalidInputError: there is no run or no whole checkpoint in it, a file is not an image, or `out` is not a
            folder. Or there is no such class, or a number is out of range.
        NonFiniteError: the generator has diverged.
        StorageError: a file cannot be written.
    """
    folder, search = checked_folder(workdir, out, "inverted"), search or LatentSearch()
    run = open_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    images = [_read(path, *image_shape(run.experiment)[1:]) for path in photos]
    lite0 = read_lite0().variables if search.perceptual else None
    numbers, generator = class_numbers(run, classes), run.generator(raw=raw)
    found = [
        invert(generator, image, labels=numbers, search=search, lite0=lite0, progress=progress) for image in images
    ]
    facts = {"run": run.experiment.name, "step": generator.step, "averaged": generator.averaged}
    facts |= {"search": dataclasses.asdict(search), "photos": _results(run, photos, found)}
    latents = Latents(np.stack([one.latent for one in found]), np.array([one.label or 0 for one in found], np.int32))
    files = {
        LATENTS: latent_content(latents),
        RESULT: (json.dumps(facts, indent=2) + "\n").encode(),
        PICTURE: encode_png(_sheet(np.stack(images), np.stack([one.image for one in found]))),
    }
    write_files_atomically(folder, files)
    return found, [folder / file for file in files]


def _read(path: Path, resolution: int, image_channels: int) -> np.ndarray:
    try:
        return decode(read_regular(path, MAX_FILE_BYTES), resolution, image_channels)[0]
    except FileNotFoundError:
        raise InvalidInputError(f"There is no photograph {str(path)!r}.") from None
    except InvalidInputError:
        raise
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, ..
        raise InvalidInputError(
            f"invert needs image files, such as PNG, JPEG or WebP; {str(path)!r} cannot be read as one: "
            f"{unreadable_reason(error)}."
        ) from error


def _results(run: GenerationRun, photos: Sequence[Path], found: Sequence[Inversion]) -> list[dict[str, Any]]:
    names = run.class_names
    return [
        {
            "photo": path.name,
            "class": one.label,
            "class_name": names[one.label] if names and one.label is not None else None,
            "loss": one.loss,
            "psnr": one.psnr,
            "ssim": one.ssim,
        }
        for path, one in zip(photos, found, strict=True)
    ]


def _sheet(photos: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Returns a picture with a row for each photograph: itself, the generated image, and half their difference."""
    difference = np.rint((found.astype(np.float64) - photos) / 2 + 127.5).astype(np.uint8)
    rows = np.stack([photos, found, difference], axis=1).reshape(-1, *photos.shape[1:])
    return image_grid(rows, 3, scale=max(1, -(-_SHOWN_SIDE // photos.shape[1])))
