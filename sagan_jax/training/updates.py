"""Functions shared by the steps of all tasks: draws for the global batch, gradients, optimiser steps, averages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

from sagan_jax.functional.losses import AdversarialLoss
from sagan_jax.training.accumulation import Batch, Objective, mean_gradient
from sagan_jax.training.network_state import (
    BatchStats,
    Metrics,
    NetworkState,
    Normalized,
    Params,
    Spectral,
)

Tree = TypeVar("Tree")


def global_draw(draw: Callable[[int], Tree], batch_size: int, axis_name: str | None) -> Tree:
    """Returns this device's rows of random draws for the global batch.

    Every device draws for the global batch and keeps its slice. So the number of devices does not change the results.

    Args:
        draw: maps the number of rows N to a pytree with leaves `[N, ...]`.
        batch_size: the number of rows per device.
        axis_name: the mapped axis over devices, or None for one device.
    """
    if axis_name is None:
        return draw(batch_size)
    everything = draw(batch_size * jax.lax.axis_size(axis_name))
    first = jax.lax.axis_index(axis_name) * batch_size
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, batch_size), everything)


def mean_over_devices(tree: Tree, axis_name: str | None) -> Tree:
    """Returns the mean over the mapped axis, or the tree itself if `axis_name` is None."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def discriminator_loss(loss: AdversarialLoss, real_logits: Array, fake_logits: Array) -> tuple[Array, Metrics]:
    """Returns D's loss, the mean loss on real plus the mean loss on fake images, and its metrics.

    Args:
        loss: the losses of D and G.
        real_logits: `[B]`.
        fake_logits: `[B]`.
    """
    loss_real, loss_fake = (part.mean() for part in loss.discriminator(real_logits, fake_logits))
    total = loss_real + loss_fake
    return total, {
        "discriminator/loss": total,
        "discriminator/loss_real": loss_real,
        "discriminator/loss_fake": loss_fake,
    }


class Gradients(NamedTuple):
    """The gradients and other results of the passes of one update, on this device."""

    params: Params
    """the gradient with respect to the stored parameters"""
    spectral: Spectral
    """the new vectors, which depend only on the parameters and are equal on all devices"""
    batch_stats: BatchStats
    """the new running moments"""
    metrics: Metrics


def compute_gradients(
    name: str,
    normalized: Normalized,
    batch_stats: BatchStats,
    objective: Objective[BatchStats, Batch],
    batch: Batch,
    *,
    microbatches: int = 1,
) -> Gradients:
    """Returns the gradients of an objective that takes the spectrally normalised parameters.

    Args:
        name: the name of the network, a prefix of its metrics.
        normalized: the network before the update, from `normalize_with_vjp`.
        batch_stats: its running moments.
        objective: a function of normalised parameters, running moments and a batch; see `mean_gradient`.
        batch: leaves `[B, ...]`.
        microbatches: the number of microbatches.
    """
    gradients, batch_stats, metrics = mean_gradient(objective, normalized.params, batch_stats, batch, microbatches)
    return gradients_of_stored(name, normalized, gradients, batch_stats, metrics)


def gradients_of_stored(
    name: str, normalized: Normalized, gradients: Params, batch_stats: BatchStats, metrics: Metrics
) -> Gradients:
    """Returns the gradients with respect to the stored parameters, and adds every sigma to the metrics.

    Args:
        name: the name of the network, a prefix of its metrics.
        normalized: the network before the update, from `normalize_with_vjp`.
        gradients: the gradients with respect to the normalised parameters.
        batch_stats: the new running moments.
        metrics: the metrics of the passes.
    """
    spectral, sigmas = normalized.found
    metrics = metrics | flatten_metrics(f"{name}/sigma", sigmas)
    return Gradients(normalized.vjp_fn(gradients), spectral, batch_stats, metrics)


def apply_gradients(
    name: str,
    state: NetworkState,
    gradients: Gradients,
    optimizer: optax.GradientTransformation,
    axis_name: str | None,
) -> tuple[NetworkState, Metrics]:
    """Returns the network after one optimiser step, and the metrics with its gradient norm and every gamma.

    Args:
        name: the name of the network, a prefix of its metrics.
        state: the network before the update.
        gradients: the gradients of this device. They are averaged over devices, as are the running moments and the
            metrics.
        optimizer: the optimiser of this network.
        axis_name: the mapped axis over devices, or None for one device.
    """
    gradients = average_gradients(name, state, gradients, axis_name)
    return updated_network(state, gradients, optimizer), gradients.metrics


def average_gradients(name: str, state: NetworkState, gradients: Gradients, axis_name: str | None) -> Gradients:
    """Returns the gradients averaged over devices, and adds their norm and every gamma to the metrics.

    The arguments are those of `apply_gradients`.
    """
    gradient, batch_stats, metrics = mean_over_devices(
        (gradients.params, gradients.batch_stats, gradients.metrics), axis_name
    )
    metrics |= {f"{name}/gradient_norm": optax.tree.norm(gradient)} | _gammas(name, state.params)
    return Gradients(gradient, gradients.spectral, batch_stats, metrics)


def updated_network(state: NetworkState, gradients: Gradients, optimizer: optax.GradientTransformation) -> NetworkState:
    """Returns the network after one step of its optimiser.

    Args:
        state: the network before the update.
        gradients: the gradients averaged over devices, from `average_gradients`.
        optimizer: the optimiser of this network.
    """
    with jax.default_matmul_precision("float32"):  # for Muon's products, at any precision of the step
        updates, optimizer_state = optimizer.update(gradients.params, state.optimizer, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    return NetworkState(
        params=params, spectral=gradients.spectral, batch_stats=gradients.batch_stats, optimizer=optimizer_state
    )


def moving_average(old: Tree, new: Tree, decay: float | Array) -> Tree:
    """Returns `decay * old + (1 - decay) * new`, leaf by leaf."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, old, new)


def keep_if_finite(new: Tree, old: Tree, metrics: Metrics, names: Sequence[str]) -> tuple[Tree, Metrics]:
    """Returns the new state if all named metrics are finite, else the old one, and the metrics with `finite` added.

    Args:
        new: the state after the step.
        old: the state before it.
        metrics: the metrics of the step.
        names: the names of the metrics that must be finite.
    """
    finite = jnp.stack([jnp.isfinite(metrics[name]) for name in names]).all()
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
    return kept, metrics | {"finite": finite}


def flatten_metrics(prefix: str, tree: Mapping[str, Any]) -> Metrics:
    """Returns a flat dictionary of the leaves of a tree by prefix and path, such as `generator/sigma/block_1/conv`.

    A last path component `kernel` is dropped.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join([prefix, *(key.key for key in path)]).removesuffix("/kernel"): leaf for path, leaf in leaves}


def _gammas(prefix: str, params: Params) -> Metrics:
    """Returns the gamma of every attention layer, such as `generator/gamma_32` or `completion/encoder/gamma_8`."""
    found = {}
    for layer, part in params.items():
        if layer.startswith("attention_"):
            if isinstance(part, Mapping) and getattr(part.get("gamma"), "shape", None) == ():
                found[f"{prefix}/gamma_{layer.removeprefix('attention_')}"] = part["gamma"]
        elif isinstance(part, Mapping):
            found |= _gammas(f"{prefix}/{layer}", part)
    return found
