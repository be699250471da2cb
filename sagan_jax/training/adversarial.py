"""Adversarial training: its state and its one pure step."""

import dataclasses
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from sagan_jax.functional.augmentation import Augmentation, augment
from sagan_jax.functional.losses import HINGE, AdversarialLoss, orthogonal_penalty
from sagan_jax.functional.spectral import spectral_normalize_tree
from sagan_jax.training.accumulation import Metrics, mean_gradient
from sagan_jax.training.network_state import (
    NetworkState,
    apply_gradients,
    init_network_state,
    named,
    normalize_with_vjp,
)
from sagan_jax.training.optimizers import Optimizers, two_time_scale

# The quantities whose failure stops a run.
GUARDED = ("discriminator/loss", "discriminator/gradient_norm", "generator/loss", "generator/gradient_norm")


class Batch(NamedTuple):
    """The data of one step: a batch for each discriminator update."""

    images: Any
    """`[discriminator_steps, B, H, W, C]`, floating in [-1, 1]"""
    labels: Any
    """`[discriminator_steps, B]` int32"""


@flax.struct.dataclass
class AdversarialState:
    """A run at one moment; with the data of the steps to come it decides all that follows."""

    step: Array
    """int32, generator updates done"""
    seed: Array
    """uint32; the randomness of step t is `fold_in(key(seed), t)`"""
    generator: NetworkState
    discriminator: NetworkState
    average: Any
    """moving average of G's `params` and `batch_stats`, float32; empty when it is off"""


@dataclasses.dataclass(frozen=True)
class AdversarialTask:
    """What stays fixed while the state moves: networks, rules and rates.

    Attributes:
        generator: latents `[B, Z]` and labels to images; its `axis_name` is set by the step.
        discriminator: images and labels to logits.
        optimizers: one a network.
        latent_size: Z.
        num_classes: 0 when both networks are unconditional.
        loss: the pair of losses.
        spectral_norm: which networks are spectrally normalised.
        spectral_evaluation: whether sigma of a trained network is taken after an iteration from the stored u, as in the
            release, or of u and v as they are stored, as PyTorch does.
        spectral_epsilon: added to the norms of u and v.
        differentiate_vectors: lets the gradient flow through u and v.
        orthogonal_strength: of the penalty on G's kernels; 0 turns it off.
        accumulation_steps: parts that every batch is worked through in; batch moments are those of a part, and running
            ones move once a part.
        augmentation: what is done to every image that D sees, real and generated, in both updates.
        average_decay: of G's moving average; 0 turns it off.
        average_start_step: before it, the average is a copy of G.
        global_moments: whether batch moments are shared over devices.
    """

    generator: nn.Module
    discriminator: nn.Module
    optimizers: Optimizers = dataclasses.field(default_factory=two_time_scale)
    latent_size: int = 128
    num_classes: int = 1000
    loss: AdversarialLoss = HINGE
    spectral_norm: Literal["both", "discriminator", "generator", "none"] = "both"
    spectral_evaluation: Literal["iterated", "stored"] = "iterated"
    spectral_epsilon: float = 1e-12
    differentiate_vectors: bool = False
    orthogonal_strength: float = 0.0
    accumulation_steps: int = 1
    augmentation: tuple[Augmentation, ...] = ()
    average_decay: float = 0.0
    average_start_step: int = 0
    global_moments: bool = True

    def normalize(self, player: NetworkState) -> tuple[Any, Any, Any]:
        """Returns a player's spectrally normalised parameters, its new vectors, and the sigmas."""
        return spectral_normalize_tree(
            player.params,
            player.spectral,
            epsilon=self.spectral_epsilon,
            differentiate_vectors=self.differentiate_vectors,
        )

    def evaluation_params(self, params: Any, spectral: Any) -> Any:
        """Returns the parameters of a trained network, spectrally normalised as they are for sampling."""
        iterations = 1 if self.spectral_evaluation == "iterated" else 0
        return spectral_normalize_tree(params, spectral, iterations=iterations, epsilon=self.spectral_epsilon)[0]


