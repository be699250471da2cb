"""EfficientNet-Lite0, a small network for the 1,000 classes of ImageNet, with batch norms folded into kernels."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sagan_jax.functional.depthwise import depthwise_convolve

INPUT_IMAGE_SIZE = 224
"""The height and width of the training images. The network accepts images of any size."""

NUM_FEATURES, NUM_CLASSES = 1280, 1000


class Block(NamedTuple):
    """The hyperparameters of a block."""

    window: int
    """height and width of the depthwise kernel"""
    stride: int
    expansion: int
    """hidden channels for each input channel"""
    width: int
    """output channels"""


# As in the source: kernel, stride, expansion, width, number of blocks. All but the first block of a stage have stride
# 1.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

BLOCKS = tuple(
    Block(window, stride if place == 0 else 1, expansion, width)
    for window, stride, expansion, width, repeats in _STAGES
    for place in range(repeats)
)
"""The 16 blocks, in order."""


class Lite0(nn.Module):
    """EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, and with ReLU6 in place of swish.

    Convolutions use TensorFlow's SAME padding, which for stride 2 pads more below and on the right. Each has a bias,
    which replaces its batch norm.

    Source: tensorflow/tpu:models/official/efficientnet/lite/efficientnet_lite_builder.py.

    Attributes:
        dtype: the dtype of the computation; None infers it from images and parameters.
    """

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Array, with_activations: bool = False) -> dict[str, Array]:
        """Returns features and logits by name, and optionally the outputs of the blocks.

        Args:
            images: `[N, H, W, 3]`, floating, RGB, of any size, with values `(pixel - 127) / 128` for pixels in [0,
                255].
            with_activations: whether to return the outputs of stem and blocks too.

        Returns:
            `features`: `[N, 1280]`, averages over all positions. `logits`: `[N, 1000]`, the classes of ImageNet in the
            order of their synsets. With activations also `stem`, `[N, ceil(H / 2), ceil(W / 2), 32]`, and `block_0` to
            `block_15`, `[N, H', W', width]`. Each block of stride 2 halves H' and W', rounded up.
        """
        outputs = {}
        x = nn.relu6(nn.Conv(32, (3, 3), 2, padding="SAME", dtype=self.dtype, name="stem")(images))
        outputs["stem"] = x
        for index, block in enumerate(BLOCKS):
            x = InvertedBottleneck(block, self.dtype, name=f"block_{index}")(x)
            outputs[f"block_{index}"] = x
        x = nn.relu6(nn.Dense(NUM_FEATURES, dtype=self.dtype, name="head")(x))
        outputs["features"] = x.mean((1, 2))
        outputs["logits"] = nn.Dense(NUM_CLASSES, dtype=self.dtype, name="classes")(outputs["features"])
        return outputs if with_activations else {name: outputs[name] for name in ("features", "logits")}


class InvertedBottleneck(nn.Module):
    """An inverted bottleneck: a 1x1 expansion, a depthwise convolution, and a 1x1 projection.

    Attributes:
        block: the hyperparameters.
        dtype: the dtype of the computation.
    """

    block: Block
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, ceil(H / stride), ceil(W / stride), width]` for `[N, H, W, C]`."""
        window, stride, expansion, width = self.block
        hidden = x
        if expansion > 1:
            hidden = nn.relu6(nn.Dense(expansion * x.shape[-1], dtype=self.dtype, name="expand")(hidden))
        hidden = nn.relu6(Depthwise(window, stride, name="depthwise")(hidden))
        projected = nn.Dense(width, dtype=self.dtype, name="project")(hidden)
        return projected + x if x.shape == projected.shape else projected


class Depthwise(nn.Module):
    """A depthwise convolution with a bias.

    Attributes:
        window: height and width of the kernel.
        stride: the step along height and width.
    """

    window: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, ceil(H / stride), ceil(W / stride), C]` for `[N, H, W, C]`."""
        shape = (self.window, self.window, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        convolved = depthwise_convolve(x, kernel.astype(x.dtype), stride=self.stride)
        return convolved + bias.astype(x.dtype).reshape(1, 1, 1, -1)
