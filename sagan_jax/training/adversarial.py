"""Adversarial training: its task, its state and its pure step function."""

import dataclasses
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.functional.augmentation import Augmentation, AugmentationFunction, augment
from sagan_jax.functional.gradient_penalty import value_and_gradient_penalty
from sagan_jax.functional.losses import HINGE, AdversarialLoss, orthogonal_penalty
from sagan_jax.functional.spectral import spectral_normalize_tree
from sagan_jax.models.fields import has_field, with_fields
from sagan_jax.models.programs import bind_static
from sagan_jax.training.network_state import (
    BatchStats,
    Metrics,
    NetworkState,
    Normalized,
    Params,
    Sigmas,
    Spectral,
    Variables,
    init_network_state,
    normalize_with_vjp,
    normalized_variables,
)
from sagan_jax.training.optimizers import Optimizers, two_time_scale
from sagan_jax.training.precision import Precision, at_precision
from sagan_jax.training.updates import (
    Gradients,
    apply_gradients,
    average_gradients,
    compute_gradients,
    discriminator_loss,
    global_draw,
    gradients_of_stored,
    keep_if_finite,
    moving_average,
    updated_network,
)

FINITE_METRICS = ("discriminator/loss", "discriminator/gradient_norm", "generator/loss", "generator/gradient_norm")
"""The metrics that must be finite. If one is not, the step returns the state unchanged."""


class Batch(NamedTuple):
    """The data of one step, as jax or numpy arrays: one batch for each discriminator update."""

    images: Any
    """`[discriminator_steps, B, H, W, C]`, floating in [-1, 1]"""
    labels: Any
    """`[discriminator_steps, B]` int32"""


@flax.struct.dataclass
class AdversarialState:
    """The complete state of a run. With the data of later steps it determines the rest of the run."""

    step: Array
    """int32, the number of completed generator updates"""
    seed: Array
    """uint32; the randomness of step t is `fold_in(key(seed), t)`"""
    generator: NetworkState
    discriminator: NetworkState
    average: Variables
    """moving average of G's `params` and `batch_stats`, float32; empty when it is off"""