def initial_state(game: AdversarialTask, seed: int, image_shape: tuple[int, int, int]) -> AdversarialState:
    """Returns the state before the first step.

    Args:
        game: networks and rules.
        seed: in [0, 2**32).
        image_shape: (H, W, C).

    Returns:
        A state of arrays on the default device.
    """
    generator_key, discriminator_key = jax.random.split(jax.random.key(seed))
    labels = jnp.zeros((2,), jnp.int32)

    def player(
        network: nn.Module, optimizer: optax.GradientTransformation, key: Array, inputs: Array, normalized: bool
    ) -> NetworkState:
        variables = jax.jit(partial(network.init, train=False))(key, inputs, labels)
        return init_network_state(variables, optimizer, jax.random.fold_in(key, 1) if normalized else None)

    latents = jnp.zeros((2, game.latent_size))
    normalized = game.spectral_norm in ("both", "generator")
    generator = player(game.generator, game.optimizers.generator, generator_key, latents, normalized)
    images = jnp.zeros((2, *image_shape))
    normalized = game.spectral_norm in ("both", "discriminator")
    discriminator = player(game.discriminator, game.optimizers.discriminator, discriminator_key, images, normalized)
    average = {}
    if game.average_decay:
        average = {"params": generator.params, "batch_stats": generator.batch_stats}
    return AdversarialState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        generator=generator,
        discriminator=discriminator,
        average=jax.tree.map(jnp.copy, average),  # donated with the rest: it may not share a buffer
    )


def step(
    game: AdversarialTask, state: AdversarialState, batch: Batch, *, axis_name: str | None = None
) -> tuple[AdversarialState, Metrics]:
    """Returns the state after one generator update and the discriminator updates before it, and what was measured.

    Each discriminator update draws fresh latents and labels, uses one slice of the batch, and normalises D once for
    its real and its fake pass, from the stored u. G's running moments and its u move in the generator update only.
    Draws are made for the global batch and sliced, so that the number of devices does not change the experiment. A
    loss or gradient that is not finite leaves the state as it was; `metrics["finite"]` is then False.

    Args:
        game: networks and rules.
        state: replicated over devices.
        batch: this device's part: images `[discriminator_steps, B, H, W, C]` and labels; B is a multiple of the game's
            `accumulation_steps`.
        axis_name: the mapped axis over devices, or None for one device.

    Returns:
        The new state, and scalars: losses by part, mean logits, every gamma, sigma and gradient norm; D's are those of
        its last update, or of the first that was not finite.

    Source: Zhang et al. 2018, section 4; where it departs from the release, README.md says so.
    """
    moments_axis = axis_name if game.global_moments else None
    game = dataclasses.replace(
        game,
        generator=game.generator.clone(axis_name=moments_axis),
        discriminator=game.discriminator.clone(axis_name=moments_axis),
    )
    discriminator_steps, batch_size = batch.labels.shape
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    draw = partial(_draw, game, batch_size=batch_size, axis_name=axis_name)
    generator_params, _, _ = game.normalize(state.generator)
    drawing = {"params": generator_params, "batch_stats": state.generator.batch_stats}

    discriminator, metrics = state.discriminator, {}
    # A plain loop: inside `lax.scan` the CPU backend's convolutions are six times slower, even for one round.
    for number in range(discriminator_steps):
        draws = draw(jax.random.fold_in(key, number))
        reals = jax.tree.map(itemgetter(number), batch)
        discriminator, measured = _update_discriminator(game, discriminator, reals, drawing, draws, axis_name)
        metrics = measured | {
            # The last update is what is reported, unless one before it went wrong.
            name: jnp.where(jnp.isfinite(metrics[name]), measured[name], metrics[name])
            for name in GUARDED
            if name in metrics
        }
    draws = draw(jax.random.fold_in(key, discriminator_steps))
    generator, generator_metrics = _update_generator(game, state.generator, discriminator, draws, axis_name)
    metrics |= generator_metrics

    finite = jnp.stack([jnp.isfinite(metrics[name]) for name in GUARDED]).all()
    proposed = AdversarialState(
        step=state.step + 1,
        seed=state.seed,
        generator=generator,
        discriminator=discriminator,
        average=_move_average(game, state, generator),
    )
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
    return kept, metrics | {"finite": finite}


class _Draws(NamedTuple):
    """The randomness of one update: a row an image."""

    latents: Array
    """`[B, Z]`, normal"""
    labels: Array
    """`[B]` int32, uniform"""
    real_keys: Array
    """`[B]`, for the augmentation of real images"""
    fake_keys: Array
    """`[B]`, of generated ones"""


def _draw(game: AdversarialTask, key: Array, *, batch_size: int, axis_name: str | None) -> _Draws:
    """Returns this device's slice of the global batch's draws."""
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    latents_key, labels_key = jax.random.split(key)
    total = batch_size * devices
    latents = jax.random.normal(latents_key, (total, game.latent_size), jnp.float32)
    labels = jax.random.randint(labels_key, (total,), 0, max(1, game.num_classes), jnp.int32)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch_size
    if axis_name is not None:
        latents = jax.lax.dynamic_slice_in_dim(latents, first, batch_size)
        labels = jax.lax.dynamic_slice_in_dim(labels, first, batch_size)

    def keys(number: int) -> Array:
        return jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, number)))(first + jnp.arange(batch_size))

    return _Draws(latents, labels, keys(2), keys(3))  # 0 and 1 are those of the split


