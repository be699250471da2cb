"""Training a network to fill holes: its state and its one pure step."""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from sagan_jax.functional.losses import HINGE
from sagan_jax.functional.similarity import mean_within, peak_signal_to_noise
from sagan_jax.functional.spectral import spectral_normalize_tree
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.training.accumulation import Metrics
from sagan_jax.training.network_state import (
    NetworkState,
    apply_gradients,
    init_network_state,
    mean_over_devices,
    named,
    normalize_with_vjp,
)

Reconstruction = Literal["squared", "logarithmic", "absolute"]


class CompletionBatch(NamedTuple):
    """The data of one step; the leading axis is that of the updates of a step, of which there is one."""

    images: Any
    """`[1, B, H, W, C]`, floating in [-1, 1]"""
    masks: Any
    """`[1, B, H, W]` bool, True in the hole"""


@flax.struct.dataclass
class CompletionState:
    """A run at one moment; with the data of the steps to come it decides all that follows."""

    step: Array
    """int32, updates done"""
    seed: Array
    """uint32; the randomness of step t is `fold_in(key(seed), t)`"""
    network: NetworkState
    discriminator: Any
    """a `NetworkState`; empty without the adversarial term"""
    average: Any
    """moving average of the network's `params`; empty when it is off"""


@dataclasses.dataclass(frozen=True)
class CompletionTask:
    """What stays fixed while the state moves.

    Attributes:
        network: fills holes.
        optimizer: its own.
        reconstruction: how the error in the hole counts: its mean square, the logarithm of that of each image (which
            is its PSNR but for a factor), or its mean size.
        visible_weight: of a known pixel that the decoder draws anew, where one in the hole has 1.
        kl_weight: of the divergence of q(z | image with hole) from N(0, I), in nats, once it is warmed up.
        kl_warmup_steps: over which that weight grows from 0.
        free_bits: nats of each latent, in the mean over a batch, that cost nothing (Kingma et al. 2016).
        discriminator: judges whole images, unconditional; None without the adversarial term.
        discriminator_optimizer: its own.
        adversarial_weight: of the hinge term for the network.
        average_decay: of the moving average, less at the start; 0 turns it off.
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
    average_decay: float = 0.0

    @property
    def guarded(self) -> tuple[str, ...]:
        """The metrics whose failure stops a run."""
        networks = ("completion", "discriminator") if self.discriminator else ("completion",)
        return tuple(f"{network}/{part}" for network in networks for part in ("loss", "gradient_norm"))


def initial_state(rules: CompletionTask, seed: int) -> CompletionState:
    """Returns the state before the first step, on the default device.

    Args:
        rules: networks and weights.
        seed: in [0, 2**32).
    """
    size, channels = rules.network.resolution, rules.network.image_channels
    images, masks = jnp.zeros((2, size, size, channels)), jnp.zeros((2, size, size), bool)
    network_key, discriminator_key = jax.random.split(jax.random.key(seed))
    network = init_network_state(jax.jit(rules.network.init)(network_key, images, masks), rules.optimizer)
    discriminator: Any = {}
    if rules.discriminator:
        assert rules.discriminator_optimizer
        variables = jax.jit(partial(rules.discriminator.init, train=False))(discriminator_key, images, None)
        discriminator = init_network_state(
            variables, rules.discriminator_optimizer, jax.random.fold_in(discriminator_key, 1)
        )
    return CompletionState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        network=network,
        discriminator=discriminator,
        # Donated with the rest: it may not share a buffer.
        average=jax.tree.map(jnp.copy, network.params) if rules.average_decay else {},
    )


def step(
    rules: CompletionTask, state: CompletionState, batch: CompletionBatch, *, axis_name: str | None = None
) -> tuple[CompletionState, Metrics]:
    """Returns the state after one update of the network, and of D before it where there is one, and what was measured.

        loss = error in the hole + w_v error outside + w_kl sum_z max(KL_z, free) - w_a E[D(completed)]

    Draws of the latents are made for the global batch and sliced, and the free bits are those of its mean, so that the
    number of devices does not change the experiment. A loss or gradient that is not finite leaves the state as it was;
    `metrics["finite"]` is then False.

    Args:
        rules: networks and weights.
        state: replicated over devices.
        batch: this device's part.
        axis_name: the mapped axis over devices, or None for one device.
    """
    images, masks = batch.images[0], batch.masks[0]
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    noise = _noise(rules, key, len(images), axis_name)
    discriminator, metrics = state.discriminator, {}
    judging: Any = None
    if rules.discriminator:
        completed = _complete(rules, state.network.params, images, masks, noise).images
        discriminator, metrics = _update_discriminator(rules, discriminator, images, completed, axis_name)
        judging = {"params": _normalize(discriminator)[0], "batch_stats": discriminator.batch_stats}

    network, measured = _update_network(rules, state, images, masks, noise, judging, axis_name)
    metrics |= measured
    finite = jnp.stack([jnp.isfinite(metrics[name]) for name in rules.guarded]).all()
    proposed = CompletionState(
        step=state.step + 1,
        seed=state.seed,
        network=network,
        discriminator=discriminator,
        average=_move_average(rules, state, network.params),
    )
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
    return kept, metrics | {"finite": finite}


class _Completed(NamedTuple):
    """What the network makes of images with holes."""

    drawn: Array
    """the decoder's whole images"""
    images: Array
    """those with the known pixels put back"""
    divergence: Array
    """`[B, Z]`, of each latent's distribution from N(0, 1), in nats"""


