"""DINOv2: a self-supervised vision transformer whose class token judges image similarity nearly as people do."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

EPSILON = 1e-6
"""Added to the variance in each layer norm."""

_OFFSET = 0.1  # in patches; the authors add it to the new sides of the position table


class DinoV2(nn.Module):
    """A vision transformer with layer scale, and with register tokens if there are any.

    The parameters have the paths of the published state dict. The defaults are those of ViT-L/14.

    Attributes:
        width: the features of a token.
        depth: the number of blocks.
        num_heads: the number of heads of each attention layer; it divides the width.
        hidden: the width between the two linear maps of each feed-forward layer.
        gated: whether the feed-forward layers are SwiGLU, as in ViT-g. Otherwise they are two linear maps with a GELU.
        patch_size: the height and width of a patch in pixels.
        table_side: the side of the position table: the number of patches along a side of the training images.
        registers: the number of register tokens. With them the position table is resized with antialiasing.

    Source: Oquab et al. 2023 (arXiv:2304.07193); Darcet et al. 2023 (arXiv:2309.16588), registers;
    facebookresearch/dinov2:dinov2/models/vision_transformer.py.
    """

    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    hidden: int = 4096
    gated: bool = False
    patch_size: int = 14
    table_side: int = 37
    registers: int = 0

    @nn.compact
    def __call__(self, images: Array) -> dict[str, Array]:
        """Returns the tokens after the last layer norm.

        Args:
            images: `[N, H, W, 3]`, floating, RGB normalised by the mean and standard deviation of ImageNet. H and W are
                multiples of `patch_size`.

        Returns:
            `class_token` `[N, width]` and `patch_tokens` `[N, H/patch_size * W/patch_size, width]`, row by row.

        Raises:
            ValueError: when the images have another shape.
        """
        size = self.patch_size
        if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] % size or images.shape[2] % size:
            raise ValueError(
                f"DinoV2 needs images [N, H, W, 3] whose sides are multiples of {size}; got {list(images.shape)}."
            )
        patches = nn.Conv(self.width, (size, size), (size, size), padding="VALID", name="patch_embed")(images)
        number, rows, columns = patches.shape[:3]
        first = self._tokens("cls_token", 1)
        table = self._tokens("pos_embed", 1 + self.table_side**2)
        positions = self._resize(table[0, 1:], rows, columns)
        tokens = [
            jnp.broadcast_to(first + table[:, :1], (number, 1, self.width)),
            patches.reshape(number, rows * columns, self.width) + positions,
        ]
        if self.registers:
            registers = self._tokens("register_tokens", self.registers)
            tokens.insert(1, jnp.broadcast_to(registers, (number, self.registers, self.width)))
        x = jnp.concatenate(tokens, axis=1)
        for index in range(self.depth):
            x = Block(self.num_heads, self.hidden, self.gated, name=f"blocks_{index}")(x)
        x = _norm("norm")(x)
        return {"class_token": x[:, 0], "patch_tokens": x[:, 1 + self.registers :]}

    def _tokens(self, name: str, count: int) -> Array:
        """Returns learned tokens, `[1, count, width]`."""
        return self.param(name, nn.initializers.normal(0.02), (1, count, self.width))

    def _resize(self, table: Array, rows: int, columns: int) -> Array:
        """Returns the position table `[table_side**2, width]`, resized to `[1, rows * columns, width]`."""
        side = self.table_side
        if (rows, columns) == (side, side):
            return table[jnp.newaxis]
        offset = 0.0 if self.registers else _OFFSET
        down, across = (
            bicubic_weights(side, new, (new + offset) / side, antialias=self.registers > 0).astype(np.float32)
            for new in (rows, columns)
        )
        resized = jnp.einsum("ri,cj,ijd->rcd", down, across, table.reshape(side, side, self.width))
        return resized.reshape(1, rows * columns, self.width)


class Block(nn.Module):
    """A transformer block: attention and a feed-forward layer, each with layer scale and a residual connection.

    Attributes:
        num_heads: the number of heads of the attention layer.
        hidden: the width inside the feed-forward layer.
        gated: whether the feed-forward layer is SwiGLU.
    """

    num_heads: int
    hidden: int
    gated: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, T, width]` for `[N, T, width]`."""
        x = x + LayerScale(name="ls1")(Attention(self.num_heads, name="attn")(_norm("norm1")(x)))
        feed_forward = (GatedFeedForward if self.gated else FeedForward)(self.hidden, name="mlp")
        return x + LayerScale(name="ls2")(feed_forward(_norm("norm2")(x)))