def _update_discriminator(
    game: AdversarialTask, player: NetworkState, reals: Batch, drawing: Any, draws: _Draws, axis_name: str | None
) -> tuple[NetworkState, Metrics]:
    """Returns D after one update on a batch of real and one of generated images."""
    params, pull, (spectral, sigmas) = normalize_with_vjp(game.normalize, player)

    def objective(params: Any, statistics: Any, rows: Any) -> tuple[Array, tuple[Any, Metrics]]:
        reals, draws = rows
        fakes: Any = game.generator.apply(drawing, draws.latents, draws.labels, train=True)
        variables = {"params": params, "batch_stats": statistics}
        apply = partial(game.discriminator.apply, train=True, mutable=["batch_stats"])
        real_logits, moved = apply(variables, augment(draws.real_keys, reals.images, game.augmentation), reals.labels)
        fake_logits, _ = apply(variables, augment(draws.fake_keys, fakes, game.augmentation), draws.labels)
        loss_real, loss_fake = (loss.mean() for loss in game.loss.discriminator(real_logits, fake_logits))
        loss = loss_real + loss_fake
        return loss, (
            moved.get("batch_stats", statistics),
            {
                "discriminator/loss": loss,
                "discriminator/loss_real": loss_real,
                "discriminator/loss_fake": loss_fake,
                "discriminator/real_logits": real_logits.mean(),
                "discriminator/fake_logits": fake_logits.mean(),
            },
        )

    rows = reals, draws
    slopes, statistics, metrics = mean_gradient(objective, params, player.batch_stats, rows, game.accumulation_steps)
    metrics |= named("discriminator/sigma", sigmas)
    return apply_gradients(
        "discriminator", game.optimizers.discriminator, player, pull(slopes), spectral, statistics, metrics, axis_name
    )


def _update_generator(
    game: AdversarialTask, player: NetworkState, discriminator: NetworkState, draws: _Draws, axis_name: str | None
) -> tuple[NetworkState, Metrics]:
    """Returns G after one update against D as it now is; D's own u is used and left where it was."""
    discriminator_params, _, _ = game.normalize(discriminator)
    judging = {"params": discriminator_params, "batch_stats": discriminator.batch_stats}
    params, pull, (spectral, sigmas) = normalize_with_vjp(game.normalize, player)

    def objective(params: Any, statistics: Any, draws: _Draws) -> tuple[Array, tuple[Any, Metrics]]:
        variables = {"params": params, "batch_stats": statistics}
        apply = partial(game.generator.apply, train=True, mutable=["batch_stats"])
        images, moved = apply(variables, draws.latents, draws.labels)
        images = augment(draws.fake_keys, images, game.augmentation)
        logits, _ = game.discriminator.apply(judging, images, draws.labels, train=True, mutable=["batch_stats"])
        loss = game.loss.generator(logits).mean()
        return loss, (moved["batch_stats"], {"generator/loss": loss, "generator/fake_logits": logits.mean()})

    slopes, statistics, metrics = mean_gradient(objective, params, player.batch_stats, draws, game.accumulation_steps)
    gradients = pull(slopes)
    if game.orthogonal_strength:
        penalty, slopes = jax.value_and_grad(_orthogonal_penalty)(player.params)
        gradients = jax.tree.map(lambda one, other: one + game.orthogonal_strength * other, gradients, slopes)
        metrics["generator/orthogonal_penalty"] = penalty
    metrics |= named("generator/sigma", sigmas)
    return apply_gradients(
        "generator", game.optimizers.generator, player, gradients, spectral, statistics, metrics, axis_name
    )


def _orthogonal_penalty(params: Any) -> Array:
    """Returns the sum over all kernels as stored, before they are normalised; BigGAN's embedding is none."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum((orthogonal_penalty(leaf) for path, leaf in leaves if path[-1].key.endswith("kernel")), jnp.float32(0))


def _move_average(game: AdversarialTask, state: AdversarialState, generator: NetworkState) -> Any:
    """Returns the moving average of G after its update; a copy of G before the start step."""
    if not game.average_decay:
        return state.average
    decay = jnp.where(state.step + 1 < game.average_start_step, 0.0, game.average_decay)
    current = {"params": generator.params, "batch_stats": generator.batch_stats}
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, current)