@dataclasses.dataclass(frozen=True)
class AdversarialTask:
    """The static part of adversarial training: networks, losses, optimisers and hyperparameters.

    Attributes:
        generator: maps latents `[B, Z]` and labels to images; see `sagan_jax.training.GeneratorNetwork`. If it has a
            field `axis_name`, the step sets it.
        discriminator: maps images and labels to logits; see `sagan_jax.training.DiscriminatorNetwork`. If it has a
            field `axis_name`, the step sets it.
        optimizers: one optimiser for each network.
        latent_size: Z, the size of the latents.
        num_classes: the number of classes; 0 when both networks are unconditional.
        loss: the losses of D and G. A `paired` loss compares generated images with real images of the same classes, so
            no classes are drawn.
        r1: the weight of the zero-centred gradient penalty on real images: r1 / 2 times the mean squared norm of D's
            gradient. The gradient is with respect to the images before augmentation. 0 turns the penalty off.
        r2: the same for generated images.
        spectral_norm: which networks are spectrally normalised.
        spectral_evaluation: how sigma of a trained network is computed. "iterated" runs one power iteration from the
            stored u, as the authors' release does. "stored" uses the stored u and v, as PyTorch does.
        spectral_epsilon: added to the norms of u and v.
        differentiate_vectors: whether the gradient flows through u and v.
        orthogonal_strength: the weight of the orthogonal penalty on G's kernels; 0 turns it off.
        accumulation_steps: the number of microbatches in each batch. Batch moments are computed per microbatch, and
            running moments are updated once per microbatch.
        shared_draws: whether D's last update of a step and G's update share one forward pass of G, with the same
            latents, labels and augmentation. This saves a pass of G, but keeps its activations in memory while D is
            updated. Needs `accumulation_steps=1`.
        augmentation: the augmentations of every input of D, real and generated, in the updates of both networks. Names
            or functions, as in `augment`.
        flips: whether each real image is mirrored with probability 1/2.
        average_decay: the decay of G's moving average; 0 turns it off.
        average_start_step: before this step the average is a copy of G.
        global_moments: whether batch moments are averaged over devices.
        precision: the precision of the step. The state, and everything outside the step, is always float32.
    """

    generator: nn.Module
    discriminator: nn.Module
    optimizers: Optimizers = dataclasses.field(default_factory=two_time_scale)
    latent_size: int = 128
    num_classes: int = 1000
    loss: AdversarialLoss = HINGE
    r1: float = 0.0
    r2: float = 0.0
    spectral_norm: Literal["both", "discriminator", "generator", "none"] = "both"
    spectral_evaluation: Literal["iterated", "stored"] = "iterated"
    spectral_epsilon: float = 1e-12
    differentiate_vectors: bool = False
    orthogonal_strength: float = 0.0
    accumulation_steps: int = 1
    shared_draws: bool = False
    augmentation: tuple[Augmentation | AugmentationFunction, ...] = ()
    flips: bool = False
    average_decay: float = 0.0
    average_start_step: int = 0
    global_moments: bool = True
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.shared_draws and self.accumulation_steps != 1:
            raise ValueError(
                f"shared_draws keeps one pass of G for both updates and needs accumulation_steps=1; "
                f"got {self.accumulation_steps}."
            )

    def normalize(self, state: NetworkState) -> tuple[Params, Spectral, Sigmas]:
        """Returns a network's spectrally normalised parameters, its new vectors, and the sigmas."""
        return spectral_normalize_tree(
            state.params,
            state.spectral,
            epsilon=self.spectral_epsilon,
            differentiate_vectors=self.differentiate_vectors,
        )

    def evaluation_params(self, params: Params, spectral: Spectral) -> Params:
        """Returns the spectrally normalised parameters that a trained network is evaluated with.

        Args:
            params: the stored parameters, or their moving average.
            spectral: the stored vectors. They are not updated.
        """
        iterations = 1 if self.spectral_evaluation == "iterated" else 0
        return _normalized_params(params, spectral, iterations, self.spectral_epsilon)


# Jitted as a whole, instead of several programs per kernel. Not a method: its cache must not depend on other task
# fields.
@partial(jax.jit, static_argnums=(2, 3))
def _normalized_params(params: Params, spectral: Spectral, iterations: int, epsilon: float) -> Params:
    return spectral_normalize_tree(params, spectral, iterations=iterations, epsilon=epsilon)[0]


def initial_state(task: AdversarialTask, seed: int, image_shape: tuple[int, int, int]) -> AdversarialState:
    """Returns the state before the first step, on the default device.

    This compiles two programs, which serve every seed. In a single program, XLA would fuse the drawing of kernels into
    the sums of the spectral vectors and change their last bits.

    Args:
        task: the networks and optimisers.
        seed: in [0, 2**32).
        image_shape: (H, W, C).
    """
    generator, discriminator = bind_static(_initial_variables, task, tuple(image_shape))(np.uint32(seed))
    return bind_static(_initial_state, task)(np.uint32(seed), generator, discriminator)


def _network_keys(seed: Array) -> Array:
    """Returns the PRNG keys of the generator and the discriminator."""
    return jax.random.split(jax.random.key(seed))


@partial(jax.jit, static_argnums=(0, 1))
def _initial_variables(
    task: AdversarialTask, image_shape: tuple[int, int, int], seed: Array
) -> tuple[Variables, Variables]:
    generator_key, discriminator_key = _network_keys(seed)
    labels, latents, images = jnp.zeros((2,), jnp.int32), jnp.zeros((2, task.latent_size)), jnp.zeros((2, *image_shape))
    return (
        task.generator.init(generator_key, latents, labels, train=False),
        task.discriminator.init(discriminator_key, images, labels, train=False),
    )


