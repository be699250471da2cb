"""The FID network: Inception v3 as in the TensorFlow graph of 2015-12-05, with batch norms folded into kernels."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

FEATURE_LAYERS = ("64", "192", "768", "2048", "logits_unbiased", "logits")
"""The outputs, with the names of torch-fidelity: pooled features by their width, and two kinds of logits."""

INPUT_IMAGE_SIZE = 299
"""The height and width of input images."""


class Inception(nn.Module):
    """Inception v3 whose average pooling excludes the padding, and whose last block uses max pooling.

    The parameters have the paths of the published state dict. Kernels are HWIO. Each convolution has a bias, which
    replaces its batch norm, and a ReLU.

    Source: toshas/torch-fidelity:torch_fidelity/feature_extractor_inceptionv3.py.
    """

    @nn.compact
    def __call__(self, images: Array) -> dict[str, Array]:
        """Returns all features by name.

        Args:
            images: `[N, 299, 299, 3]` in [-1, 1), floating.

        Returns:
            `64`, `192`, `768`, `2048`: `[N, width]`, averages over all positions. `logits_unbiased` and `logits`:
            `[N, 1008]`, without and with the biases of the last layer.
        """
        features = {}
        x = conv_relu(images, "Conv2d_1a_3x3", 32, (3, 3), strides=2, padding="VALID")
        x = conv_relu(x, "Conv2d_2a_3x3", 32, (3, 3), padding="VALID")
        x = conv_relu(x, "Conv2d_2b_3x3", 64, (3, 3))
        x = strided_max_pool(x)
        features["64"] = x.mean((1, 2))
        x = conv_relu(x, "Conv2d_3b_1x1", 80)
        x = conv_relu(x, "Conv2d_4a_3x3", 192, (3, 3), padding="VALID")
        x = strided_max_pool(x)
        features["192"] = x.mean((1, 2))
        x = Mixed5(32, name="Mixed_5b")(x)
        x = Mixed5(64, name="Mixed_5c")(x)
        x = Mixed5(64, name="Mixed_5d")(x)
        x = Mixed6a(name="Mixed_6a")(x)
        x = Mixed6(128, name="Mixed_6b")(x)
        x = Mixed6(160, name="Mixed_6c")(x)
        x = Mixed6(160, name="Mixed_6d")(x)
        x = Mixed6(192, name="Mixed_6e")(x)
        features["768"] = x.mean((1, 2))
        x = Mixed7a(name="Mixed_7a")(x)
        x = Mixed7(average_pool, name="Mixed_7b")(x)
        x = Mixed7(max_pool, name="Mixed_7c")(x)
        features["2048"] = x.mean((1, 2))
        classes = nn.Dense(1008, name="fc")
        features["logits"] = classes(features["2048"])
        features["logits_unbiased"] = features["logits"] - classes.variables["params"]["bias"][None]
        return features


class Mixed5(nn.Module):
    """The blocks at 35x35.

    Attributes:
        pooled: the channels of the branch with the pool.
    """

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 35, 35, 224 + pooled]` for `[N, 35, 35, C]`."""
        one = conv_relu(x, "branch1x1", 64)
        five = conv_relu(x, "branch5x5_1", 48)
        five = conv_relu(five, "branch5x5_2", 64, (5, 5))
        double = conv_relu(x, "branch3x3dbl_1", 64)
        double = conv_relu(double, "branch3x3dbl_2", 96, (3, 3))
        double = conv_relu(double, "branch3x3dbl_3", 96, (3, 3))
        pooled = conv_relu(average_pool(x), "branch_pool", self.pooled)
        return jnp.concatenate([one, five, double, pooled], axis=-1)


class Mixed6a(nn.Module):
    """The block from 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 17, 17, 480 + C]` for `[N, 35, 35, C]`."""
        three = conv_relu(x, "branch3x3", 384, (3, 3), strides=2, padding="VALID")
        double = conv_relu(x, "branch3x3dbl_1", 64)
        double = conv_relu(double, "branch3x3dbl_2", 96, (3, 3))
        double = conv_relu(double, "branch3x3dbl_3", 96, (3, 3), strides=2, padding="VALID")
        return jnp.concatenate([three, double, strided_max_pool(x)], axis=-1)


class Mixed6(nn.Module):
    """The blocks at 17x17. Each 7x7 convolution is factorised into 1x7 and 7x1.

    Attributes:
        width: the channels between the factorised convolutions.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 17, 17, 768]` for `[N, 17, 17, C]`."""
        one = conv_relu(x, "branch1x1", 192)
        seven = conv_relu(x, "branch7x7_1", self.width)
        seven = conv_relu(seven, "branch7x7_2", self.width, (1, 7))
        seven = conv_relu(seven, "branch7x7_3", 192, (7, 1))
        double = conv_relu(x, "branch7x7dbl_1", self.width)
        double = conv_relu(double, "branch7x7dbl_2", self.width, (7, 1))
        double = conv_relu(double, "branch7x7dbl_3", self.width, (1, 7))
        double = conv_relu(double, "branch7x7dbl_4", self.width, (7, 1))
        double = conv_relu(double, "branch7x7dbl_5", 192, (1, 7))
        pooled = conv_relu(average_pool(x), "branch_pool", 192)
        return jnp.concatenate([one, seven, double, pooled], axis=-1)


