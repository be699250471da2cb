"""Networks that turn images into features, which scores compare instead of pixels."""

import dataclasses
import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.evaluation import pillow_resize
from sagan_jax.evaluation.inception import inception_taps, read_inception
from sagan_jax.evaluation.lite0 import read_lite0
from sagan_jax.models.convnet import ConvNet
from sagan_jax.models.lite0 import INPUT_IMAGE_SIZE, NUM_FEATURES, Lite0
from sagan_jax.runtime.devices import replicate_locally, shard_locally
from sagan_jax.runtime.full_precision import in_float32

Variables = Any


class ImageBatch(NamedTuple):
    """A batch of images that are scored."""

    images: Array | np.ndarray
    """`[B, R, R, C]` uint8; the last batch is padded so that all batches have one shape"""
    labels: np.ndarray
    """`[n]` int32; n is at most B: the images before the padding"""
    start: int = 0
    """the index of the first image among all images that are drawn, by this process and others"""


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A network whose features scores compare.

    Attributes:
        name: such as `random` or `inception`.
        identity: what decides its features, such as a sha256 of its weights; part of result files and of the keys of
            caches.
        apply: pure: `(variables, images [B, R, R, 3] uint8) -> {name: [B, D]}`, with `features` among the names.
        variables: what `apply` takes.
        size: D of `features`.
        prepare: what the host does before: `images [B, R, R, C] uint8` to those that `apply` takes, such as a resize by
            Pillow. None if it does nothing.
    """

    name: str
    identity: str
    apply: Callable[[Variables, Array], dict[str, Array]]
    variables: Variables = dataclasses.field(repr=False)
    size: int
    prepare: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, batches: Iterable[ImageBatch]) -> Iterator[tuple[dict[str, np.ndarray], ImageBatch]]:
        """Yields the outputs of the network for each batch, `{name: [n, D]}`, and the batch.

        The forward pass of a batch runs on all devices of this process. Meanwhile the next batch is drawn and prepared,
        and the features of the previous one are used.
        """
        running: tuple[dict[str, Array], ImageBatch] | None = None
        for batch in batches:
            images = self.prepare(np.asarray(batch.images)) if self.prepare else batch.images
            started = self._apply(self._device_variables, shard_locally(_pad_to_devices(images))), batch
            if running:
                yield _fetch(*running)
            running = started
        if running:
            yield _fetch(*running)

    @cached_property
    def _device_variables(self) -> Variables:
        return replicate_locally(self.variables)

    @cached_property
    def _apply(self) -> Callable[[Variables, Array], dict[str, Array]]:
        @in_float32
        def rgb(variables: Variables, images: Array) -> dict[str, Array]:
            return self.apply(variables, jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images)

        return jax.jit(rgb)


def _pad_to_devices(images: Array | np.ndarray) -> Array | np.ndarray:
    """Returns the images, repeated from the first on until each device of this process gets as many."""
    missing = -len(images) % jax.local_device_count()
    return np.resize(images, (len(images) + missing, *images.shape[1:])) if missing else images


def _fetch(outputs: dict[str, Array], batch: ImageBatch) -> tuple[dict[str, np.ndarray], ImageBatch]:
    return {name: np.asarray(output)[: len(batch.labels)] for name, output in outputs.items()}, batch


def inception_embedding(path: str | Path) -> Embedding:
    """Returns the FID network: `features` are the 2,048 of its last pooling; also `logits_unbiased`.

    Args:
        path: the file of its weights, .npz or .safetensors.

    Raises:
        InvalidInputError: the file is absent, damaged, or holds another network.
    """
    weights = read_inception(path)
    return Embedding("inception", weights.origin, _inception_features, weights.variables, 2048)


def _inception_features(variables: Variables, images: Array) -> dict[str, Array]:
    taps = inception_taps(variables, images)
    return {"features": taps["2048"], "logits_unbiased": taps["logits_unbiased"]}


@cache
def lite0_embedding() -> Embedding:
    """Returns EfficientNet-Lite0: 1,280 features of an image at 224 pixels, and the `logits` of its 1,000 classes.

    Images are resized by Pillow, bicubically with antialiasing, and not cropped.

    Raises:
        InvalidInputError: the package with its weights is not installed or damaged.
    """
    weights = read_lite0()
    prepare = partial(pillow_resize.bicubic, size=INPUT_IMAGE_SIZE)
    return Embedding("lite0", weights.origin, _lite0_features, weights.variables, NUM_FEATURES, prepare)


def _lite0_features(variables: Variables, images: Array) -> dict[str, Array]:
    outputs: Any = Lite0().apply(variables, (images.astype(jnp.float32) - 127) / 128)
    return outputs


_RANDOM = ConvNet(widths=(32, 64, 128, 256), hidden=512, outputs=512)
_RANDOM_NAME = "random-vgg-64"


@cache
def random_embedding() -> Embedding:
    """Returns a network with fixed random weights: 512 features of an image at 64 pixels, and no download.

    Each weight follows from its name: Gaussian of variance 2 / fan-in, from numpy's generator seeded with the name's
    CRC-32. Distances between such features tell sets of images apart. They are comparable only with each other.

    Source: Naeem et al. 2020, section 3 (random embeddings for precision, recall, density and coverage).
    """
    template = jax.eval_shape(_RANDOM.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    digest = hashlib.sha256()

    def weight(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = f"{_RANDOM_NAME}/{jax.tree_util.keystr(path, simple=True, separator='/')}"
        if leaf.ndim == 1:
            return np.zeros(leaf.shape, np.float32)  # biases
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(leaf.shape)
        array = (drawn * math.sqrt(2 / math.prod(leaf.shape[:-1]))).astype(np.float32)
        digest.update(array.tobytes())
        return array

    variables = jax.tree_util.tree_map_with_path(weight, template)
    return Embedding("random", f"{_RANDOM_NAME}:{digest.hexdigest()}", _random_features, variables, _RANDOM.outputs)


def _random_features(variables: Variables, images: Array) -> dict[str, Array]:
    features: Any = _RANDOM.apply(variables, resize_to_float(images, 64))
    return {"features": features}


def resize_to_float(images: Array, size: int) -> Array:
    """Returns images as floats in [-1, 1], resized bilinearly with antialiasing.

    Args:
        images: `[N, H, W, C]` uint8.
        size: height and width of the result.

    Returns:
        `[N, size, size, C]` float32.
    """
    floats = images.astype(jnp.float32) / 127.5 - 1
    if images.shape[1:3] == (size, size):
        return floats
    return jax.image.resize(floats, (len(images), size, size, images.shape[3]), "linear", antialias=True)
