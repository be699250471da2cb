"""The network that FID is defined in: Inception-v3 as the TensorFlow graph of 2015 has it, not as later libraries do.

It differs from torchvision's: averages leave the padding out, the last block pools by maximum, there are 1,008 classes,
and images are resized as TensorFlow 1 did. Batch norm is folded into the kernels when the weights are read.
Source: toshas/torch-fidelity:torch_fidelity/feature_extractor_inceptionv3.py; mseitzer/pytorch-fid:src/pytorch_fid.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax.data.cache import cache_folder
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding
from sagan_jax.interop.arrays import Weights, read_weights

TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")
"""What can be read off the network; a number is how many channels were averaged over all positions."""

CLASSES = 1008
_SIZE = 299
_EPSILON = 1e-3  # of batch norm


class Convolution(nn.Module):
    """A convolution with its batch norm folded in, then ReLU."""

    channels: int
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns `[B, H', W', channels]` of `[B, H, W, C]`."""
        strides = (self.stride, self.stride)
        return jax.nn.relu(nn.Conv(self.channels, self.window, strides, self.padding, name="conv")(features))


def _largest(features: Array, stride: int, padding: str) -> Array:
    return nn.max_pool(features, (3, 3), (stride, stride), padding)


def _average(features: Array) -> Array:
    """Returns the mean of each 3x3 neighbourhood, of what lies inside the image."""
    return nn.avg_pool(features, (3, 3), (1, 1), "SAME", count_include_pad=False)


class MixedA(nn.Module):
    """35x35: branches of one, one 5x5 and two 3x3 convolutions, and a pool."""

    pooled: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the branches side by side."""
        one = Convolution(64, name="branch1x1")(features)
        five = Convolution(48, name="branch5x5_1")(features)
        five = Convolution(64, (5, 5), name="branch5x5_2")(five)
        three = Convolution(64, name="branch3x3dbl_1")(features)
        three = Convolution(96, (3, 3), name="branch3x3dbl_2")(three)
        three = Convolution(96, (3, 3), name="branch3x3dbl_3")(three)
        pool = Convolution(self.pooled, name="branch_pool")(_average(features))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class MixedB(nn.Module):
    """35x35 to 17x17."""

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the branches side by side."""
        three = Convolution(384, (3, 3), 2, "VALID", name="branch3x3")(features)
        double = Convolution(64, name="branch3x3dbl_1")(features)
        double = Convolution(96, (3, 3), name="branch3x3dbl_2")(double)
        double = Convolution(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, _largest(features, 2, "VALID")], axis=-1)


