"""GAN inversion by gradient descent: finds the latent and class whose generated image is closest to a given image."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.data import to_float
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.completion_quality import reconstruction_quality
from sagan_jax.evaluation.embeddings import Variables
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional.losses import perceptual_distance
from sagan_jax.models.perceptual import Lite0Activations
from sagan_jax.models.programs import bind_static
from sagan_jax.runtime.full_precision import in_float32
from sagan_jax.runtime.progress import NullProgress, ProgressCallback

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)
_DRAWS_PER_START, _DRAWS_PER_CLASS = 8, 2


@dataclasses.dataclass(frozen=True)
class LatentSearch:
    """The search for a latent: `starts` runs of Adam with a cosine learning-rate decay to 0.

    Attributes:
        starts: K, the number of parallel descents, at least 1.
        steps: the number of steps per descent, at least 1.
        learning_rate: the initial learning rate, above 0.
        prior: the weight of the mean squared latent entry, at least 0.
        perceptual: the weight of `perceptual_distance` in EfficientNet-Lite0, at least 0.
        seed: the seed of the initial latents, in [0, 2**32).
    """

    starts: int = 16
    steps: int = 300
    learning_rate: float = 0.1
    prior: float = 1e-3
    perceptual: float = 0.0
    seed: int = 0


class Inversion(NamedTuple):
    """The result of the inversion of one image."""

    latent: np.ndarray
    """`[Z]` float32"""
    label: int | None
    """the class; None from an unconditional generator"""
    image: np.ndarray
    """`[H, W, C]` uint8, generated from the latent and the class"""
    loss: float
    """the final loss of the best descent"""
    psnr: float
    """peak signal-to-noise ratio of `image`, in decibels"""
    ssim: float
    """structural similarity of `image`: 1 for equal images"""


def invert(
    trained: TrainedGenerator,
    image: np.ndarray,
    *,
    labels: int | Sequence[int] | np.ndarray | None = None,
    search: LatentSearch | None = None,
    lite0: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Inversion:
    """Returns the latent and the class whose generated image is closest to an image, over several descents.

        min_z  mean (G(z, y) - x)^2 + a d(G(z, y), x) + b mean z^2

    x is in [-1, 1], d is `perceptual_distance`, a and b are `search.perceptual` and `search.prior`. The class y is
    fixed during a descent. At least two random latents are drawn for each class, and at least eight for each descent in
    total. Descents start from the best latent of each class, then from the second best of each class, and so on.

    Args:
        trained: the generator.
        image: `[H, W, C]` uint8, of the generator's image size.
        labels: the classes to search. Defaults to all.
        search: the settings of the search; None for the defaults.
        lite0: the variables of `sagan_jax.models.lite0.Lite0`, needed if `search.perceptual` is not 0.
        progress: receives the progress.

    Raises:
        InvalidInputError: the generator does not have a class, the image has another size or dtype, a number is out of
            range, or `lite0` is missing.
        NonFiniteError: the generator has diverged.

    Source: Lipton and Tripathi 2017 (arXiv:1702.04782); Zhu et al. 2016 (arXiv:1609.03552), section 3.1.
    """
    search = search or LatentSearch()
    _check(search, lite0)
    progress = progress or NullProgress()
    variables = jax.device_put(trained.variables), lite0 if search.perceptual else None
    descend = partial(bind_static(_descend, trained.generator), *variables)
    weights = np.array([search.perceptual, search.prior], np.float32)
    _check_size(trained, image)
    target = to_float(image)
    latents, classes = _draws(trained, labels, search)

    def losses_of(rows: np.ndarray) -> np.ndarray:
        return np.asarray(
            descend(target, weights, latents[rows], classes[rows], _ADAM.init(latents[rows]), np.float32(0))[0]
        )

    progress.begin("steps", len(latents) // search.starts + search.steps)
    found = []
    for rows in np.arange(len(latents)).reshape(-1, search.starts):
        found.append(losses_of(rows))
        progress.tick(1)
    chosen = _nearest_of_each(_finite(np.concatenate(found)), classes, search.starts)
    latents, classes = latents[chosen], classes[chosen]
    rates = search.learning_rate * (1 + np.cos(np.pi * np.arange(search.steps) / search.steps)) / 2
    moments = _ADAM.init(latents)
    for rate in rates.astype(np.float32):
        _, latents, moments = descend(target, weights, latents, classes, moments, rate)
        progress.tick(1)
    losses = _finite(losses_of(np.arange(search.starts)))
    best = int(losses.argmin())
    drawn = trained.images(latents[best : best + 1], classes[best : best + 1])
    quality = reconstruction_quality(drawn, image[None], np.ones((1, *image.shape[:2]), bool))
    nearness = float(quality["psnr_image"][0]), float(quality["ssim_image"][0])
    label = int(classes[best]) if trained.num_classes else None
    return Inversion(np.asarray(latents[best]), label, drawn[0], float(losses[best]), *nearness)


# With a learning rate of 0 this only evaluates the loss, so one compiled program suffices.
@partial(jax.jit, static_argnums=0)
@in_float32
def _descend(
    generator: nn.Module,
    variables: Variables,
    lite0: Variables | None,
    target: Array,
    weights: Array,
    latents: Array,
    labels: Array,
    moments: optax.OptState,
    rate: Array,
) -> tuple[Array, Array, optax.OptState]:
    """Returns the losses `[K]` of the latents `[K, Z]`, and the latents and moments after one step."""
    perceptual, prior = weights

    def total(latents: Array) -> tuple[Array, Array]:
        # Norms may write new moments, which are discarded.
        drawn: Any = generator.apply(variables, latents, labels, train=False, mutable=["batch_stats"])[0]
        losses = jnp.square(drawn - target[None]).mean(axis=(1, 2, 3)) + prior * jnp.square(latents).mean(axis=1)
        if lite0 is not None:
            outputs: Any = Lite0Activations().apply(lite0, jnp.concatenate([drawn, target[None]]))
            same = [jnp.broadcast_to(layer[-1:], layer[:-1].shape) for layer in outputs]
            losses += perceptual * perceptual_distance([layer[:-1] for layer in outputs], same)
        return losses.sum(), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(latents)
    direction, moments = _ADAM.update(gradient, moments)
    return losses, latents - rate * jnp.asarray(direction), moments


def _draws(
    trained: TrainedGenerator, labels: int | Sequence[int] | np.ndarray | None, search: LatentSearch
) -> tuple[Array, np.ndarray]:
    """Returns candidate latents `[N, Z]` and classes `[N]` to start from; N is a multiple of `search.starts`."""
    classes = trained.classes(labels)
    count = max(_DRAWS_PER_START * search.starts, _DRAWS_PER_CLASS * len(classes))
    count += -count % search.starts
    latents = trained.latents(jax.random.key(search.seed), np.arange(count))
    return latents, np.resize(classes, count).astype(np.int32)


def _nearest_of_each(losses: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` indices: first the lowest loss of each class, then the second lowest of each class, and so on.

    Examples:
        >>> _nearest_of_each(np.array([3.0, 1.0, 2.0, 9.0]), np.array([0, 0, 0, 1]), 3).tolist()
        [1, 3, 2]
    """
    ranks, seen = np.zeros(len(losses), int), Counter()
    for index in np.argsort(losses, kind="stable"):
        ranks[index] = seen[classes[index]]
        seen[classes[index]] += 1
    return np.lexsort((losses, ranks))[:count]


