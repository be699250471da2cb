"""The network of the FID: Inception v3 as the TensorFlow graph of 2015-12-05 has it, its batch norms folded in."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")
"""What comes out, named as torch-fidelity names it: the widths of pooled features, and the class scores."""

SIZE = 299
"""Height and width of the images that go in."""


class Inception(nn.Module):
    """Inception v3 whose average pools leave the padding out, with a max pool in its last block.

    The parameters have the paths of the published state dict. Kernels are HWIO; each convolution has the bias that its
    batch norm became, and a ReLU.

    Source: toshas/torch-fidelity:torch_fidelity/feature_extractor_inceptionv3.py.
    """

    @nn.compact
    def __call__(self, images: Array) -> dict[str, Array]:
        """Returns every tap.

        Args:
            images: `[N, 299, 299, 3]` in [-1, 1), floating.

        Returns:
            `64`, `192`, `768`, `2048`: `[N, width]`, averages over all positions. `logits_unbiased`, `logits`:
            `[N, 1008]`, without and with the biases of the last layer.
        """
        taps = {}
        x = convolve(images, "Conv2d_1a_3x3", 32, (3, 3), strides=2, padding="VALID")
        x = convolve(x, "Conv2d_2a_3x3", 32, (3, 3), padding="VALID")
        x = convolve(x, "Conv2d_2b_3x3", 64, (3, 3))
        x = halving_max_pool(x)
        taps["64"] = x.mean((1, 2))
        x = convolve(x, "Conv2d_3b_1x1", 80)
        x = convolve(x, "Conv2d_4a_3x3", 192, (3, 3), padding="VALID")
        x = halving_max_pool(x)
        taps["192"] = x.mean((1, 2))
        x = Mixed5(32, name="Mixed_5b")(x)
        x = Mixed5(64, name="Mixed_5c")(x)
        x = Mixed5(64, name="Mixed_5d")(x)
        x = Mixed6a(name="Mixed_6a")(x)
        x = Mixed6(128, name="Mixed_6b")(x)
        x = Mixed6(160, name="Mixed_6c")(x)
        x = Mixed6(160, name="Mixed_6d")(x)
        x = Mixed6(192, name="Mixed_6e")(x)
        taps["768"] = x.mean((1, 2))
        x = Mixed7a(name="Mixed_7a")(x)
        x = Mixed7(average_pool, name="Mixed_7b")(x)
        x = Mixed7(max_pool, name="Mixed_7c")(x)
        taps["2048"] = x.mean((1, 2))
        classes = nn.Dense(1008, name="fc")
        taps["logits"] = classes(taps["2048"])
        taps["logits_unbiased"] = taps["logits"] - classes.variables["params"]["bias"][None]
        return taps


class Mixed5(nn.Module):
    """The blocks at 35x35.

    Attributes:
        pooled: channels of the branch behind the pool.
    """

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 35, 35, 224 + pooled]` for `[N, 35, 35, C]`."""
        one = convolve(x, "branch1x1", 64)
        five = convolve(x, "branch5x5_1", 48)
        five = convolve(five, "branch5x5_2", 64, (5, 5))
        double = convolve(x, "branch3x3dbl_1", 64)
        double = convolve(double, "branch3x3dbl_2", 96, (3, 3))
        double = convolve(double, "branch3x3dbl_3", 96, (3, 3))
        pooled = convolve(average_pool(x), "branch_pool", self.pooled)
        return jnp.concatenate([one, five, double, pooled], axis=-1)


class Mixed6a(nn.Module):
    """From 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 17, 17, 480 + C]` for `[N, 35, 35, C]`."""
        three = convolve(x, "branch3x3", 384, (3, 3), strides=2, padding="VALID")
        double = convolve(x, "branch3x3dbl_1", 64)
        double = convolve(double, "branch3x3dbl_2", 96, (3, 3))
        double = convolve(double, "branch3x3dbl_3", 96, (3, 3), strides=2, padding="VALID")
        return jnp.concatenate([three, double, halving_max_pool(x)], axis=-1)


class Mixed6(nn.Module):
    """The blocks at 17x17, whose 7x7 convolutions are pairs of thin ones.

    Attributes:
        width: channels between the thin convolutions.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 17, 17, 768]` for `[N, 17, 17, C]`."""
        one = convolve(x, "branch1x1", 192)
        seven = convolve(x, "branch7x7_1", self.width)
        seven = convolve(seven, "branch7x7_2", self.width, (1, 7))
        seven = convolve(seven, "branch7x7_3", 192, (7, 1))
        double = convolve(x, "branch7x7dbl_1", self.width)
        double = convolve(double, "branch7x7dbl_2", self.width, (7, 1))
        double = convolve(double, "branch7x7dbl_3", self.width, (1, 7))
        double = convolve(double, "branch7x7dbl_4", self.width, (7, 1))
        double = convolve(double, "branch7x7dbl_5", 192, (1, 7))
        pooled = convolve(average_pool(x), "branch_pool", 192)
        return jnp.concatenate([one, seven, double, pooled], axis=-1)