class Mixed7a(nn.Module):
    """The block from 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 8, 8, 512 + C]` for `[N, 17, 17, C]`."""
        three = conv_relu(x, "branch3x3_1", 192)
        three = conv_relu(three, "branch3x3_2", 320, (3, 3), strides=2, padding="VALID")
        seven = conv_relu(x, "branch7x7x3_1", 192)
        seven = conv_relu(seven, "branch7x7x3_2", 192, (1, 7))
        seven = conv_relu(seven, "branch7x7x3_3", 192, (7, 1))
        seven = conv_relu(seven, "branch7x7x3_4", 192, (3, 3), strides=2, padding="VALID")
        return jnp.concatenate([three, seven, strided_max_pool(x)], axis=-1)


class Mixed7(nn.Module):
    """The blocks at 8x8.

    Attributes:
        pool: the pool of the last branch: average in the first block, maximum in the second.
    """

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 8, 8, 2048]` for `[N, 8, 8, C]`."""
        one = conv_relu(x, "branch1x1", 320)
        three = conv_relu(x, "branch3x3_1", 384)
        wide, high = conv_relu(three, "branch3x3_2a", 384, (1, 3)), conv_relu(three, "branch3x3_2b", 384, (3, 1))
        double = conv_relu(x, "branch3x3dbl_1", 448)
        double = conv_relu(double, "branch3x3dbl_2", 384, (3, 3))
        double_wide = conv_relu(double, "branch3x3dbl_3a", 384, (1, 3))
        double_high = conv_relu(double, "branch3x3dbl_3b", 384, (3, 1))
        pooled = conv_relu(self.pool(x), "branch_pool", 192)
        return jnp.concatenate([one, wide, high, double_wide, double_high, pooled], axis=-1)


def conv_relu(
    x: Array, name: str, features: int, window: tuple[int, int] = (1, 1), *, strides: int = 1, padding: str = "SAME"
) -> Array:
    """Returns the ReLU of a convolution. Its parameters belong to the calling module, under `name`.

    Args:
        x: `[N, H, W, C]`, floating.
        name: the name in the published state dict.
        features: the number of output channels.
        window: the height and width of the kernel.
        strides: the stride of both axes.
        padding: `SAME` pads with zeros so that height and width stay the same. `VALID` does not pad.

    Returns:
        `[N, H', W', features]`.
    """
    if padding == "SAME":
        return nn.relu(nn.Conv(features, window, strides, name=name)(x))
    # On a CPU, XLA is two to five times faster with padding. Outputs whose windows reach into the padding are dropped.
    height, width = ((side - size) // strides + 1 for side, size in zip(x.shape[1:3], window, strict=True))
    padded = nn.Conv(features, window, strides, ((0, 1), (0, 1)), name=name)(x)
    return nn.relu(padded[:, :height, :width])


def average_pool(x: Array) -> Array:
    """Returns the average of each 3x3 window. At the borders, the average excludes the padding."""
    counts = _pool(jnp.ones((1, *x.shape[1:3], 1), x.dtype), jnp.add, 0.0, strides=1)
    return _pool(x, jnp.add, 0.0, strides=1) / counts


def max_pool(x: Array) -> Array:
    """Returns the maximum of each 3x3 window; height and width stay the same."""
    return _pool(x, jnp.maximum, -jnp.inf, strides=1)


def strided_max_pool(x: Array) -> Array:
    """Returns the maximum of 3x3 windows with stride 2 and no padding: side 2n + 1 becomes n."""
    return _pool(x, jnp.maximum, -jnp.inf, strides=2)


def _pool(x: Array, combine: Callable[[Array, Array], Array], outside: float, *, strides: int) -> Array:
    """Returns a reduction over 3x3 windows.

    The nine shifted images are combined in one fused loop, since XLA's `reduce_window` is slow on a CPU.

    Args:
        x: `[N, H, W, C]`.
        combine: the reduction of two arrays.
        outside: the value of the padding when `strides` is 1.
        strides: 1 with a padding of one pixel, or 2 without padding.
    """
    if strides == 1:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
    height, width = x.shape[1] - 2, x.shape[2] - 2
    shifted = [x[:, i : i + height : strides, j : j + width : strides] for i in range(3) for j in range(3)]
    return functools.reduce(combine, shifted)