@partial(jax.jit, static_argnums=0)
def _initial_state(
    task: AdversarialTask, seed: Array, generator: Variables, discriminator: Variables
) -> AdversarialState:
    def init_network(
        name: str, key: Array, variables: Variables, optimizer: optax.GradientTransformation
    ) -> NetworkState:
        normalized = task.spectral_norm in ("both", name)
        return init_network_state(variables, optimizer, jax.random.fold_in(key, 1) if normalized else None)

    generator_key, discriminator_key = _network_keys(seed)
    state = init_network("generator", generator_key, generator, task.optimizers.generator)
    opponent = init_network("discriminator", discriminator_key, discriminator, task.optimizers.discriminator)
    # A copy, because the state is donated as a whole and its leaves may not share a buffer.
    average = jax.tree.map(jnp.copy, state.variables) if task.average_decay else {}
    return AdversarialState(jnp.int32(0), seed, state, opponent, average)


@at_precision
def step(
    task: AdversarialTask, state: AdversarialState, batch: Batch, *, axis_name: str | None = None
) -> tuple[AdversarialState, Metrics]:
    """Returns the state after the discriminator updates and one generator update, and the metrics.

    Each discriminator update draws new latents and labels and uses one slice of the batch. With a paired loss, the
    labels are those of the slice, and G's update reuses the last slice. Each discriminator update normalises D once,
    from the stored u, for its real and its fake pass. G is normalised once per step, for the updates of both networks.
    G's running moments and its u are updated once per step, in G's update.

    G's update draws its own latents and labels. With `task.shared_draws` it reuses those of D's last update, and the
    images that G generated from them. Latents and labels are drawn for the global batch and sliced, so the number of
    devices does not change the results. If a loss or gradient is not finite, the state is returned unchanged and
    `metrics["finite"]` is False.

    Args:
        task: the networks, losses, optimisers and hyperparameters.
        state: replicated over devices.
        batch: the data of this device: images `[discriminator_steps, B, H, W, C]` and labels
            `[discriminator_steps, B]`. B is a multiple of the task's `accumulation_steps`. Labels of a task without
            classes count as 0.
        axis_name: the mapped axis over devices, or None for one device.

    Returns:
        The new state, and scalar metrics: the losses and their parts, mean logits, every gamma and sigma, and gradient
        norms. D's metrics are those of its last update. A metric of `FINITE_METRICS` that was not finite in an earlier
        update keeps that value.

    Raises:
        ValueError: when `task.precision` is "bfloat16" and a network has no field `dtype`.

    Source: Zhang et al. 2018, section 4. docs/fidelity.md lists the differences from the authors' release.
    """
    moments_axis = axis_name if task.global_moments else None
    task = dataclasses.replace(
        task,
        generator=_on_axis(task.generator, moments_axis),
        discriminator=_on_axis(task.discriminator, moments_axis),
    )
    if not task.num_classes:  # the generated images have no classes either
        batch = batch._replace(labels=jnp.zeros_like(batch.labels))
    discriminator_steps, batch_size = batch.labels.shape
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    drawn = [
        _draw(task, jax.random.fold_in(key, number), batch_size, axis_name)
        for number in range(discriminator_steps + (not task.shared_draws))
    ]
    if task.loss.paired:
        last = discriminator_steps - 1
        drawn = [draws._replace(labels=batch.labels[min(number, last)]) for number, draws in enumerate(drawn)]
    normalized = normalize_with_vjp(task.normalize, state.generator)
    statistics = state.generator.batch_stats
    shared = _generate_with_vjp(task, normalized.params, statistics, drawn[-1]) if task.shared_draws else None
    fixed_generator = {"params": normalized.params, "batch_stats": statistics}
    before_last, gradients, metrics = _run_discriminator_updates(
        task, state.discriminator, batch, drawn, fixed_generator, shared, axis_name
    )
    discriminator = updated_network(before_last, gradients, task.optimizers.discriminator)
    last_slice = jax.tree.map(itemgetter(-1), batch)
    generator, generator_metrics = _update_generator(
        task, state.generator, normalized, discriminator, last_slice, drawn[-1], shared, axis_name
    )
    if discriminator_steps == 1:
        # The old D must be kept until all metrics are known. During G's update, D's gradient takes less memory than its
        # new optimiser state and parameters. The barrier makes XLA compute these again here.
        gradients, generator_metrics = jax.lax.optimization_barrier((gradients, generator_metrics))
        discriminator = updated_network(before_last, gradients, task.optimizers.discriminator)
    new = AdversarialState(
        step=state.step + 1,
        seed=state.seed,
        generator=generator,
        discriminator=discriminator,
        average=_update_average(task, state, generator),
    )
    return keep_if_finite(new, state, metrics | generator_metrics, FINITE_METRICS)


