"""Folding of a published batch norm into the convolution before it."""

from collections.abc import Mapping

import numpy as np

PARTS = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a batch norm, with PyTorch's names."""


def fold(
    kernel: np.ndarray, arrays: Mapping[str, np.ndarray], norm: str, *, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel and the bias of one convolution that equals a convolution without bias followed by its norm.

        s = weight / sqrt(running_var + epsilon);    the kernel becomes s kernel, the bias becomes bias - s running_mean

    Computed in float64.

    Args:
        kernel: `[.., C]`, floating, with the output channels last.
        arrays: a state dict with the four tensors of the norm, each `[C]`. Variances are nonnegative.
        norm: the name of the norm.
        epsilon: the epsilon of the norm.

    Returns:
        `[.., C]` and `[C]`, float64.

    Examples:
        >>> parts = {"n.weight": [6], "n.bias": [1], "n.running_mean": [2], "n.running_var": [4]}
        >>> state = {name: np.array(values) for name, values in parts.items()}
        >>> kernel, bias = fold(np.array([[5.0]]), state, "n", epsilon=0)
        >>> kernel.tolist(), bias.tolist()
        ([[15.0]], [-5.0])
    """
    weight, bias, mean, variance = (arrays[f"{norm}.{part}"].astype(np.float64) for part in PARTS)
    scale = weight / np.sqrt(variance + epsilon)
    return kernel * scale, bias - mean * scale
