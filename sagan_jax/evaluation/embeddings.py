"""Networks that map images to the features that scores compare."""

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
from sagan_jax.evaluation.dinov2 import read_dinov2
from sagan_jax.evaluation.inception import inception_taps, read_inception
from sagan_jax.evaluation.lite0 import read_lite0
from sagan_jax.interop.dinov2 import size_words
from sagan_jax.models import inception
from sagan_jax.models.convnet import ConvNet
from sagan_jax.models.lite0 import INPUT_IMAGE_SIZE, NUM_FEATURES, Lite0
from sagan_jax.runtime.devices import replicate_locally, shard_locally
from sagan_jax.runtime.full_precision import in_float32

Variables = Any


class ImageBatch(NamedTuple):
    """A batch of images to score."""

    images: Array | np.ndarray
    """`[B, R, R, C]` uint8; the last batch is padded so that all batches have the same shape"""
    labels: np.ndarray
    """`[n]` int32; n is at most B: the number of images without padding"""
    start: int = 0
    """the index of the first image among the images that all processes draw"""


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A network whose features are compared by scores.

    Attributes:
        name: its name, such as `random` or `inception`.
        identity: a string that identifies its features, such as a sha256 of its weights. Result files and cache keys
            contain it.
        apply: a pure function `(variables, images [B, R, R, 3] uint8) -> {name: [B, D]}`. One of the names is
            `features`.
        variables: the variables for `apply`.
        size: D, the number of `features`.
        caveat: a warning for scores with its features, or "".
        prepare: preprocessing on the host, such as resizing by Pillow: maps images `[B, R, R, C]` uint8 to the input of
            `apply`. None for no preprocessing.
    """

    name: str
    identity: str
    apply: Callable[[Variables, Array], dict[str, Array]]
    variables: Variables = dataclasses.field(repr=False)
    size: int
    prepare: Callable[[np.ndarray], np.ndarray] | None = None
    caveat: str = ""

    def __call__(self, batches: Iterable[ImageBatch]) -> Iterator[tuple[dict[str, np.ndarray], ImageBatch]]:
        """Yields the outputs of the network for each batch, `{name: [n, D]}`, and the batch.

        The forward pass of a batch runs on all devices of this process. Meanwhile the host draws and prepares the next
        batch, and the caller uses the features of the previous one.
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
    """Returns the images, padded with the first ones to a multiple of this process's devices."""
    missing = -len(images) % jax.local_device_count()
    return np.resize(images, (len(images) + missing, *images.shape[1:])) if missing else images


def _fetch(outputs: dict[str, Array], batch: ImageBatch) -> tuple[dict[str, np.ndarray], ImageBatch]:
    return {name: np.asarray(output)[: len(batch.labels)] for name, output in outputs.items()}, batch


def inception_embedding(path: str | Path) -> Embedding:
    """Returns the FID network: `features` are the 2,048 of the last pooling layer; it also returns `logits_unbiased`.

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


def as_clean_fid(embedding: Embedding) -> Embedding:
    """Returns the FID network with the resizing of clean-fid: by Pillow, with antialiasing, in floating point.

    Args:
        embedding: the result of `inception_embedding`.
    """
    return dataclasses.replace(
        embedding,
        name="inception_clean",
        apply=_clean_inception_features,
        prepare=partial(pillow_resize.bicubic_in_floats, size=inception.INPUT_IMAGE_SIZE),
    )


def _clean_inception_features(variables: Variables, images: Array) -> dict[str, Array]:
    taps: Any = inception.Inception().apply(variables, (images - 128) / 128)
    return {"features": taps["2048"], "logits_unbiased": taps["logits_unbiased"]}


_DINOV2_SIZE = 224
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dinov2_embedding(path: str | Path) -> Embedding:
    """Returns DINOv2: `features` are the class token after the last norm, 1,024 for ViT-L/14.

    Images are resized to 224 pixels by Pillow, bicubically with antialiasing, and not cropped.

    Args:
        path: the file of its weights, .safetensors or .npz.

    Raises:
        InvalidInputError: the file is absent, damaged, or holds another network.

    Source: Stein et al. 2023 (arXiv:2306.04675); layer6ai-labs/dgm-eval:dgm_eval/models/dinov2.py.
    """
    weights = read_dinov2(path)
    words = size_words(weights.network)

    def features(variables: Variables, images: Array) -> dict[str, Array]:
        mean, deviation = (jnp.array(values)[(jnp.newaxis,) * 3] for values in (_IMAGENET_MEAN, _IMAGENET_DEVIATION))
        tokens: Any = weights.network.apply(variables, (images / jnp.float32(255) - mean) / deviation)
        return {"features": tokens["class_token"]}

    return Embedding(
        "dinov2",
        f"DINOv2 of {words}, {weights.origin}",
        features,
        weights.variables,
        weights.network.width,
        partial(pillow_resize.bicubic, size=_DINOV2_SIZE),
        "" if weights.is_standard else f"published scores are in the features of ViT-L/14, not of {words}",
    )


@cache
def lite0_embedding() -> Embedding:
    """Returns EfficientNet-Lite0 at 224 pixels: 1,280 `features`, and the `logits` of 1,000 classes.

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
    """Returns a network with fixed random weights at 64 pixels: 512 `features`. It needs no download.

    Each weight array is Gaussian with variance 2 / fan-in, drawn by numpy with the CRC-32 of its name as the seed.
    Distances between such features distinguish sets of images. They are comparable only with each other.

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
