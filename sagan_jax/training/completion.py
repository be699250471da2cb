"""Training of a completion network: its task, its state and its pure step function."""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.functional.losses import HINGE, perceptual_distance
from sagan_jax.functional.similarity import masked_mean, peak_signal_to_noise
from sagan_jax.functional.spectral import spectral_normalize_tree
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.models.programs import bind_static
from sagan_jax.training.network_state import (
    BatchStats,
    Metrics,
    NetworkState,
    Params,
    Sigmas,
    Spectral,
    Variables,
    init_network_state,
    normalize_with_vjp,
    normalized_variables,
)
from sagan_jax.training.precision import Precision, at_precision
from sagan_jax.training.updates import (
    Gradients,
    apply_gradients,
    compute_gradients,
    discriminator_loss,
    global_draw,
    keep_if_finite,
    mean_over_devices,
    moving_average,
)

Reconstruction = Literal["squared", "logarithmic", "absolute"]


class CompletionBatch(NamedTuple):
    """The data of one step, as jax or numpy arrays. The leading axis counts the updates per step, which is 1."""

    images: Any
    """`[1, B, H, W, C]`, floating in [-1, 1]"""
    masks: Any
    """`[1, B, H, W]` bool, True in the hole"""


@flax.struct.dataclass
class CompletionState:
    """The complete state of a run. With the data of later steps it determines the rest of the run."""

    step: Array
    """int32, the number of completed updates"""
    seed: Array
    """uint32; the randomness of step t is `fold_in(key(seed), t)`"""
    network: NetworkState
    discriminator: NetworkState | dict[str, NetworkState]
    """an empty dictionary without the adversarial term"""
    average: Params
    """moving average of the network's `params`; empty when it is off"""


@dataclasses.dataclass(frozen=True)
class CompletionTask:
    """The static part of the training: networks, optimisers and loss weights.

    Attributes:
        network: the completion network.
        optimizer: the optimiser of the network.
        reconstruction: the reconstruction loss in the hole. "squared" is the mean squared error. "logarithmic" is half
            the logarithm of each image's mean squared error (its PSNR up to a factor). "absolute" is the mean absolute
            error.
        visible_weight: the weight of the decoder's reconstruction loss outside the hole. The loss in the hole has
            weight 1.
        kl_weight: the weight of the KL divergence of q(z | image with hole) from N(0, I), in nats, after the warm-up.
        kl_warmup_steps: the number of steps over which that weight grows linearly from 0.
        free_bits: the divergence per latent, in nats and averaged over the batch, that is not penalised (Kingma et al.
            2016).
        discriminator: an unconditional discriminator of whole images. None omits the adversarial term.
        discriminator_optimizer: the optimiser of the discriminator.
        adversarial_weight: the weight of the hinge term in the network's loss.
        perceptual: maps images `[B, H, W, C]` in [-1, 1] to the activations of some layers; it is not trained. None
            omits the perceptual term.
        perceptual_weight: the weight of the `perceptual_distance` between completed and original images.
        average_decay: the decay of the moving average, which is smaller in early steps; 0 turns it off.
        precision: the precision of the step. The state, and everything outside the step, is always float32.
    """

    network: CompletionNetwork
    optimizer: optax.GradientTransformation
    reconstruction: Reconstruction = "squared"
    visible_weight: float = 0.0
    kl_weight: float = 1e-4
    kl_warmup_steps: int = 1
    free_bits: float = 0.0
    discriminator: nn.Module | None = None
    discriminator_optimizer: optax.GradientTransformation | None = None
    adversarial_weight: float = 0.0
    perceptual: nn.Module | None = None
    perceptual_weight: float = 0.0
    average_decay: float = 0.0
    precision: Precision = "float32"

    @property
    def finite_metrics(self) -> tuple[str, ...]:
        """The metrics that must be finite. If one is not, the step returns the state unchanged."""
        networks = ("completion", "discriminator") if self.discriminator else ("completion",)
        return tuple(f"{network}/{part}" for network in networks for part in ("loss", "gradient_norm"))


def initial_state(task: CompletionTask, seed: int) -> CompletionState:
    """Returns the state before the first step, on the default device.

    This compiles two programs, as in `sagan_jax.training.adversarial`.

    Args:
        task: the networks and optimisers.
        seed: in [0, 2**32).
    """
    network, discriminator = bind_static(_initial_variables, task)(np.uint32(seed))
    return bind_static(_initial_state, task)(np.uint32(seed), network, discriminator)


