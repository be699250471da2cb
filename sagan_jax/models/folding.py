"""Folding: the statistics that a trained network stores become part of its scales and shifts."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

Tree = Mapping[str, Any]


def fold_statistics(params: Tree, batch_stats: Tree, *, epsilon: float) -> dict[str, Any]:
    """Returns the parameters of the same network with `folded=True`, which draws what this one draws.

        s (x - m) / sqrt(v + e) + t  =  s' x + t',    s' = s / sqrt(v + e),  t' = t - m s'

    Where a vector maps to scale and shift (`gain="map"`), the equation holds for each row of the map's kernels, and a
    scale `s'` and shift `t'` of the channels are added for the 1 that such a layer adds. Spectral normalisation is not
    done here: the parameters are those that the network is applied to.

    Args:
        params: nested dictionaries of arrays, floating, spectrally normalised where the network was trained so.
        batch_stats: the same nesting, with `{"mean": [C], "variance": [C]}` in place of each norm's parameters and
            nothing in place of the others.
        epsilon: the network's `norm_epsilon`.

    Returns:
        Parameters in the nesting of `params`, in float32 or wider.

    Raises:
        KeyError: when `batch_stats` has an entry that `params` has not.

    >>> import jax.numpy as jnp
    >>> params = {"norm": {"scale": jnp.array([6.0]), "shift": jnp.array([1.0])}, "conv": {"bias": jnp.array([5.0])}}
    >>> moments = {"norm": {"mean": jnp.array([2.0]), "variance": jnp.array([4.0])}}
    >>> folded = fold_statistics(params, moments, epsilon=0.0)
    >>> {name: leaf.tolist() for name, leaf in folded["norm"].items()}, folded["conv"]["bias"].tolist()
    ({'scale': [3.0], 'shift': [-5.0]}, [5.0])
    """
    missing = sorted(set(batch_stats) - set(params))
    if missing:
        raise KeyError(f"batch_stats has entries for {missing}, but the parameters there are {sorted(params)}.")
    folded = dict(params)
    for name, entry in batch_stats.items():
        if set(entry) == {"mean", "variance"}:
            folded[name] = _fold_norm(params[name], entry["mean"], entry["variance"], epsilon)
        else:
            folded[name] = fold_statistics(params[name], entry, epsilon=epsilon)
    return folded


def _fold_norm(norm: Tree, mean: Array, variance: Array, epsilon: float) -> dict[str, Array]:
    """Returns the parameters of one folded `ConditionalBatchNorm`; see there for what its parameters are called."""
    wide = jnp.promote_types(jnp.result_type(variance), jnp.float32)
    inverse = 1 / jnp.sqrt(jnp.asarray(variance, wide) + epsilon)

    def through(scale: Array, shift: Array) -> tuple[Array, Array]:
        """Folds rows `[..., C]` of a scale and a shift."""
        axes = tuple(range(jnp.ndim(scale) - 1))
        scale = scale * jnp.expand_dims(inverse, axes)
        return scale, shift - jnp.expand_dims(mean, axes) * scale

    if "scale" in norm:
        scale, shift = through(norm["scale"], norm["shift"])
        return {"scale": scale, "shift": shift}
    scale, shift = through(jnp.ones_like(inverse), jnp.zeros_like(inverse))
    scale_kernel, shift_kernel = through(norm["scale_kernel"], norm["shift_kernel"])
    return {"scale": scale, "shift": shift, "scale_kernel": scale_kernel, "shift_kernel": shift_kernel}
