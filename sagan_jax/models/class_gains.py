"""The class-conditional gains of a generator: how far they can move, and how much they differ between classes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sagan_jax.models.folding import map_kernel
from sagan_jax.models.layers import Gain, check_choice

Tree = Mapping[str, Any]


class ClassGains(NamedTuple):
    """The deviation of a norm's gains from 1 and of its shifts from 0, for K classes and C channels."""

    gains: np.ndarray
    """`[K, C]` float64: gain - 1"""
    shifts: np.ndarray
    """`[K, C]` float64"""


def largest_movement(gain: Gain, classes: int, channels: int) -> float:
    """Returns the largest root mean square (RMS) of gain - 1 that a form of `ConditionalBatchNorm` can reach.

    The same bound holds for shifts. With spectral norm, a K x C kernel has min(K, C) singular values of at most 1. The
    sum of their squares is the sum of the squares of all entries:

        mean square  <=  min(K, C) / (K C)  =  1 / max(K, C)

    The other forms are unbounded. A single class can have a larger RMS: 1/sqrt(C) over its C channels. A single entry
    can reach 1. With at most C classes, all classes can reach their bound at once.

    Args:
        gain: the form.
        classes: K, at least 1.
        channels: C, at least 1.

    Raises:
        ValueError: when `gain` has an unknown value, or a number is below 1.

    Examples:
        >>> largest_movement("map", 10, 256), largest_movement("table", 10, 256)
        (0.0625, inf)
    """
    check_choice("gain", gain, Gain)
    if min(classes, channels) < 1:
        raise ValueError(f"largest_movement needs at least one class and one channel; got {classes} and {channels}.")
    return 1 / math.sqrt(max(classes, channels)) if gain == "map" else math.inf


def class_gains(params: Tree) -> dict[str, ClassGains]:
    """Returns the class gains and shifts of each conditional norm of a SAGAN or a DCGAN.

    Args:
        params: nested dictionaries of floating arrays, after spectral normalisation if the network was trained with it,
            as in `TrainedGenerator.variables["params"]`. In a folded network the gains must be maps: in folded tables,
            the running moments cannot be separated from the gains.

    Returns:
        The gains by the path of the norm, such as `block_1/norm_1`. Empty if no norm is conditional.

    Examples:
        >>> params = {"norm_1": {"scale": np.array([[1.5, 1.0], [0.75, 1.0]]), "shift": np.zeros((2, 2))}}
        >>> class_gains(params)["norm_1"].gains.tolist()
        [[0.5, 0.0], [-0.25, 0.0]]
    """
    return dict(_class_gains(params, ""))


def _class_gains(params: Tree, scope: str) -> Iterator[tuple[str, ClassGains]]:
    for name, entry in params.items():
        if not isinstance(entry, Mapping):
            continue
        path = f"{scope}{name}"
        is_map = "scale_kernel" in entry or "scale_map" in entry
        if is_map or ("shift" in entry and np.ndim(entry["shift"]) == 2):
            wide = {leaf: np.asarray(array, np.float64) for leaf, array in entry.items()}
            yield path, _gains_of_map(wide) if is_map else ClassGains(wide["scale"] - 1, wide["shift"])
        else:
            yield from _class_gains(entry, f"{path}/")


def _gains_of_map(norm: Mapping[str, np.ndarray]) -> ClassGains:
    """Returns the rows of both kernels. If the norm is folded, undoes the folding first."""
    scale, shift = (np.asarray(map_kernel(norm, part), np.float64) for part in ("scale", "shift"))
    if "scale" in norm:  # folded: s' = s / d and t' = t - m s'; 1 / d and -m / d are stored as "scale" and "shift"
        shift = shift - norm["shift"] / norm["scale"] * scale
        scale = scale / norm["scale"]
    return ClassGains(scale, shift)


def root_mean_square(values: np.ndarray) -> float:
    """Returns the root mean square of all entries.

    Examples:
        >>> root_mean_square(np.array([[3.0, 4.0], [0.0, 0.0]]))
        2.5
    """
    return float(np.sqrt(np.mean(np.square(values))))


def between_classes(values: np.ndarray) -> float:
    """Returns the root mean square of the deviations of each class from the mean over classes, per channel.

    Examples:
        >>> between_classes(np.array([[3.0, 1.0], [1.0, 1.0]]))
        0.7071067811865476
    """
    return root_mean_square(values - values.mean(axis=0))