def _finite(losses: np.ndarray) -> np.ndarray:
    if not np.isfinite(losses).all():
        raise NonFiniteError("The loss of the inversion is not finite: the generator has diverged.")
    return losses


def _check(search: LatentSearch, lite0: Mapping[str, Any] | None) -> None:
    for name, least in (("starts", 1), ("steps", 1), ("prior", 0), ("perceptual", 0)):
        value = getattr(search, name)
        if not (np.isfinite(value) and value >= least):
            raise InvalidInputError(f"invert needs {name} of at least {least}; got {value}.")
    if not (np.isfinite(search.learning_rate) and search.learning_rate > 0):
        raise InvalidInputError(f"invert needs a learning_rate above 0; got {search.learning_rate}.")
    if not 0 <= search.seed < 2**32:
        raise InvalidInputError(f"invert needs a seed in [0, 2**32); got {search.seed}.")
    if search.perceptual and lite0 is None:
        raise InvalidInputError("invert needs the variables of EfficientNet-Lite0 for its perceptual weight; got None.")


def _check_size(trained: TrainedGenerator, image: np.ndarray) -> None:
    latents, labels = jax.ShapeDtypeStruct((1, trained.latent_size), np.float32), np.zeros(1, np.int32)
    apply: Any = partial(trained.generator.apply, trained.variables, train=False, mutable=["batch_stats"])
    shape = jax.eval_shape(apply, latents, labels)[0].shape[1:]
    if image.shape != shape or image.dtype != np.uint8:
        raise InvalidInputError(
            f"invert needs an image of uint8 {list(shape)}, as the generator draws them; "
            f"got {image.dtype} {list(image.shape)}."
        )