def _complete(rules: CompletionTask, params: Any, images: Array, masks: Array, noise: Array) -> _Completed:
    apply = partial(rules.network.apply, {"params": params})
    encoded: Any = apply(images, masks, method="encode")
    mean, log_variance = encoded.mean, encoded.log_variance
    drawn: Any = apply(mean + jnp.exp(0.5 * log_variance) * noise, encoded.features, method="decode")
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    return _Completed(drawn, jnp.where(masks[..., None], drawn, images), divergence)


def _update_network(
    rules: CompletionTask,
    state: CompletionState,
    images: Array,
    masks: Array,
    noise: Array,
    judging: Any,
    axis_name: str | None,
) -> tuple[NetworkState, Metrics]:
    kl_weight = rules.kl_weight * jnp.minimum(1.0, state.step / rules.kl_warmup_steps)

    def objective(params: Any) -> tuple[Array, Metrics]:
        made = _complete(rules, params, images, masks, noise)
        error = made.drawn - images
        square = mean_within(error**2, masks)
        of_latents = made.divergence.mean(axis=0)
        # Latents below the free bits have no gradient; the mean that decides is that of all devices.
        costs = jax.lax.stop_gradient(mean_over_devices(of_latents, axis_name)) > rules.free_bits
        divergence = jnp.where(costs, of_latents, rules.free_bits).sum()
        loss = _reconstruction(rules.reconstruction, error, masks) + kl_weight * divergence
        if rules.visible_weight:
            loss += rules.visible_weight * _reconstruction(rules.reconstruction, error, ~masks)
        metrics = {
            "completion/squared_error": square.mean(),
            "completion/psnr": peak_signal_to_noise(jax.lax.stop_gradient(square)).mean(),
            "completion/visible_squared_error": mean_within(jax.lax.stop_gradient(error) ** 2, ~masks).mean(),
            "completion/divergence": of_latents.sum(),
            "completion/latents_in_use": costs.mean(),
        }
        if rules.discriminator:
            logits: Any = rules.discriminator.apply(judging, made.images, None, train=True)
            adversarial = HINGE.generator(logits).mean()
            loss += rules.adversarial_weight * adversarial
            metrics["completion/adversarial_loss"] = adversarial
        return loss, metrics | {"completion/loss": loss, "completion/divergence_weight": kl_weight}

    gradients, metrics = jax.grad(objective, has_aux=True)(state.network.params)
    return apply_gradients("completion", rules.optimizer, state.network, gradients, {}, {}, metrics, axis_name)


def _update_discriminator(
    rules: CompletionTask, player: NetworkState, images: Array, completed: Array, axis_name: str | None
) -> tuple[NetworkState, Metrics]:
    """Returns D after one update on whole images and completed ones."""
    assert rules.discriminator
    assert rules.discriminator_optimizer
    discriminator = rules.discriminator
    params, pull, (spectral, sigmas) = normalize_with_vjp(_normalize, player)

    def objective(params: Any) -> tuple[Array, Metrics]:
        variables = {"params": params, "batch_stats": player.batch_stats}
        real_logits: Any = discriminator.apply(variables, images, None, train=True)
        fake_logits: Any = discriminator.apply(variables, completed, None, train=True)
        loss_real, loss_fake = (loss.mean() for loss in HINGE.discriminator(real_logits, fake_logits))
        loss = loss_real + loss_fake
        return loss, {
            "discriminator/loss": loss,
            "discriminator/loss_real": loss_real,
            "discriminator/loss_fake": loss_fake,
        }

    slopes, metrics = jax.grad(objective, has_aux=True)(params)
    metrics |= named("discriminator/sigma", sigmas)
    optimizer, statistics = rules.discriminator_optimizer, player.batch_stats
    return apply_gradients("discriminator", optimizer, player, pull(slopes), spectral, statistics, metrics, axis_name)


def _normalize(player: NetworkState) -> tuple[Any, Any, Any]:
    return spectral_normalize_tree(player.params, player.spectral)


def _noise(rules: CompletionTask, key: Array, batch_size: int, axis_name: str | None) -> Array:
    """Returns this device's slice of the global batch's noise, `[B, Z]`."""
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    noise = jax.random.normal(key, (batch_size * devices, rules.network.latent_size), jnp.float32)
    if axis_name is None:
        return noise
    return jax.lax.dynamic_slice_in_dim(noise, jax.lax.axis_index(axis_name) * batch_size, batch_size)


def _reconstruction(kind: Reconstruction, error: Array, masks: Array) -> Array:
    if kind == "absolute":
        return mean_within(jnp.abs(error), masks).mean()
    square = mean_within(error**2, masks)
    # A hundredth of a level keeps the logarithm of a perfect completion finite.
    return square.mean() if kind == "squared" else 0.5 * jnp.log(square + (0.01 / 127.5) ** 2).mean()


def _move_average(rules: CompletionTask, state: CompletionState, params: Any) -> Any:
    """Returns the moving average after an update; near the start it forgets faster than its decay says."""
    if not rules.average_decay:
        return state.average
    decay = jnp.minimum(rules.average_decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, params)