def _network_keys(seed: Array) -> Array:
    """Returns the PRNG keys of the network and the discriminator."""
    return jax.random.split(jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _initial_variables(task: CompletionTask, seed: Array) -> tuple[Variables, Variables]:
    size, channels = task.network.resolution, task.network.image_channels
    images, masks = jnp.zeros((2, size, size, channels)), jnp.zeros((2, size, size), bool)
    network_key, discriminator_key = _network_keys(seed)
    network = task.network.init(network_key, images, masks)
    if not task.discriminator:
        return network, {}
    return network, task.discriminator.init(discriminator_key, images, None, train=False)


@partial(jax.jit, static_argnums=0)
def _initial_state(task: CompletionTask, seed: Array, network: Variables, discriminator: Variables) -> CompletionState:
    state = init_network_state(network, task.optimizer)
    opponent = {}
    if task.discriminator:
        assert task.discriminator_optimizer
        key = jax.random.fold_in(_network_keys(seed)[1], 1)
        opponent = init_network_state(discriminator, task.discriminator_optimizer, key)
    # A copy, because the state is donated as a whole and its leaves may not share a buffer.
    average = jax.tree.map(jnp.copy, state.params) if task.average_decay else {}
    return CompletionState(jnp.int32(0), seed, state, opponent, average)


@at_precision
def step(
    task: CompletionTask,
    state: CompletionState,
    batch: CompletionBatch,
    perceptual: Variables | None = None,
    *,
    axis_name: str | None = None,
) -> tuple[CompletionState, Metrics]:
    """Returns the state after one update, and the metrics. D, if there is one, is updated before the network.

        loss = error in the hole + w_v error outside + w_kl sum_z max(KL_z, free) - w_a E[D(completed)]
               + w_p E[d(completed, original)]

    Latents are drawn for the global batch and sliced, and the free bits apply to the mean over the global batch. So the
    number of devices does not change the results. If a loss or gradient is not finite, the state is returned unchanged
    and `metrics["finite"]` is False.

    Args:
        task: the networks, optimisers and loss weights.
        state: replicated over devices.
        batch: the data of this device.
        perceptual: the variables of `task.perceptual`, if it is not None.
        axis_name: the mapped axis over devices, or None for one device.
    """
    images, masks = batch.images[0], batch.masks[0]
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    noise = global_draw(
        lambda rows: jax.random.normal(key, (rows, task.network.latent_size), jnp.float32), len(images), axis_name
    )
    discriminator, metrics, discriminator_variables = state.discriminator, {}, {}
    if task.discriminator:
        assert isinstance(discriminator, NetworkState)
        completed = _complete(task, state.network.params, images, masks, noise).images
        discriminator, metrics = _update_discriminator(task, discriminator, images, completed, axis_name)
        discriminator_variables = normalized_variables(_normalize, discriminator)

    fixed = _Fixed(discriminator_variables, perceptual or {})
    network, network_metrics = _update_network(task, state, images, masks, noise, fixed, axis_name)
    new = CompletionState(
        step=state.step + 1,
        seed=state.seed,
        network=network,
        discriminator=discriminator,
        average=_update_average(task, state, network.params),
    )
    return keep_if_finite(new, state, metrics | network_metrics, task.finite_metrics)


class _Fixed(NamedTuple):
    """The variables of the networks that stay fixed while the completion network is updated."""

    discriminator: Variables
    perceptual: Variables


class _Completed(NamedTuple):
    """The output of the network for images with holes."""

    decoded: Array
    """`[B, H, W, C]`, the whole images of the decoder"""
    images: Array
    """`[B, H, W, C]`, the decoder's pixels in the hole and the given ones elsewhere"""
    divergence: Array
    """`[B, Z]`, the KL divergence of each latent's distribution from N(0, 1), in nats"""


def _complete(task: CompletionTask, params: Params, images: Array, masks: Array, noise: Array) -> _Completed:
    apply = partial(task.network.apply, {"params": params})
    encoded: Any = apply(images, masks, method="encode")
    mean, log_variance = encoded.mean, encoded.log_variance
    decoded: Any = apply(mean + jnp.exp(0.5 * log_variance) * noise, encoded.features, method="decode")
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    return _Completed(decoded, jnp.where(masks[..., None], decoded, images), divergence)


def _update_network(
    task: CompletionTask,
    state: CompletionState,
    images: Array,
    masks: Array,
    noise: Array,
    fixed: _Fixed,
    axis_name: str | None,
) -> tuple[NetworkState, Metrics]:
    """Returns the network after one update. It is not spectrally normalised and has no running moments."""
    kl_weight = task.kl_weight * jnp.minimum(1.0, state.step / task.kl_warmup_steps)

    def objective(params: Params) -> tuple[Array, Metrics]:
        completed = _complete(task, params, images, masks, noise)
        error = completed.decoded - images
        square = masked_mean(error**2, masks)
        latent_divergences = completed.divergence.mean(axis=0)
        # Latents whose mean over all devices is below the free bits get no gradient.
        in_use = jax.lax.stop_gradient(mean_over_devices(latent_divergences, axis_name)) > task.free_bits
        divergence = jnp.where(in_use, latent_divergences, task.free_bits).sum()
        loss = _reconstruction(task.reconstruction, error, masks) + kl_weight * divergence
        if task.visible_weight:
            loss += task.visible_weight * _reconstruction(task.reconstruction, error, ~masks)
        metrics = {
            "completion/squared_error": square.mean(),
            "completion/psnr": peak_signal_to_noise(jax.lax.stop_gradient(square)).mean(),
            "completion/visible_squared_error": masked_mean(jax.lax.stop_gradient(error) ** 2, ~masks).mean(),
            "completion/divergence": latent_divergences.sum(),
            "completion/latents_in_use": in_use.mean(),
        }
        if task.discriminator:
            logits: Any = task.discriminator.apply(fixed.discriminator, completed.images, None, train=True)
            adversarial = HINGE.generator(logits).mean()
            loss += task.adversarial_weight * adversarial
            metrics["completion/adversarial_loss"] = adversarial
        if task.perceptual:
            activations: Any = partial(task.perceptual.apply, fixed.perceptual)
            distance = perceptual_distance(activations(completed.images), activations(images)).mean()
            loss += task.perceptual_weight * distance
            metrics["completion/perceptual_distance"] = distance
        return loss, metrics | {"completion/loss": loss, "completion/divergence_weight": kl_weight}

    gradient, metrics = jax.grad(objective, has_aux=True)(state.network.params)
    gradients = Gradients(gradient, spectral={}, batch_stats={}, metrics=metrics)
    return apply_gradients("completion", state.network, gradients, task.optimizer, axis_name)


def _update_discriminator(
    task: CompletionTask, state: NetworkState, images: Array, completed: Array, axis_name: str | None
) -> tuple[NetworkState, Metrics]:
    """Returns D after one update on original and completed images. Its running moments do not change."""
    discriminator, optimizer = task.discriminator, task.discriminator_optimizer
    assert discriminator
    assert optimizer

    def objective(
        params: Params, batch_stats: BatchStats, batch: tuple[Array, Array]
    ) -> tuple[Array, tuple[BatchStats, Metrics]]:
        images, completed = batch
        variables = {"params": params, "batch_stats": batch_stats}
        real_logits: Any = discriminator.apply(variables, images, None, train=True)
        fake_logits: Any = discriminator.apply(variables, completed, None, train=True)
        loss, metrics = discriminator_loss(HINGE, real_logits, fake_logits)
        return loss, (batch_stats, metrics)

    normalized = normalize_with_vjp(_normalize, state)
    gradients = compute_gradients("discriminator", normalized, state.batch_stats, objective, (images, completed))
    return apply_gradients("discriminator", state, gradients, optimizer, axis_name)


def _normalize(state: NetworkState) -> tuple[Params, Spectral, Sigmas]:
    return spectral_normalize_tree(state.params, state.spectral)


def _reconstruction(kind: Reconstruction, error: Array, masks: Array) -> Array:
    if kind == "absolute":
        return masked_mean(jnp.abs(error), masks).mean()
    square = masked_mean(error**2, masks)
    # The offset, a hundredth of a gray level, keeps the logarithm of a perfect completion finite.
    return square.mean() if kind == "squared" else 0.5 * jnp.log(square + (0.01 / 127.5) ** 2).mean()


def _update_average(task: CompletionTask, state: CompletionState, params: Params) -> Params:
    """Returns the moving average after an update. In early steps its decay is smaller than the task's."""
    if not task.average_decay:
        return state.average
    decay = jnp.minimum(task.average_decay, (1.0 + state.step) / (10.0 + state.step))
    return moving_average(state.average, params, decay)
