"""A classifier of the real images: whether a generated one shows the class that was asked for."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch, at_size
from sagan_jax.models.convnet import ConvNet

_SIZE = 32
_STEPS, _BATCH_SIZE = 1200, 128
IMAGES = _STEPS * _BATCH_SIZE
"""How many it looks at in training."""
NAME = f"convnet-32-{_STEPS}x{_BATCH_SIZE}"
"""Of the network and its training; in result files and in the keys of caches."""


class Classifier(NamedTuple):
    """A trained classifier.

    Attributes:
        embedding: gives `features`, the logits `[B, classes]`.
        accuracy: share of the real images kept from its training, every tenth, that it calls right.
    """

    embedding: Embedding
    accuracy: float


def accuracy(classifier: Embedding, batches: Iterable[ImageBatch], tick: Callable[[int], None]) -> tuple[int, int]:
    """Returns how many images the classifier calls what they are labelled, and how many there are."""
    right = number = 0
    for outputs, batch in classifier(batches):
        right += int((outputs["features"].argmax(axis=1) == batch.labels).sum())
        number += len(batch.labels)
        tick(len(batch.labels))
    return right, number


def build(num_classes: int, variables: Any, identity: str) -> Embedding:
    """Returns the classifier with these weights."""
    network = _network(num_classes)

    def logits(variables: Any, images: Array) -> dict[str, Array]:
        outputs: Any = network.apply(variables, at_size(images, _SIZE))
        return {"features": outputs}

    return Embedding("classifier", identity, logits, variables, num_classes)


def template(num_classes: int) -> Any:
    """Returns the shapes of the weights."""
    return jax.eval_shape(_network(num_classes).init, jax.random.key(0), jnp.zeros((1, _SIZE, _SIZE, 3)))


def train_classifier(source: ImageSource, tick: Callable[[int], None]) -> Any:
    """Returns the weights of a classifier of the images but every tenth: Adam, 1,200 batches of 128.

    Args:
        source: labelled images.
        tick: called with the number of images of each batch.

    Raises:
        InvalidInputError: the images have no classes, or are too few.
    """
    if source.num_classes < 2 or len(source) < 20:
        raise InvalidInputError(
            f"A classifier needs at least 20 images of at least two classes to learn from; got {source.description}."
        )
    network = _network(source.num_classes)
    variables = network.init(jax.random.key(0), jnp.zeros((1, _SIZE, _SIZE, 3)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, _STEPS))
    state = optimizer.init(variables)

    @jax.jit
    def step(variables: Any, state: Any, images: Array, labels: Array) -> tuple[Any, Any]:
        def loss(variables: Any) -> Array:
            logits: Any = network.apply(variables, at_size(jnp.repeat(images, 3 // images.shape[-1], axis=-1), _SIZE))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state, variables)
        return optax.apply_updates(variables, updates), state

    learned_from = np.flatnonzero(~kept_out(len(source)))
    drawn = np.random.default_rng(0)
    for _ in range(_STEPS):
        read = [source[int(index)] for index in drawn.choice(learned_from, _BATCH_SIZE)]
        images, labels = np.stack([image for image, _ in read]), np.array([label for _, label in read], np.int32)
        variables, state = step(variables, state, images, labels)
        tick(_BATCH_SIZE)
    return jax.device_get(variables)


def kept_out(count: int) -> np.ndarray:
    """Returns which of `count` images the classifier is not trained on: every tenth, bool `[count]`."""
    return np.arange(count) % 10 == 9


def _network(num_classes: int) -> ConvNet:
    return ConvNet(widths=(16, 32, 64), hidden=128, outputs=num_classes)
