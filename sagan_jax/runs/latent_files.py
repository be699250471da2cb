"""Files of latents: an array of latents, optionally with an array of their classes."""

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.files import read_regular

_MAX_BYTES = 2**30
_NAMES = ("latents", "arr_0", "z")


class Latents(NamedTuple):
    """Latents, and their classes if the file has them."""

    latents: np.ndarray
    """`[N, Z]` float32"""
    labels: np.ndarray | None = None
    """`[N]` integers"""


def latent_content(latents: Latents) -> bytes:
    """Returns the content of an .npz file that `read_latents` reads."""
    arrays: dict[str, Any] = {"latents": latents.latents}
    arrays |= {} if latents.labels is None else {"labels": latents.labels}
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def read_latents(path: Path, latent_size: int) -> Latents:
    """Returns the latents of a file.

    Args:
        path: an .npy file with a floating-point array `[N, Z]`. Or an .npz file with that array as `latents`, `arr_0`
            or `z`, or as its only array; it may also hold integer classes `[N]` as `labels`.
        latent_size: Z of the generator.

    Raises:
        InvalidInputError: the file is missing or is none of these, or it holds another shape, another dtype or values
            that are not finite.
    """
    arrays = _arrays(path)
    name = next((name for name in _NAMES if name in arrays), "")
    others = [other for other in arrays if other != "labels"]
    if not name and len(others) != 1:
        raise InvalidInputError(f"{str(path)!r} needs the latents as an array `latents`; it has {sorted(arrays)}.")
    latents, labels = arrays[name or others[0]], arrays.get("labels")
    shape = list(latents.shape)
    if latents.dtype.kind != "f" or latents.ndim != 2 or not len(latents) or shape[1] != latent_size:
        raise InvalidInputError(
            f"{str(path)!r} needs latents [N, {latent_size}] of float32, as the generator takes them; "
            f"got {latents.dtype} {shape}.{_hint(latents, latent_size)}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        latents = latents.astype(np.float32)
    if not np.isfinite(latents).all():
        raise InvalidInputError(f"{str(path)!r} needs finite latents; {int((~np.isfinite(latents)).sum())} are not.")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != latents.shape[:1]):
        raise InvalidInputError(
            f"{str(path)!r} needs labels [{len(latents)}] of integers, one for each latent; "
            f"got {labels.dtype} {list(labels.shape)}."
        )
    return Latents(latents, labels)


def _hint(latents: np.ndarray, latent_size: int) -> str:
    if latents.shape == (latent_size,):
        return " Is it one latent? Save latents[None]."
    if latents.ndim == 2 and latents.shape[0] == latent_size:
        return " Is it transposed?"
    return ""


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name; the array of an .npy file is named `latents`."""
    try:
        content = io.BytesIO(read_regular(path, _MAX_BYTES))
        if path.suffix.lower() != ".npz":
            return {"latents": np.lib.format.read_array(content, allow_pickle=False)}
        with zipfile.ZipFile(content) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_BYTES:
            raise InvalidInputError(f"{str(path)!r} needs to expand to at most {_MAX_BYTES:,} bytes; got {size:,}.")
        with np.load(content, allow_pickle=False) as file:
            return dict(file)
    except InvalidInputError:
        raise
    except FileNotFoundError:
        raise InvalidInputError(f"There is no file of latents {str(path)!r}.") from None
    except Exception as error:  # numpy, zipfile and zlib raise many kinds of error for a damaged file
        raise InvalidInputError(
            f"Cannot read {str(path)!r} as latents, an .npy or .npz file of plain arrays: {one_line(error)}."
        ) from error
