"""Parameters of a test: their shapes and number without making them, and values away from where they start."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def variable_shapes(network: nn.Module, *input_shape: int, batch_size: int = 2) -> Any:
    """Returns the shapes of what `network.init` would make for a batch of inputs of that shape, all of class 0."""
    inputs, labels = jnp.zeros((batch_size, *input_shape)), jnp.zeros(batch_size, jnp.int32)
    return jax.eval_shape(lambda: network.init(jax.random.key(0), inputs, labels, train=False))


def num_parameters(tree: Any) -> int:
    """Returns how many numbers a tree of arrays or of shapes holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def draw_tree(shapes: Any, seed: int) -> Any:
    """Returns variables of these shapes that no network starts with: every gate open, every norm far from (0, 1)."""
    drawn = np.random.default_rng(seed)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _draw_leaf(drawn, path[-1].key, leaf), shapes)


def drawn_function(network: nn.Module, *input_shape: int, seed: int = 0) -> Callable[[Any, Any], jax.Array]:
    """Returns the network, with drawn variables and in evaluation, as a function of inputs and labels."""
    variables = draw_tree(dict(variable_shapes(network, *input_shape)), seed)
    return jax.jit(partial(network.apply, variables, train=False))


def perturbed(tree: Any, scale: float, seed: int = 0) -> Any:
    """Returns float32 leaves with normal noise added: where networks start, gates are 0 and all classes look alike."""
    drawn = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + scale * drawn.normal(size=leaf.shape).astype(np.float32), tree)


def _draw_leaf(drawn: np.random.Generator, name: str, leaf: Any) -> np.ndarray:
    noise = drawn.normal(size=leaf.shape)
    if name == "variance":
        noise = drawn.uniform(0.1, 4, size=leaf.shape)
    elif name in ("scale", "gamma"):
        noise = 1 + 0.3 * noise
    elif name in ("scale_size", "shift_size"):
        noise = 0.3 + 0.1 * noise
    elif name in ("scale_kernel", "shift_kernel", "scale_map", "shift_map", "shift", "bias"):
        noise = 0.3 * noise
    elif name.endswith("kernel"):
        noise = noise / np.sqrt(np.prod(leaf.shape[:-1]))
    return noise.astype(leaf.dtype)