def _on_axis(network: nn.Module, axis_name: str | None) -> nn.Module:
    """Returns the network with its field `axis_name` set, if it has one."""
    return with_fields(network, axis_name=axis_name) if has_field(network, "axis_name") else network


class _Draws(NamedTuple):
    """The random draws of one update, one row per image."""

    latents: Array
    """`[B, Z]`, normal"""
    labels: Array
    """`[B]` int32, uniform"""
    real_keys: Array
    """`[B]` PRNG keys, for the augmentation of real images"""
    fake_keys: Array
    """`[B]` PRNG keys, for the augmentation of generated images"""
    flips: Array
    """`[B]` bool: which real images are mirrored if `task.flips` is set"""


def _draw(task: AdversarialTask, key: Array, batch_size: int, axis_name: str | None) -> _Draws:
    """Returns this device's rows of the random draws of one update."""

    def draw(rows: int) -> _Draws:
        latents_key, labels_key = jax.random.split(key)
        latents = jax.random.normal(latents_key, (rows, task.latent_size), jnp.float32)
        labels = jax.random.randint(labels_key, (rows,), 0, max(1, task.num_classes), jnp.int32)

        def keys(number: int) -> Array:
            return jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, number)))(jnp.arange(rows))

        flips = jax.random.bernoulli(jax.random.fold_in(key, 4), shape=(rows,))
        return _Draws(latents, labels, keys(2), keys(3), flips)  # 0 and 1 are the keys of the split

    return global_draw(draw, batch_size, axis_name)


class _GeneratorPass(NamedTuple):
    """One forward pass of G, shared by the updates of both networks."""

    images: Array
    """`[B, H, W, C]`"""
    vjp_fn: Callable[[Array], tuple[Params]]
    """maps the gradient with respect to the images to the gradient with respect to the normalised parameters"""
    batch_stats: BatchStats
    """the new running moments"""


def _generate_with_vjp(task: AdversarialTask, params: Params, batch_stats: BatchStats, draws: _Draws) -> _GeneratorPass:
    def generate(params: Params) -> tuple[Array, BatchStats]:
        variables = {"params": params, "batch_stats": batch_stats}
        return _apply(task.generator, variables, draws.latents, draws.labels)

    return _GeneratorPass(*jax.vjp(generate, params, has_aux=True))


def _run_discriminator_updates(
    task: AdversarialTask,
    discriminator: NetworkState,
    batch: Batch,
    draws: list[_Draws],
    generator_variables: Variables,
    shared: _GeneratorPass | None,
    axis_name: str | None,
) -> tuple[NetworkState, Gradients, Metrics]:
    """Returns D before its last update, the gradients of that update, and the metrics to report.

    There is one update for each batch of real images.
    """

    def generate(draws: _Draws) -> Array:
        # G and its running moments do not change in these updates: the new moments are discarded.
        return _apply(task.generator, generator_variables, draws.latents, draws.labels)[0]

    metrics, last, gradients = {}, len(batch.labels) - 1, None
    # A Python loop: inside `lax.scan`, convolutions on a CPU are six times slower, even with one iteration.
    for number in range(last + 1):
        reals = jax.tree.map(itemgetter(number), batch)
        fakes = (lambda _, images=shared.images: images) if shared and number == last else generate
        if gradients:
            discriminator = updated_network(discriminator, gradients, task.optimizers.discriminator)
        gradients = _discriminator_gradients(task, discriminator, reals, fakes, draws[number], axis_name)
        # Reports the last update, but keeps earlier values that were not finite.
        metrics = gradients.metrics | {
            name: jnp.where(jnp.isfinite(metrics[name]), gradients.metrics[name], metrics[name])
            for name in FINITE_METRICS
            if name in metrics
        }
    assert gradients
    return discriminator, gradients, metrics