class Attention(nn.Module):
    """Multi-head softmax attention over all tokens, with scores divided by the root of the head width.

    Attributes:
        num_heads: the number of heads; it divides the width.
    """

    num_heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, T, width]` for `[N, T, width]`."""
        number, tokens, width = x.shape
        joined = nn.Dense(3 * width, name="qkv")(x)
        joined = joined.reshape(number, tokens, 3, self.num_heads, width // self.num_heads)
        queries, keys, values = (joined[:, :, part] for part in range(3))
        mixed = jax.nn.dot_product_attention(queries, keys, values)
        return nn.Dense(width, name="proj")(mixed.reshape(number, tokens, width))


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them.

    Attributes:
        hidden: the width between them.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, T, width]` for `[N, T, width]`."""
        inner = nn.gelu(nn.Dense(self.hidden, name="fc1")(x), approximate=False)
        return nn.Dense(x.shape[-1], name="fc2")(inner)


class GatedFeedForward(nn.Module):
    """SwiGLU: one half of the first linear map's output gates the other half.

    Attributes:
        hidden: the width of each half.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[N, T, width]` for `[N, T, width]`."""
        gate, value = jnp.split(nn.Dense(2 * self.hidden, name="w12")(x), 2, axis=-1)
        return nn.Dense(x.shape[-1], name="w3")(nn.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned scale for each feature."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[..., width]` for `[..., width]`."""
        return x * self.param("gamma", nn.initializers.ones, x.shape[-1:])[(jnp.newaxis,) * (x.ndim - 1)]


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(EPSILON, use_fast_variance=False, name=name)


def bicubic_weights(old: int, new: int, scale: float, *, antialias: bool) -> np.ndarray:
    """Returns the weights of old positions in new positions for bicubic resizing of one side, as in PyTorch.

    New position i has the coordinate (i + 1/2) / scale - 1/2 in old positions. Without antialiasing it is interpolated
    from four old positions with a = -3/4; positions beyond the border repeat the outermost one. With antialiasing the
    kernel has a = -1/2, is stretched by max(1, 1 / scale), and is cut off at the border. `scale` need not be
    `new / old`: the authors of DINOv2 add a tenth of a patch to the new side.

    Args:
        old: the number of old positions.
        new: the number of new positions.
        scale: the number of new positions per old position.
        antialias: whether the kernel is stretched for downsampling.

    Returns:
        `[new, old]` float64; each row sums to one.

    Source: Keys 1981, equation 15; pytorch/pytorch:aten/src/ATen/native/UpSample.h.

    Examples:
        >>> bicubic_weights(3, 6, 2.0, antialias=False)[2].tolist()
        [0.2265625, 0.87890625, -0.10546875]
    """
    places = (np.arange(new) + 0.5) / scale - 0.5
    if antialias:
        stretch = max(1.0, 1.0 / scale)
        weights = _cubic((np.arange(old) - places[:, np.newaxis]) / stretch, -0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    weights = np.zeros((new, old))
    for step in range(-1, 3):
        neighbours = np.floor(places) + step
        inside = np.clip(neighbours, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), inside), _cubic(places - neighbours, -0.75))
    return weights


def _cubic(distances: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic convolution kernel at some distances; `a` is its slope at distance 1."""
    x = np.abs(distances)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def table_side(positions: int) -> int | None:
    """Returns the side of a square position table, or None when it is not square.

    Examples:
        >>> table_side(1369)
        37
    """
    side = math.isqrt(positions)
    return side if side > 0 and side**2 == positions else None
