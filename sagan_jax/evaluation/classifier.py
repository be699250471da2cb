"""A classifier of the real images, which checks whether a generated image shows the requested class."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch, Variables, resize_to_float
from sagan_jax.evaluation.linear_classifier import LinearClassifier
from sagan_jax.models.convnet import ConvNet
from sagan_jax.runtime.full_precision import in_float32
from sagan_jax.runtime.processes import gather
from sagan_jax.runtime.progress import ProgressCallback

_SIZE = 32
_STEPS, _BATCH_SIZE = 1200, 128
IMAGES = _STEPS * _BATCH_SIZE
"""The number of images that one training run reads."""
NAME = f"convnet-32-{_STEPS}x{_BATCH_SIZE}"
"""The name of the network and its training in result files and cache keys."""


@dataclasses.dataclass(frozen=True)
class FeatureClassifier:
    """A linear classifier on the features of a network.

    Attributes:
        network: computes the features.
        fitted: maps features to logits.
        identity: a string that identifies the network, the images and the fit.
    """

    network: Embedding
    fitted: LinearClassifier
    identity: str

    def __call__(self, batches: Iterable[ImageBatch]) -> Iterator[tuple[dict[str, np.ndarray], ImageBatch]]:
        """Yields the logits of each batch as `features`, and the batch, as `Embedding` does."""
        for outputs, batch in self.network(batches):
            yield {"features": self.fitted.logits(outputs["features"])}, batch


class Classifier(NamedTuple):
    """A trained classifier.

    Attributes:
        embedding: its output `features` holds the logits `[B, classes]`.
        accuracy: its accuracy on the held-out real images, every tenth image.
    """

    embedding: Embedding | FeatureClassifier
    accuracy: float


def accuracy(
    classifier: Embedding | FeatureClassifier, streams: Iterable[Iterable[ImageBatch]], progress: ProgressCallback
) -> float:
    """Returns the accuracy of the classifier on the images of all processes.

    Args:
        classifier: its output `features` holds the logits.
        streams: this process's share of the images, in one or several streams.
        progress: receives the number of images of each batch.
    """
    found = np.sum([_count_correct(classifier, batches, progress) for batches in streams], axis=0)
    correct, count = np.sum(gather(found[None]), axis=(0, 1))
    return float(correct / count)


def _count_correct(
    classifier: Embedding | FeatureClassifier, batches: Iterable[ImageBatch], progress: ProgressCallback
) -> tuple[int, int]:
    correct = count = 0
    for outputs, batch in classifier(batches):
        correct += int((outputs["features"].argmax(axis=1) == batch.labels).sum())
        count += len(batch.labels)
        progress.tick(len(batch.labels))
    return correct, count


def build(num_classes: int, variables: Variables, identity: str) -> Embedding:
    """Returns the classifier with these weights.

    Args:
        num_classes: the number of classes.
        variables: the result of `train_classifier`.
        identity: as in `Embedding`.
    """
    network = _network(num_classes)

    def logits(variables: Variables, images: Array) -> dict[str, Array]:
        outputs: Any = network.apply(variables, resize_to_float(images, _SIZE))
        return {"features": outputs}

    return Embedding("classifier", identity, logits, variables, num_classes)


def template(num_classes: int) -> Variables:
    """Returns the shapes of the weights, as a pytree of `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(_network(num_classes).init, jax.random.key(0), jnp.zeros((1, _SIZE, _SIZE, 3)))


def train_classifier(source: ImageSource, progress: ProgressCallback) -> Variables:
    """Trains a classifier on nine of ten images with Adam, for 1,200 batches of 128, and returns its weights.

    Args:
        source: labelled images; `is_held_out` selects the images that are excluded from training.
        progress: receives the number of images of each batch.

    Raises:
        InvalidInputError: the images have no classes, or are too few.
    """
    require_classes(source)
    network = _network(source.num_classes)
    variables = network.init(jax.random.key(0), jnp.zeros((1, _SIZE, _SIZE, 3)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, _STEPS))
    state = optimizer.init(variables)

    @jax.jit
    @in_float32
    def step(variables: Variables, state: Any, images: Array, labels: Array) -> tuple[Variables, Any]:
        def loss(variables: Variables) -> Array:
            rgb = jnp.repeat(images, 3 // images.shape[-1], axis=-1)
            logits: Any = network.apply(variables, resize_to_float(rgb, _SIZE))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state, variables)
        return optax.apply_updates(variables, updates), state

    trained_on = np.flatnonzero(~is_held_out(len(source)))
    random = np.random.default_rng(0)
    for _ in range(_STEPS):
        batch = [source[int(index)] for index in random.choice(trained_on, _BATCH_SIZE)]
        images, labels = np.stack([image for image, _ in batch]), np.array([label for _, label in batch], np.int32)
        variables, state = step(variables, state, images, labels)
        progress.tick(_BATCH_SIZE)
    return jax.device_get(variables)


def require_classes(source: ImageSource) -> None:
    """Raises InvalidInputError if the images have no classes, or are too few to learn from."""
    if source.num_classes < 2 or len(source) < 20:
        raise InvalidInputError(
            f"A classifier needs at least 20 images of at least two classes to learn from; got {source.description}."
        )


def is_held_out(count: int) -> np.ndarray:
    """Returns which of `count` images are held out from training: every tenth, bool `[count]`."""
    return np.arange(count) % 10 == 9


def _network(num_classes: int) -> ConvNet:
    return ConvNet(widths=(16, 32, 64), hidden=128, outputs=num_classes)
