"""Adversarial losses on logits, and a perceptual distance: one value per example. The caller takes the mean."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays, check_that

_SMALLEST_SQUARE = 1e-6


class AdversarialLoss(NamedTuple):
    """The loss of the discriminator and the loss of the generator; both are minimised."""

    discriminator: Callable[[Array, Array], tuple[Array, Array]]
    """Maps (real_logits `[B]`, fake_logits `[B]`) to (real loss `[B]`, fake loss `[B]`). D minimises their sum."""
    generator: Callable[..., Array]
    """Maps fake_logits `[B]` to the loss `[B]`. A `paired` loss maps (real_logits `[B]`, fake_logits `[B]`) to it."""
    paired: bool = False
    """Whether real and fake logits are paired by index. If so, fake images get the classes of the real ones."""


def hinge_discriminator(real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
    """Returns `max(0, 1 - D(x))` and `max(0, 1 + D(G(z)))`.

    Args:
        real_logits: `[B]`, floating, one per real image.
        fake_logits: `[B]`, floating, one per generated image.

    Returns:
        The loss on real and on generated images, each the shape of its logits. Their sum is D's loss.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Zhang et al. 2018, equation 4; brain-research/self-attention-gan:model.py.

    Examples:
        >>> import jax.numpy as jnp
        >>> [loss.tolist() for loss in hinge_discriminator(jnp.array([0.25, 2.0]), jnp.array([0.5, -3.0]))]
        [[0.75, 0.0], [1.5, 0.0]]
    """
    _check_logits("hinge_discriminator", real_logits=real_logits, fake_logits=fake_logits)
    return jax.nn.relu(1.0 - real_logits), jax.nn.relu(1.0 + fake_logits)


def hinge_generator(fake_logits: Array) -> Array:
    """Returns `-D(G(z))`, which has no lower bound.

    Args:
        fake_logits: `[B]`, floating.

    Returns:
        `[B]`.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Zhang et al. 2018, equation 4.

    Examples:
        >>> import jax.numpy as jnp
        >>> hinge_generator(jnp.array([0.5, -3.0])).tolist()
        [-0.5, 3.0]
    """
    _check_logits("hinge_generator", fake_logits=fake_logits)
    return -fake_logits


def non_saturating_discriminator(real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
    """Returns `-log s(D(x))` and `-log(1 - s(D(G(z))))`, with s the logistic function.

    Args:
        real_logits: `[B]`, floating.
        fake_logits: `[B]`, floating.

    Returns:
        The loss on real and on generated images, each the shape of its logits.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), computed with softplus, which does not overflow.

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(float(loss[0]), 4) for loss in non_saturating_discriminator(jnp.zeros(1), jnp.zeros(1))]
        [0.6931, 0.6931]
    """
    _check_logits("non_saturating_discriminator", real_logits=real_logits, fake_logits=fake_logits)
    return jax.nn.softplus(-real_logits), jax.nn.softplus(fake_logits)


def non_saturating_generator(fake_logits: Array) -> Array:
    """Returns `-log s(D(G(z)))`, with s the logistic function.

    Args:
        fake_logits: `[B]`, floating.

    Returns:
        `[B]`, positive.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), section 3, computed with softplus.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(non_saturating_generator(jnp.zeros(1))[0]), 4)
        0.6931
    """
    _check_logits("non_saturating_generator", fake_logits=fake_logits)
    return jax.nn.softplus(-fake_logits)


def wasserstein_discriminator(real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
    """Returns `-D(x)` and `D(G(z))`. Spectral normalisation bounds the critic; no gradient penalty is added.

    Args:
        real_logits: `[B]`, floating.
        fake_logits: `[B]`, floating.

    Returns:
        The loss on real and on generated images, each the shape of its logits.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Arjovsky et al. 2017 (arXiv:1701.07875), equation 3.

    Examples:
        >>> import jax.numpy as jnp
        >>> [loss.tolist() for loss in wasserstein_discriminator(jnp.array([2.0]), jnp.array([0.5]))]
        [[-2.0], [0.5]]
    """
    _check_logits("wasserstein_discriminator", real_logits=real_logits, fake_logits=fake_logits)
    return -real_logits, fake_logits


def wasserstein_generator(fake_logits: Array) -> Array:
    """Returns `-D(G(z))`, the part of the Wasserstein estimate that depends on G.

    Args:
        fake_logits: `[B]`, floating.

    Returns:
        `[B]`.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> wasserstein_generator(jnp.array([0.5, -3.0])).tolist()
        [-0.5, 3.0]
    """
    _check_logits("wasserstein_generator", fake_logits=fake_logits)
    return -fake_logits


def logistic_generator(fake_logits: Array) -> Array:
    """Returns `log(1 - s(D(G(z))))`, with s the logistic function: G's loss in the original minimax game.

    Its gradient vanishes where D is sure that an image is generated. `non_saturating_generator` avoids this.

    Args:
        fake_logits: `[B]`, floating.

    Returns:
        `[B]`, negative.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), equation 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(logistic_generator(jnp.zeros(1))[0]), 4)
        -0.6931
    """
    _check_logits("logistic_generator", fake_logits=fake_logits)
    return -jax.nn.softplus(fake_logits)


def least_squares_discriminator(real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
    """Returns `(D(x) - 1)^2 / 2` and `D(G(z))^2 / 2`.

    Args:
        real_logits: `[B]`, floating.
        fake_logits: `[B]`, floating.

    Returns:
        The loss on real and on generated images, each the shape of its logits.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Mao et al. 2017 (arXiv:1611.04076), equation 9.

    Examples:
        >>> import jax.numpy as jnp
        >>> [loss.tolist() for loss in least_squares_discriminator(jnp.array([2.0]), jnp.array([-3.0]))]
        [[0.5], [4.5]]
    """
    _check_logits("least_squares_discriminator", real_logits=real_logits, fake_logits=fake_logits)
    return jnp.square(real_logits - 1) / 2, jnp.square(fake_logits) / 2


def least_squares_generator(fake_logits: Array) -> Array:
    """Returns `(D(G(z)) - 1)^2 / 2`.

    Args:
        fake_logits: `[B]`, floating.

    Returns:
        `[B]`, at least 0.

    Raises:
        AssertionError: at trace time, when logits are not floating.

    Source: Mao et al. 2017 (arXiv:1611.04076), equation 9.

    Examples:
        >>> import jax.numpy as jnp
        >>> least_squares_generator(jnp.array([1.0, -3.0])).tolist()
        [0.0, 8.0]
    """
    _check_logits("least_squares_generator", fake_logits=fake_logits)
    return jnp.square(fake_logits - 1) / 2


def relativistic_discriminator(real_logits: Array, fake_logits: Array) -> tuple[Array, Array]:
    """Returns `-log s(D(x) - D(G(z)))`, with s the logistic function, as two equal halves: D ranks each pair of images.

    Args:
        real_logits: `[B]`, floating.
        fake_logits: `[B]`, floating; entry i is paired with entry i of `real_logits`.

    Returns:
        The two halves of the loss, each `[B]`. The loss does not separate into a real and a generated part.

    Raises:
        AssertionError: at trace time, when logits are not floating or their shapes differ.

    Source: Jolicoeur-Martineau 2018 (arXiv:1807.00734), RSGAN; Huang et al. 2024 (arXiv:2501.05441), RpGAN.

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(float(half[0]), 4) for half in relativistic_discriminator(jnp.ones(1), jnp.ones(1))]
        [0.3466, 0.3466]
    """
    _check_pairs("relativistic_discriminator", real_logits, fake_logits)
    half = jax.nn.softplus(fake_logits - real_logits) / 2
    return half, half


def relativistic_generator(real_logits: Array, fake_logits: Array) -> Array:
    """Returns `-log s(D(G(z)) - D(x))`, with s the logistic function.

    Args:
        real_logits: `[B]`, floating.
        fake_logits: `[B]`, floating; entry i is paired with entry i of `real_logits`.

    Returns:
        `[B]`, positive.

    Raises:
        AssertionError: at trace time, when logits are not floating or their shapes differ.

    Source: as for `relativistic_discriminator`.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(relativistic_generator(jnp.ones(1), jnp.ones(1))[0]), 4)
        0.6931
    """
    _check_pairs("relativistic_generator", real_logits, fake_logits)
    return jax.nn.softplus(real_logits - fake_logits)


def orthogonal_penalty(kernel: Array) -> Array:
    """Returns a penalty on kernel columns that are not orthogonal. The norms of the columns are not penalised.

        R(W) = || W^T W * (1 - I) ||_F^2

    W is the kernel with all axes but the last merged, so its columns are the filters. The gradient is
    `4 W (W^T W * (1 - I))`. ajbrock/BigGAN-PyTorch adds half of that gradient (utils.py, `ortho`), so its strength s
    corresponds to a strength of s / 2 here.

    Args:
        kernel: `[..., C]`, floating, two axes or more.

    Returns:
        A scalar, at least 0, float32 or wider.

    Raises:
        AssertionError: at trace time, when the kernel has fewer than two axes or is not floating.

    Source: Brock et al. 2019 (arXiv:1809.11096), equation 3; their strength is 1e-4.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(orthogonal_penalty(jnp.array([[2.0, 1.0], [0.0, 3.0]])))
        8.0
    """
    check_arrays("orthogonal_penalty", kernel=(kernel, "floating [..., R, C]"))
    matrix = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32)).reshape(-1, kernel.shape[-1])
    gram = jnp.matmul(matrix.T, matrix, precision="highest")
    return jnp.sum((gram * (1 - jnp.eye(len(gram), dtype=gram.dtype))) ** 2)


def perceptual_distance(first: Sequence[Array], second: Sequence[Array]) -> Array:
    """Returns the distance of two batches of images in the activations of a network, without learned weights.

        d(x, y) = sum_l mean_p || u(x_lp) - u(y_lp) ||^2,    u(a) = a / sqrt(||a||^2 + 1e-6)

    x_lp are the channels of layer l at position p. They are normalised to unit length, so only their direction counts.
    The published distance (LPIPS) has channel weights fitted to human judgements. Here every weight is 1, so values of
    different networks are not comparable. The 1e-6 keeps the gradient finite where all channels are 0. Such a position
    has length 0 after normalisation. Sums are in float32 or wider.

    Args:
        first: the activations of each layer, `[B, H, W, C]`, floating. H, W and C may differ between layers. There is
            at least one layer.
        second: the activations of the other batch, with the same shapes.

    Returns:
        `[B]`, at least 0; below 4 for each layer, and below 2 if no activation is negative.

    Raises:
        AssertionError: at trace time, when the layers differ in number or shape, or are not floating.

    Source: Zhang, Isola, Efros, Shechtman and Wang 2018 (arXiv:1801.03924), equation 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> one, other = jnp.array([[[[3.0, 0.0]]]]), jnp.array([[[[0.0, 5.0]]]])
        >>> perceptual_distance([one, one], [one, other]).round(3).tolist()
        [2.0]
    """
    alike = len(first) == len(second) > 0
    check_that("perceptual_distance", alike, "as many layers of each batch, at least 1", (len(first), len(second)))
    total = jnp.zeros(())
    for one, other in zip(first, second, strict=True):
        need = "floating [B, H, W, C]"
        check_arrays("perceptual_distance", first=(one, need), second=(other, need))
        total += ((_unit_length(one) - _unit_length(other)) ** 2).sum(axis=-1).mean(axis=(1, 2))
    return total


def _unit_length(activations: Array) -> Array:
    activations = activations.astype(jnp.promote_types(activations.dtype, jnp.float32))
    return activations / jnp.sqrt((activations**2).sum(axis=-1, keepdims=True) + _SMALLEST_SQUARE)


def _check_logits(function: str, *, fake_logits: Array, real_logits: Array | None = None) -> None:
    check_arrays(function, real_logits=(real_logits, "floating"), fake_logits=(fake_logits, "floating"))


def _check_pairs(function: str, real_logits: Array, fake_logits: Array) -> None:
    check_arrays(function, real_logits=(real_logits, "floating [B]"), fake_logits=(fake_logits, "floating [B]"))


HINGE = AdversarialLoss(hinge_discriminator, hinge_generator)
NON_SATURATING = AdversarialLoss(non_saturating_discriminator, non_saturating_generator)
WASSERSTEIN = AdversarialLoss(wasserstein_discriminator, wasserstein_generator)
LOGISTIC = AdversarialLoss(non_saturating_discriminator, logistic_generator)
LEAST_SQUARES = AdversarialLoss(least_squares_discriminator, least_squares_generator)
RELATIVISTIC = AdversarialLoss(relativistic_discriminator, relativistic_generator, paired=True)
