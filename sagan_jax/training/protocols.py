"""The interfaces of user-defined networks, losses, augmentations and optimisers, as protocols with shapes.

B is the number of images and Z the latent size. H, W and C are the height, width and channels of an image. All arrays
are floating, except labels, which are int32.
"""

from typing import Any, Protocol

from jax import Array


class GeneratorNetwork(Protocol):
    """G: a `flax.linen` module.

    Its only variable collections are `params` and, if it has norms, `batch_stats`. Spectral normalisation applies to
    parameters whose names end in `kernel`. The module gets no PRNG keys (`make_rng`): the latents are its only
    randomness.

    A module may have two special fields. `axis_name: str | None` is set to the mapped axis over devices. It is meant
    for batch norms, such as `flax.linen.BatchNorm(axis_name=self.axis_name)`. Without it, each device normalises by its
    part of the batch. `dtype` is set to bfloat16 if the run trains in that precision, which requires the field.
    """

    def __call__(self, latents: Array, labels: Array, *, train: bool) -> Array:
        """Returns images `[B, H, W, C]` in [-1, 1].

        Args:
            latents: `[B, Z]`, drawn from N(0, 1).
            labels: `[B]` int32, the classes; zeros for a run without classes.
            train: whether norms use the moments of this batch.
        """
        ...


class DiscriminatorNetwork(Protocol):
    """D: a `flax.linen` module, with the same variables and fields as a `GeneratorNetwork`."""

    def __call__(self, images: Array, labels: Array, *, train: bool) -> Array:
        """Returns logits `[B]`: large for images that D classifies as real.

        Args:
            images: `[B, H, W, C]` in [-1, 1], or augmentations of such images.
            labels: `[B]` int32, the classes; zeros for a run without classes.
            train: whether norms use the moments of this batch.
        """
        ...


class DiscriminatorLoss(Protocol):
    """D's loss, which D minimises."""

    def __call__(self, real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
        """Returns the loss on real and on generated images, each `[B]`: one value per image, not their mean.

        Args:
            real_logits: `[B]`.
            fake_logits: `[B]`.
        """
        ...


class GeneratorLoss(Protocol):
    """G's loss, which G minimises. A `paired` `AdversarialLoss` has a `PairedGeneratorLoss` instead."""

    def __call__(self, fake_logits: Array) -> Array:
        """Returns the loss `[B]`: one value per image, not their mean.

        Args:
            fake_logits: `[B]`.
        """
        ...


class PairedGeneratorLoss(Protocol):
    """G's loss in a `paired` `AdversarialLoss`, which compares each generated image with a real one."""

    def __call__(self, real_logits: Array, fake_logits: Array) -> Array:
        """Returns the loss `[B]`: one value per pair, not their mean.

        Args:
            real_logits: `[B]`.
            fake_logits: `[B]`.
        """
        ...


class NetworkOptimizer(Protocol):
    """The optimiser of a network: an `optax.GradientTransformation`, which is a named tuple of these two functions."""

    def init(self, params: Any) -> Any:
        """Returns the state before the first update: a pytree of arrays.

        Args:
            params: the parameters, a pytree of floating arrays.
        """
        ...

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Returns the change of the parameters, with their structure, shapes and dtypes, and the new state.

        The change is added to the parameters.

        Args:
            updates: the gradient of the loss.
            state: from `init` or the last update.
            params: the parameters.
        """
        ...


class ImageAugmentation(Protocol):
    """A random, differentiable transform of every input image of D, real and generated."""

    def __call__(self, key: Array, image: Array) -> Array:
        """Returns an image `[H, W, C]`, which need not stay in [-1, 1].

        Args:
            key: a PRNG key, different for each image.
            image: `[H, W, C]` in [-1, 1].
        """
        ...