def _discriminator_gradients(
    task: AdversarialTask,
    state: NetworkState,
    reals: Batch,
    generate: Callable[[_Draws], Array],
    draws: _Draws,
    axis_name: str | None,
) -> Gradients:
    """Returns the gradients of D, averaged over devices, on a batch of real and a batch of generated images."""

    def objective(
        params: Params, batch_stats: BatchStats, batch: tuple[Batch, _Draws]
    ) -> tuple[Array, tuple[BatchStats, Metrics]]:
        on_real, on_fake = _judge_both(task, {"params": params, "batch_stats": batch_stats}, *batch, generate)
        loss, metrics = discriminator_loss(task.loss, on_real.logits, on_fake.logits)
        metrics["discriminator/real_logits"] = on_real.logits.mean()
        metrics["discriminator/fake_logits"] = on_fake.logits.mean()
        for name, strength, penalty in (("r1", task.r1, on_real.penalty), ("r2", task.r2, on_fake.penalty)):
            if penalty is not None:
                loss += strength / 2 * penalty
                metrics[f"discriminator/{name}"] = penalty
        return loss, (on_real.batch_stats, metrics)

    gradients = compute_gradients(
        "discriminator",
        normalize_with_vjp(task.normalize, state),
        state.batch_stats,
        objective,
        (reals, draws),
        microbatches=task.accumulation_steps,
    )
    return average_gradients("discriminator", state, gradients, axis_name)


def _real_images(task: AdversarialTask, reals: Batch, draws: _Draws) -> Array:
    """Returns the real images, randomly mirrored if `task.flips` is set."""
    if not task.flips:
        return reals.images
    return jnp.where(draws.flips[:, None, None, None], reals.images[:, :, ::-1], reals.images)


def _discriminator_pass(
    task: AdversarialTask, variables: Variables, keys: Array, labels: Array
) -> Callable[[Array], tuple[Array, BatchStats]]:
    """Returns a function that augments images and maps them to D's logits and new running moments."""

    def judge(images: Array) -> tuple[Array, BatchStats]:
        return _apply(task.discriminator, variables, augment(keys, images, task.augmentation), labels)

    return judge


class _Judged(NamedTuple):
    """The results of one pass of D."""

    logits: Array
    """`[B]`"""
    batch_stats: BatchStats
    """the new running moments"""
    penalty: Array | None = None
    """the mean gradient penalty, if the task has one"""


def _judge_both(
    task: AdversarialTask, variables: Variables, reals: Batch, draws: _Draws, generate: Callable[[_Draws], Array]
) -> tuple[_Judged, _Judged]:
    """Returns the results of D's passes over real and over generated images."""
    on_real = _discriminator_pass(task, variables, draws.real_keys, reals.labels)
    real = _judge(on_real, _real_images(task, reals, draws), penalized=bool(task.r1))
    on_fake = _discriminator_pass(task, variables, draws.fake_keys, draws.labels)
    return real, _judge(on_fake, generate(draws), penalized=bool(task.r2))