class Mixed7a(nn.Module):
    """From 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 8, 8, 512 + C]` for `[N, 17, 17, C]`."""
        three = convolve(x, "branch3x3_1", 192)
        three = convolve(three, "branch3x3_2", 320, (3, 3), strides=2, padding="VALID")
        seven = convolve(x, "branch7x7x3_1", 192)
        seven = convolve(seven, "branch7x7x3_2", 192, (1, 7))
        seven = convolve(seven, "branch7x7x3_3", 192, (7, 1))
        seven = convolve(seven, "branch7x7x3_4", 192, (3, 3), strides=2, padding="VALID")
        return jnp.concatenate([three, seven, halving_max_pool(x)], axis=-1)


class Mixed7(nn.Module):
    """The blocks at 8x8.

    Attributes:
        pool: the pool of the last branch: an average in the first of the two blocks, a maximum in the second.
    """

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, 8, 8, 2048]` for `[N, 8, 8, C]`."""
        one = convolve(x, "branch1x1", 320)
        three = convolve(x, "branch3x3_1", 384)
        wide, high = convolve(three, "branch3x3_2a", 384, (1, 3)), convolve(three, "branch3x3_2b", 384, (3, 1))
        double = convolve(x, "branch3x3dbl_1", 448)
        double = convolve(double, "branch3x3dbl_2", 384, (3, 3))
        double_wide = convolve(double, "branch3x3dbl_3a", 384, (1, 3))
        double_high = convolve(double, "branch3x3dbl_3b", 384, (3, 1))
        pooled = convolve(self.pool(x), "branch_pool", 192)
        return jnp.concatenate([one, wide, high, double_wide, double_high, pooled], axis=-1)


def convolve(
    x: Array, name: str, features: int, window: tuple[int, int] = (1, 1), *, strides: int = 1, padding: str = "SAME"
) -> Array:
    """Returns the rectified convolution; its parameters go to `name` in the calling module.

    Args:
        x: `[N, H, W, C]`, floating.
        name: as in the published state dict.
        features: channels that come out.
        window: height and width of the kernel.
        strides: of both axes.
        padding: `SAME`: as many zeros around as leave the sides what they are; `VALID`: none.

    Returns:
        `[N, H', W', features]`.
    """
    if padding == "SAME":
        return nn.relu(nn.Conv(features, window, strides, name=name)(x))
    # XLA is two to five times as fast on a CPU where there is any padding; windows that reach into it are cut off.
    height, width = ((side - size) // strides + 1 for side, size in zip(x.shape[1:3], window, strict=True))
    padded = nn.Conv(features, window, strides, ((0, 1), (0, 1)), name=name)(x)
    return nn.relu(padded[:, :height, :width])


def average_pool(x: Array) -> Array:
    """Returns the average over each 3x3 window, at the borders over what is there."""
    counts = _pool(jnp.ones((1, *x.shape[1:3], 1), x.dtype), jnp.add, 0.0, strides=1)
    return _pool(x, jnp.add, 0.0, strides=1) / counts


def max_pool(x: Array) -> Array:
    """Returns the maximum of each 3x3 window, with the sides as they are."""
    return _pool(x, jnp.maximum, -jnp.inf, strides=1)


def halving_max_pool(x: Array) -> Array:
    """Returns the maximum of every second 3x3 window that is whole: from sides 2n + 1 to n."""
    return _pool(x, jnp.maximum, -jnp.inf, strides=2)


def _pool(x: Array, combine: Callable[[Array, Array], Array], outside: float, *, strides: int) -> Array:
    """Returns 3x3 windows combined: nine shifted images, which XLA fuses; its own windows are slow on a CPU.

    Args:
        x: `[N, H, W, C]`.
        combine: of two arrays.
        outside: what lies around the image, where `strides` is 1.
        strides: 1 with a border of one pixel, 2 without.
    """
    if strides == 1:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
    height, width = x.shape[1] - 2, x.shape[2] - 2
    shifted = [x[:, i : i + height : strides, j : j + width : strides] for i in range(3) for j in range(3)]
    return functools.reduce(combine, shifted)
