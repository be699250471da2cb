"""What networks, losses and augmentations of a user have to be, as protocols with shapes.

B is the number of images, Z the size of a latent, H, W and C the size and the channels of an image. All arrays are
floating but labels, which are int32.
"""

from typing import Protocol

from jax import Array


class GeneratorNetwork(Protocol):
    """G: a `flax.linen` module.

    Its variables are `params` and, where it has norms, `batch_stats`; there are no others. Spectral normalisation takes
    the parameters called `kernel`. Randomness in the module (`make_rng`) is not offered: what varies comes from the
    latents.

    A module may have two more fields. `axis_name: str | None` is set to the mapped axis over devices, for the moments
    of a norm, such as `flax.linen.BatchNorm(axis_name=self.axis_name)`; without it, each device normalises by its part
    of the batch. `dtype` is set to bfloat16 where the run trains in that precision, and is needed then.
    """

    def __call__(self, latents: Array, labels: Array, *, train: bool) -> Array:
        """Returns images `[B, H, W, C]` in [-1, 1].

        Args:
            latents: `[B, Z]`, drawn from N(0, 1).
            labels: `[B]` int32, the classes; zeros where the run has no classes.
            train: whether norms use the moments of this batch.
        """
        ...


class DiscriminatorNetwork(Protocol):
    """D: a `flax.linen` module; what `GeneratorNetwork` says of variables and fields holds for it too."""

    def __call__(self, images: Array, labels: Array, *, train: bool) -> Array:
        """Returns logits `[B]`: large for images that D takes for real ones.

        Args:
            images: `[B, H, W, C]` in [-1, 1], or what an augmentation makes of such images.
            labels: `[B]` int32, the classes; zeros where the run has no classes.
            train: whether norms use the moments of this batch.
        """
        ...


class DiscriminatorLoss(Protocol):
    """D's loss, which D minimises."""

    def __call__(self, real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
        """Returns the loss on real and on generated images, each `[B]`: one value for an image, not their mean.

        Args:
            real_logits: `[B]`.
            fake_logits: `[B]`.
        """
        ...


class GeneratorLoss(Protocol):
    """G's loss, which G minimises. That of a `paired` `AdversarialLoss` takes `(real_logits, fake_logits)` instead."""

    def __call__(self, fake_logits: Array) -> Array:
        """Returns the loss `[B]`: one value for an image, not their mean.

        Args:
            fake_logits: `[B]`.
        """
        ...


class ImageAugmentation(Protocol):
    """A random, differentiable change of every image that D sees, real and generated."""

    def __call__(self, key: Array, image: Array) -> Array:
        """Returns an image `[H, W, C]`, which need not stay in [-1, 1].

        Args:
            key: a PRNG key, another one for each image.
            image: `[H, W, C]` in [-1, 1].
        """
        ...
