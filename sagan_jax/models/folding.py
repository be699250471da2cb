"""Folding of the running moments of a trained network's batch norms into their scales and shifts."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

Tree = Mapping[str, Any]


def fold_batch_stats(params: Tree, batch_stats: Tree, *, epsilon: float) -> dict[str, Any]:
    """Returns parameters for the same network with `folded=True`, which gives the same outputs without `batch_stats`.

        s (x - m) / sqrt(v + e) + t  =  s' x + t',    s' = s / sqrt(v + e),  t' = t - m s'

    In a norm whose `gain` is a map, the equation applies to each row of the two kernels. Such a norm adds 1 to its
    scale, so a scale `s'` and a shift `t'` for each channel are added to its parameters. The size of a "scaled_map" is
    multiplied into its kernel. The kernels of a "free_map" are renamed to those of a "map". This function does not
    apply spectral normalisation: `params` are the parameters that the network is applied with.

    Args:
        params: nested dictionaries of floating arrays, after spectral normalisation if the network was trained with it.
        batch_stats: the same nesting with `{"mean": [C], "variance": [C]}` for each norm, and no other entries.
        epsilon: the network's `norm_epsilon`.

    Returns:
        Parameters with the nesting of `params`, in float32 or wider.

    Raises:
        KeyError: when `batch_stats` has an entry that `params` does not have.

    Examples:
        >>> import jax.numpy as jnp
        >>> norm = {"scale": jnp.array([6.0]), "shift": jnp.array([1.0])}
        >>> params = {"norm": norm, "conv": {"bias": jnp.array([5.0])}}
        >>> moments = {"norm": {"mean": jnp.array([2.0]), "variance": jnp.array([4.0])}}
        >>> folded = fold_batch_stats(params, moments, epsilon=0.0)
        >>> {name: leaf.tolist() for name, leaf in folded["norm"].items()}, folded["conv"]["bias"].tolist()
        ({'scale': [3.0], 'shift': [-5.0]}, [5.0])
    """
    missing = sorted(set(batch_stats) - set(params))
    if missing:
        raise KeyError(f"batch_stats needs the entries of params, {sorted(params)}; got also {missing}.")
    folded = dict(params)
    for name, entry in batch_stats.items():
        if set(entry) == {"mean", "variance"}:
            folded[name] = _fold_norm(params[name], entry["mean"], entry["variance"], epsilon)
        else:
            folded[name] = fold_batch_stats(params[name], entry, epsilon=epsilon)
    return folded


def _fold_norm(norm: Tree, mean: Array, variance: Array, epsilon: float) -> dict[str, Array]:
    """Returns the parameters of one folded `ConditionalBatchNorm`."""
    wide = jnp.promote_types(jnp.result_type(variance), jnp.float32)
    inverse = 1 / jnp.sqrt(jnp.asarray(variance, wide) + epsilon)

    def fold(scale: Array, shift: Array) -> tuple[Array, Array]:
        """Folds the moments into a scale and a shift, each `[..., C]`."""
        axes = tuple(range(jnp.ndim(scale) - 1))
        scale = scale * jnp.expand_dims(inverse, axes)
        return scale, shift - jnp.expand_dims(mean, axes) * scale

    if "scale" in norm:
        scale, shift = fold(norm["scale"], norm["shift"])
        return {"scale": scale, "shift": shift}
    scale, shift = fold(jnp.ones_like(inverse), jnp.zeros_like(inverse))
    scale_kernel, shift_kernel = fold(*(map_kernel(norm, part) for part in ("scale", "shift")))
    return {"scale": scale, "shift": shift, "scale_kernel": scale_kernel, "shift_kernel": shift_kernel}


def map_kernel(norm: Tree, part: str) -> Array:
    """Returns the kernel `[K, C]` of a map of a `ConditionalBatchNorm`, for any form of map.

    Args:
        norm: the parameters of the norm, whose form is not "table".
        part: "scale" or "shift".

    Examples:
        >>> import jax.numpy as jnp
        >>> norm = {"scale_kernel": jnp.ones((4, 1)), "scale_size": jnp.float32(0.25)}  # 0.25 sqrt(max(4, 1))
        >>> map_kernel(norm, "scale").ravel().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    if f"{part}_map" in norm:
        return norm[f"{part}_map"]
    kernel = norm[f"{part}_kernel"]
    return kernel * (norm[f"{part}_size"] * math.sqrt(max(jnp.shape(kernel)))) if f"{part}_size" in norm else kernel
