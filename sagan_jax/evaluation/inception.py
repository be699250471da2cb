"""Features of the FID network: resizes uint8 images as TensorFlow 1 did, and reads the weights from a file."""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.weight_places import find_file, read_once
from sagan_jax.interop.inception import to_variables
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.models.inception import FEATURE_LAYERS, INPUT_IMAGE_SIZE, Inception
from sagan_jax.runtime.cache_folders import weights_folder
from sagan_jax.runtime.full_precision import in_float32

WEIGHTS_NAME = "inception-2015-12-05.safetensors"


@dataclasses.dataclass(frozen=True)
class InceptionWeights:
    """The weights of the FID network, and their origin.

    Attributes:
        variables: the variables for `inception_taps`.
        name: the name of the file that was read.
        sha256: the hash of that file.
        source_name: the name of the file that it was converted from; None if it was not converted.
        source_sha256: the hash of the file that it was converted from.
    """

    variables: dict[str, Any] = dataclasses.field(repr=False)
    name: str
    sha256: str
    source_name: str | None = None
    source_sha256: str | None = None

    @property
    def origin(self) -> str:
        """One line that identifies the weights; it is recorded with every score."""
        line = f"{self.name} sha256:{self.sha256}"
        if self.source_sha256:
            line += f", converted from {self.source_name} sha256:{self.source_sha256}"
        return line


def default_weights_path() -> Path | None:
    """Returns the default path of the weights, where `sagan-jax convert` writes them; None without a home folder."""
    folder = weights_folder()
    return folder and folder / WEIGHTS_NAME


def find_weights(path: str | Path | None = None) -> Path | None:
    """Returns the file of the weights: `path` if given, else the default file, or None if that does not exist.

    Raises:
        InvalidInputError: `path` is given and is not a file.
    """
    hint = "sagan-jax fetch-weights, or sagan-jax convert --from inception FILE"
    return find_file(path, default_weights_path(), network="the FID network", hint=hint)


@read_once
def read_inception(path: Path) -> InceptionWeights:
    """Returns the weights of the FID network. A file is read again only if it has changed.

    Args:
        path: a .safetensors or .npz file with the published names and PyTorch's layouts.

    Raises:
        InvalidInputError: the file is absent, damaged, or holds another network.
    """
    file = read_arrays(path)
    variables = jax.tree.map(jnp.asarray, to_variables(file.arrays, file.name))
    metadata = file.metadata
    source = metadata.get("source_name"), metadata.get("source_sha256")
    return InceptionWeights(variables, file.name, file.sha256, *source)


def inception_features(
    images_uint8: np.ndarray | Array, weights_path: str | Path, *, batch_size: int = 16
) -> dict[str, np.ndarray]:
    """Returns the outputs of the FID network for images, by name.

    Args:
        images_uint8: `[N, H, W, 3]` uint8, RGB, N at least 1.
        weights_path: a .safetensors or .npz file; see `read_inception`.
        batch_size: the number of images per forward pass. It affects only memory and rounding.

    Returns:
        float32 arrays. `64`, `192`, `768` and `2048` are pooled features `[N, width]`; `logits_unbiased` and `logits`
        are `[N, 1008]`, without and with biases.

    Raises:
        InvalidInputError: the images or the batch size are invalid, or the weights cannot be read.
    """
    _check(images_uint8)
    if batch_size < 1:
        raise InvalidInputError(f"inception_features needs a batch_size of at least 1; got {batch_size}.")
    variables = read_inception(weights_path).variables
    number, size = len(images_uint8), min(batch_size, len(images_uint8))
    parts = []
    for start in range(0, number, size):
        places = np.arange(start, start + size) % number  # the last batch is padded, for one compilation
        taps = _jitted_taps()(variables, images_uint8[places])
        parts.append({tap: np.asarray(values)[: number - start] for tap, values in taps.items()})
    return {tap: np.concatenate([part[tap] for part in parts]) for tap in FEATURE_LAYERS}


@cache
def _jitted_taps() -> Any:
    return jax.jit(inception_taps)


@in_float32
def inception_taps(variables: dict[str, Any], images_uint8: Array) -> dict[str, Array]:
    """Returns the outputs of the FID network for a batch. The function is pure: it can be jitted, vmapped or sharded.

    Args:
        variables: the variables in `InceptionWeights`.
        images_uint8: `[N, H, W, 3]` uint8, RGB, of any size; N at least 1.

    Returns:
        As for `inception_features`; each row depends only on its own image.

    Raises:
        InvalidInputError: the images are invalid; raised at trace time.

    Source: toshas/torch-fidelity:torch_fidelity/feature_extractor_inceptionv3.py.
    """
    _check(images_uint8)
    taps = Inception().apply(variables, (resize_like_tensorflow_1(images_uint8, INPUT_IMAGE_SIZE) - 128) / 128)
    return taps  # pyrefly: ignore[bad-return]


def resize_like_tensorflow_1(images: Array, size: int) -> Array:
    """Returns bilinearly resized images, with the pixel coordinates of TensorFlow 1.

    Pixel p of the result has the coordinate p * (old / new) in the input. So the first pixels are aligned, unlike in
    `jax.image.resize` and Pillow, which align the image centres. Beyond the last pixel its value is repeated. There is
    no antialiasing. Coordinates are float32, and the width is resized before the height, as in the source. In float64,
    a pixel may differ by a hundredth of a grey level.

    Args:
        images: `[N, H, W, C]`, integer or floating.
        size: height and width of the result.

    Returns:
        `[N, size, size, C]` float32. Each value lies between those of the input pixels that it interpolates.

    Source: tensorflow/tensorflow:tensorflow/core/kernels/resize_bilinear_op.cc, `align_corners=False`;
    toshas/torch-fidelity:torch_fidelity/interpolate_compat_tensorflow.py.
    """
    resized = images.astype(jnp.float32)
    for axis in (2, 1):
        places = np.arange(size, dtype=np.float32) * np.float32(images.shape[axis] / size)
        below = places.astype(int)
        above = np.minimum(below + 1, images.shape[axis] - 1)
        shares = np.expand_dims(places - below.astype(np.float32), [other for other in range(4) if other != axis])
        first, second = (jnp.take(resized, indices, axis, mode="clip") for indices in (below, above))
        resized = first + (second - first) * shares
    return resized


def _check(images: Any) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise InvalidInputError(
            f"The FID network needs images [N, H, W, 3] of uint8, with no size 0; got {list(images.shape)} of "
            f"{images.dtype}. Repeat grey images to three channels, and scale floats to 0..255."
        )
