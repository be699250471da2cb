"""Files with the mean and the covariance of features, in the format of pytorch-fid, EDM and guided-diffusion."""

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.evaluation.embeddings import Embedding
from sagan_jax.functional.distances import Moments
from sagan_jax.runtime.files import write_atomically

_NAMES = {"mu", "sigma"}
_OWN_NAMES = ("count", "features", "identity")
_MOST_BYTES = 2**30  # limit for an array: a covariance of 11,585 features in float64
_ASYMMETRY, _NEGATIVE = 1e-5, 1e-4  # relative to the largest value: what `frechet_distance` accepts as rounding
_LARGEST = 1e100  # limit for means and covariances; squares of larger values overflow


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """The mean and the covariance of the features of a set of images, without the images.

    Attributes:
        mean: `[D]` float64.
        covariance: `[D, D]` float64, unbiased.
        count: the number of images; None if the file does not state it.
        name: the name of the file.
        sha256: the hash of mean and covariance.
        features: the name of the network, such as `inception` or `lite0`, in a file that `write_statistics` wrote; else
            "".
        identity: the identity of the network in such a file; else "".
    """

    mean: np.ndarray = dataclasses.field(repr=False)
    covariance: np.ndarray = dataclasses.field(repr=False)
    count: int | None
    name: str
    sha256: str
    features: str = ""
    identity: str = ""

    def describe(self) -> dict[str, Any]:
        """Returns a description of the reference for a result file."""
        described = {"statistics": self.name, "sha256": self.sha256, "images": self.count}
        return described | {"features": self.identity or f"{len(self.mean)}, of a network that the file does not name"}

    def misfit(self, embedding: Embedding) -> str:
        """Returns why features of this network are not comparable with the file; "" if they are."""
        if len(self.mean) != embedding.size:
            sizes = f"{len(self.mean):,} features of each image, and {embedding.name} ones are {embedding.size:,}"
            return f"holds {sizes}"
        if not self.features:
            return ""
        if self.features != embedding.name:
            return f"holds {self.features} features, and the protocol's are {embedding.name} ones"
        # Another conversion of the FID network has the same features but another identity.
        if self.identity != embedding.identity and not embedding.name.startswith("inception"):
            return f"holds features of another network, {self.identity}"
        return ""


def is_statistics_file(path: str | Path) -> bool:
    """Returns whether a path is an .npz file with the arrays `mu` and `sigma`."""
    return _array_names(Path(path)) >= _NAMES


def holds_images(path: str | Path) -> bool:
    """Returns whether a file of statistics also contains images, as those of guided-diffusion do."""
    return bool(_array_names(Path(path)) & {"images", "arr_0"})


def _array_names(path: Path) -> set[str]:
    """Returns the names of the arrays in an .npz file; an empty set if it is not an .npz file, or is damaged."""
    try:
        if path.suffix.lower() != ".npz" or not path.is_file():
            return set()
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # zipfile raises many kinds of error for a damaged file; reading it as images reports the damage
        return set()


def read_statistics(path: str | Path) -> FeatureStatistics:
    """Returns the statistics of an .npz file with `mu` `[D]` and `sigma` `[D, D]`, floating.

    A file by `write_statistics` also has the number of images and the network.

    Raises:
        InvalidInputError: when the file is damaged, or its arrays are not a mean and a covariance: other shapes, values
            that are not finite, not symmetric, or with negative eigenvalues.
    """
    path = Path(path)
    try:
        arrays = _read_arrays(path)
    except Exception as error:  # numpy, zipfile and zlib raise many kinds of error for a damaged file
        raise InvalidInputError(f"Cannot read {str(path)!r} as feature statistics: {one_line(error)}.") from error
    absent = [name for name in _NAMES if name not in arrays]
    if absent:
        raise InvalidInputError(
            f"{str(path)!r} needs the arrays `mu` and `sigma`; it has no {' and no '.join(absent)}."
        )
    mean, covariance = arrays["mu"], arrays["sigma"]
    fault = _fault(mean, covariance) or _count_fault(arrays.get("count"))
    if fault:
        raise InvalidInputError(f"{str(path)!r} needs the mean `mu` and the covariance `sigma` of features; {fault}.")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    digest = hashlib.sha256(mean.tobytes() + covariance.tobytes()).hexdigest()
    count = int(arrays["count"]) if "count" in arrays else None
    features, identity = (str(arrays.get(name, "")) for name in ("features", "identity"))
    return FeatureStatistics(mean, covariance, count, path.name, digest, features, identity)


def write_statistics(path: str | Path, moments: Moments, embedding: Embedding) -> None:
    """Writes `mu`, `sigma`, the number of images and the network to an .npz file, which pytorch-fid reads too.

    Args:
        path: the file; an existing one is replaced.
        moments: the moments of the features of at least two images.
        embedding: the network.

    Raises:
        StorageError: when the file cannot be written.
    """
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        mu=moments.mean,
        sigma=moments.covariance,
        count=np.int64(moments.count),
        features=np.str_(embedding.name),
        identity=np.str_(embedding.identity),
    )
    write_atomically(path, content.getvalue())


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the known arrays of the file, after checking their headers. Other arrays are not read."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name not in (*_NAMES, *_OWN_NAMES):
                continue
            if member.file_size > _MOST_BYTES:
                raise ValueError(f"{name} has {member.file_size:,} bytes, and at most {_MOST_BYTES:,} are read")
            with archive.open(member) as file:
                found[name] = _read_array(file.read(_MOST_BYTES + 1), name)
    return found


def _read_array(content: bytes, name: str) -> np.ndarray:
    file = io.BytesIO(content)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = readers[npy.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, and reading them can run code")
    if np.prod([float(size) for size in shape]) * dtype.itemsize > len(content):
        raise ValueError(f"{name} has fewer bytes than its header states")
    return npy.read_array(io.BytesIO(content), allow_pickle=False)


def _count_fault(count: np.ndarray | None) -> str:
    """Returns why an array is not a valid number of images; "" if it is valid or absent."""
    if count is None or (count.shape == () and count.dtype.kind in "iu" and count >= 2):
        return ""
    return "`count` needs to be the number of images, one integer of at least 2"


def _fault(mean: np.ndarray, covariance: np.ndarray) -> str:
    """Returns why two arrays are not a valid mean and covariance; "" if they are."""
    size = mean.size
    if mean.shape != (size,) or covariance.shape != (size, size) or not size:
        return f"they need the shapes [D] and [D, D]; got {list(mean.shape)} and {list(covariance.shape)}"
    for name, array in (("mu", mean), ("sigma", covariance)):
        if array.dtype.kind != "f":
            return f"`{name}` needs to be floating; got {array.dtype}"
        if not np.isfinite(array).all():
            return f"`{name}` holds values that are not finite"
        if float(np.abs(array).max()) > _LARGEST:
            return f"`{name}` needs values up to {_LARGEST:g}; the largest is {np.abs(array).max():g}"
    covariance = covariance.astype(np.float64)
    largest = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > _ASYMMETRY * largest:
        return "`sigma` is not symmetric"
    eigenvalues = np.linalg.eigvalsh(covariance / 2 + covariance.T / 2)
    if eigenvalues[0] < -_NEGATIVE * np.abs(eigenvalues).max():
        return f"`sigma` has a negative eigenvalue, {eigenvalues[0]:.3g} beside {eigenvalues[-1]:.3g}"
    return ""