def _judge(judge: Callable[[Array], tuple[Array, BatchStats]], images: Array, *, penalized: bool) -> _Judged:
    """Returns the results of a pass over these images, with the gradient penalty if `penalized`."""
    if not penalized:
        return _Judged(*judge(images))
    (logits, batch_stats), penalties = value_and_gradient_penalty(judge, images, has_aux=True)
    return _Judged(logits, batch_stats, penalties.mean())


def _update_generator(
    task: AdversarialTask,
    state: NetworkState,
    normalized: Normalized,
    discriminator: NetworkState,
    reals: Batch,
    draws: _Draws,
    shared: _GeneratorPass | None,
    axis_name: str | None,
) -> tuple[NetworkState, Metrics]:
    """Returns G after one update against the updated D. D's vectors and running moments do not change."""
    discriminator_variables = normalized_variables(task.normalize, discriminator)

    def loss_of(images: Array, reals: Batch, draws: _Draws) -> tuple[Array, Metrics]:
        logits, _ = _discriminator_pass(task, discriminator_variables, draws.fake_keys, draws.labels)(images)
        if task.loss.paired:
            on_real = _discriminator_pass(task, discriminator_variables, draws.real_keys, reals.labels)
            losses = task.loss.generator(on_real(_real_images(task, reals, draws))[0], logits)
        else:
            losses = task.loss.generator(logits)
        loss = losses.mean()
        return loss, {"generator/loss": loss, "generator/fake_logits": logits.mean()}

    def objective(
        params: Params, batch_stats: BatchStats, batch: tuple[Batch, _Draws]
    ) -> tuple[Array, tuple[BatchStats, Metrics]]:
        reals, draws = batch
        variables = {"params": params, "batch_stats": batch_stats}
        images, batch_stats = _apply(task.generator, variables, draws.latents, draws.labels)
        loss, metrics = loss_of(images, reals, draws)
        return loss, (batch_stats, metrics)

    if shared:
        image_gradient, metrics = jax.grad(loss_of, has_aux=True)(shared.images, reals, draws)
        (gradient,) = shared.vjp_fn(image_gradient)
        gradients = gradients_of_stored("generator", normalized, gradient, shared.batch_stats, metrics)
    else:
        gradients = compute_gradients(
            "generator", normalized, state.batch_stats, objective, (reals, draws), microbatches=task.accumulation_steps
        )
    if task.orthogonal_strength:
        gradients = _add_orthogonal_penalty(gradients, state.params, task.orthogonal_strength)
    return apply_gradients("generator", state, gradients, task.optimizers.generator, axis_name)


def _apply(network: nn.Module, variables: Variables, *inputs: Array) -> tuple[Array, BatchStats]:
    """Returns the output of a network in training mode, and its new running moments."""
    outputs, moved = network.apply(variables, *inputs, train=True, mutable=["batch_stats"])
    return outputs, moved["batch_stats"] if "batch_stats" in moved else variables["batch_stats"]


def _add_orthogonal_penalty(gradients: Gradients, params: Params, strength: float) -> Gradients:
    """Adds the gradients of the orthogonal penalty, which applies to the stored kernels, before normalisation."""
    penalty, penalty_gradients = jax.value_and_grad(_orthogonal_penalty)(params)
    return gradients._replace(
        params=jax.tree.map(lambda one, other: one + strength * other, gradients.params, penalty_gradients),
        metrics=gradients.metrics | {"generator/orthogonal_penalty": penalty},
    )


def _orthogonal_penalty(params: Params) -> Array:
    """Returns the sum of the orthogonal penalty over all kernels. BigGAN's shared embedding is not a kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum((orthogonal_penalty(leaf) for path, leaf in leaves if path[-1].key.endswith("kernel")), jnp.float32(0))


def _update_average(task: AdversarialTask, state: AdversarialState, generator: NetworkState) -> Variables:
    """Returns the moving average after an update of G. Before the start step, it is a copy of G."""
    if not task.average_decay:
        return state.average
    decay = jnp.where(state.step + 1 < task.average_start_step, 0.0, task.average_decay)
    return moving_average(state.average, generator.variables, decay)