class MixedC(nn.Module):
    """17x17: 7x7 convolutions, each as a row and a column."""

    width: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the branches side by side."""
        one = Convolution(192, name="branch1x1")(features)
        seven = Convolution(self.width, name="branch7x7_1")(features)
        seven = Convolution(self.width, (1, 7), name="branch7x7_2")(seven)
        seven = Convolution(192, (7, 1), name="branch7x7_3")(seven)
        double = Convolution(self.width, name="branch7x7dbl_1")(features)
        double = Convolution(self.width, (7, 1), name="branch7x7dbl_2")(double)
        double = Convolution(self.width, (1, 7), name="branch7x7dbl_3")(double)
        double = Convolution(self.width, (7, 1), name="branch7x7dbl_4")(double)
        double = Convolution(192, (1, 7), name="branch7x7dbl_5")(double)
        pool = Convolution(192, name="branch_pool")(_average(features))
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class MixedD(nn.Module):
    """17x17 to 8x8."""

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the branches side by side."""
        three = Convolution(192, name="branch3x3_1")(features)
        three = Convolution(320, (3, 3), 2, "VALID", name="branch3x3_2")(three)
        seven = Convolution(192, name="branch7x7x3_1")(features)
        seven = Convolution(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Convolution(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = Convolution(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, _largest(features, 2, "VALID")], axis=-1)


class MixedE(nn.Module):
    """8x8: 3x3 convolutions as a row beside a column; the last block of all pools by maximum."""

    last: bool

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the branches side by side."""
        one = Convolution(320, name="branch1x1")(features)
        three = Convolution(384, name="branch3x3_1")(features)
        row = Convolution(384, (1, 3), name="branch3x3_2a")(three)
        column = Convolution(384, (3, 1), name="branch3x3_2b")(three)
        double = Convolution(448, name="branch3x3dbl_1")(features)
        double = Convolution(384, (3, 3), name="branch3x3dbl_2")(double)
        double_row = Convolution(384, (1, 3), name="branch3x3dbl_3a")(double)
        double_column = Convolution(384, (3, 1), name="branch3x3dbl_3b")(double)
        pool = _largest(features, 1, "SAME") if self.last else _average(features)
        pool = Convolution(192, name="branch_pool")(pool)
        return jnp.concatenate([one, row, column, double_row, double_column, pool], axis=-1)


class Inception(nn.Module):
    """From images at 299 pixels to all taps."""

    @nn.compact
    def __call__(self, images: Array) -> dict[str, Array]:
        """Returns `{tap: [B, D]}`.

        Args:
            images: `[B, 299, 299, 3]`, floating, (level - 128) / 128.
        """
        taps = {}
        features = Convolution(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(images)
        features = Convolution(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(features)
        features = Convolution(64, (3, 3), name="Conv2d_2b_3x3")(features)
        features = _largest(features, 2, "VALID")
        taps["64"] = features.mean(axis=(1, 2))
        features = Convolution(80, name="Conv2d_3b_1x1")(features)
        features = Convolution(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(features)
        features = _largest(features, 2, "VALID")
        taps["192"] = features.mean(axis=(1, 2))
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            features = MixedA(pooled, name=name)(features)
        features = MixedB(name="Mixed_6a")(features)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            features = MixedC(width, name=name)(features)
        taps["768"] = features.mean(axis=(1, 2))
        features = MixedD(name="Mixed_7a")(features)
        features = MixedE(last=False, name="Mixed_7b")(features)
        features = MixedE(last=True, name="Mixed_7c")(features)
        taps["2048"] = features.mean(axis=(1, 2))
        kernel = self.param("fc_kernel", nn.initializers.zeros, (2048, CLASSES))
        bias = self.param("fc_bias", nn.initializers.zeros, (CLASSES,))
        taps["logits_unbiased"] = taps["2048"] @ kernel
        taps["logits"] = taps["logits_unbiased"] + bias
        return taps


def resize_as_tensorflow_1(images: Array, size: int) -> Array:
    """Returns images resized bilinearly as TensorFlow 1 did: corners at the top left, no antialiasing.

        out[i] = (1 - t) in[floor(s)] + t in[floor(s) + 1],    s = i H / size,    t = s - floor(s)

    `jax.image.resize` puts pixel centres half a pixel further, as TensorFlow 2 does; on small images that moves FID by
    whole units.

    Args:
        images: `[B, H, W, C]`, floating.
        size: of the result, in pixels.

    Returns:
        `[B, size, size, C]`; bit for bit the images where they have that size.

    Source: tensorflow/tensorflow:tensorflow/core/kernels/image/resize_bilinear_op.cc, without half_pixel_centers.
    """
    for axis in (1, 2):
        there = images.shape[axis]
        if there != size:
            images = jnp.moveaxis(jnp.tensordot(_mixture(there, size), images, (1, axis)), 0, axis)
    return images


@functools.cache
def _mixture(there: int, size: int) -> np.ndarray:
    """Returns how much of each pixel goes into each new one, `[size, there]`."""
    place = np.arange(size, dtype=np.float32) * np.float32(there / size)
    low = np.floor(place).astype(int)
    weights = np.zeros((size, there), np.float32)
    np.add.at(weights, (np.arange(size), low), 1 - (place - low))
    np.add.at(weights, (np.arange(size), np.minimum(low + 1, there - 1)), place - low)
    return weights


def inception_taps(variables: Any, images: Array) -> dict[str, Array]:
    """Returns what the network makes of images; pure.

    Args:
        variables: of `read_inception`.
        images: `[B, H, W, 3]` uint8, H and W of any size.

    Returns:
        `{tap: [B, D]}` float32, of `TAPS`.
    """
    floats = resize_as_tensorflow_1(images.astype(jnp.float32), _SIZE)
    taps: Any = Inception().apply(variables, (floats - 128) / 128)
    return taps


@dataclasses.dataclass(frozen=True)
class InceptionWeights:
    """The FID network's weights.

    Attributes:
        variables: what `inception_taps` takes.
        sha256: of the file.
        identity: the same, with that of the file it was converted from.
    """

    variables: Any = dataclasses.field(repr=False)
    sha256: str
    identity: str


def read_inception(path: str | Path) -> InceptionWeights:
    """Returns the weights in a file: tensors named and laid out as in the published PyTorch state dict.

    Args:
        path: .npz or .safetensors; `sagan-jax convert` makes one of the published .pth.

    Raises:
        InvalidInputError: the file cannot be read, or holds other tensors than the network has.
    """
    weights = read_weights(path)
    return InceptionWeights(_folded(weights), weights.sha256, weights.identity)


def inception_embedding(path: str | Path) -> Embedding:
    """Returns the FID network as scores use it: `features`, the 2,048 of the last pool, and `logits_unbiased`."""
    weights = read_inception(path)

    def apply(variables: Any, images: Array) -> dict[str, Array]:
        taps = inception_taps(variables, images)
        return {"features": taps["2048"], "logits_unbiased": taps["logits_unbiased"]}

    return Embedding("inception", weights.identity, apply, weights.variables, 2048)


def inception_features(images_uint8: np.ndarray, weights_path: str | Path) -> dict[str, np.ndarray]:
    """Returns the features of images in the FID network.

    Args:
        images_uint8: `[N, H, W, 3]` uint8.
        weights_path: .npz or .safetensors, as for `read_inception`; read once a process.

    Returns:
        `{tap: [N, D]}` float32, of `TAPS`: what torch-fidelity gives, to 1e-3 of each tap's largest.

    Raises:
        InvalidInputError: other images than these, or weights that cannot be used.
    """
    images = np.asarray(images_uint8)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise InvalidInputError(
            f"inception_features needs images [N, H, W, 3] of uint8; got {list(images.shape)} of {images.dtype}."
        )
    path = Path(weights_path)
    changed = path.stat().st_mtime_ns if path.exists() else 0
    variables = _read_once(str(path.absolute()), changed)
    parts = [_jitted_taps(variables, images[start : start + 50]) for start in range(0, len(images), 50)]
    return {tap: np.concatenate([np.asarray(part[tap]) for part in parts]) for tap in TAPS}


_jitted_taps = jax.jit(inception_taps)


@functools.lru_cache(1)
def _read_once(path: str, _changed: int) -> Any:
    return jax.device_put(read_inception(path).variables)


def default_weights_path() -> Path:
    """Returns where the weights are looked for when nobody names a file, and where `sagan-jax convert` puts them."""
    return (cache_folder("auto", "weights") or Path("weights")) / "inception-2015-12-05.safetensors"


def required_tensors() -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the tensors that the network needs, as PyTorch lays them out."""
    convolutions = {
        _dotted(path).removesuffix(".conv.kernel"): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(_template())[0]
        if _dotted(path).endswith(".conv.kernel")
    }
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)}
    for name, (height, width, inputs, outputs) in convolutions.items():
        shapes[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        shapes |= {f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def _template() -> Any:
    return jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, _SIZE, _SIZE, 3)))["params"]


def _dotted(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _folded(weights: Weights) -> Any:
    """Returns the network's variables, each convolution with its batch norm in it."""
    weights.require(required_tensors(), "the FID network", ignored=("num_batches_tracked",))
    arrays = weights.arrays

    def fold(path: Any, _: jax.ShapeDtypeStruct) -> np.ndarray:
        name = _dotted(path)
        if name == "fc_kernel":
            return np.ascontiguousarray(arrays["fc.weight"].T)
        if name == "fc_bias":
            return arrays["fc.bias"]
        layer, part = name.split(".conv.")
        norm = _norm(arrays, layer)
        folded = arrays[f"{layer}.conv.weight"].transpose(2, 3, 1, 0) * norm[0] if part == "kernel" else norm[1]
        return np.ascontiguousarray(folded, np.float32)

    return {"params": jax.tree_util.tree_map_with_path(fold, _template())}


def _norm(arrays: Mapping[str, np.ndarray], layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns batch norm at evaluation as a scale and a shift, worked out in float64."""
    gain, bias, mean, variance = (
        arrays[f"{layer}.bn.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + _EPSILON)
    return scale, bias - mean * scale
