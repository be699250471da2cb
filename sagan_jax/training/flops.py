"""What a step costs: the floating-point operations that XLA counts in it, without running or compiling it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step


def step_flops(
    game: AdversarialTask, batch_size: int, image_shape: tuple[int, int, int], *, discriminator_steps: int = 1
) -> float:
    """Returns the floating-point operations of one training step.

    All of them: D's and G's updates, both passes of each, optimiser and spectral normalisation. A multiplication and
    an addition are two operations, and a convolution's window counts where it lies inside the image only. The count
    is that of the program as traced (XLA's `HloCostAnalysis` of `jax.jit(step).lower(...)`), which is the same for
    every device: compilers may add to it by computing values twice, or take from it by other ways to convolve.

    Nothing of the size of the networks is allocated; it takes a few seconds at any width and batch.

    Args:
        game: networks and rules.
        batch_size: images of one discriminator update, over all devices.
        image_shape: (H, W, C).
        discriminator_steps: discriminator updates a step.

    Returns:
        The count.
    """
    state = jax.eval_shape(lambda: initial_state(game, 0, image_shape))
    batch = Batch(
        jax.ShapeDtypeStruct((discriminator_steps, batch_size, *image_shape), jnp.float32),
        jax.ShapeDtypeStruct((discriminator_steps, batch_size), jnp.int32),
    )
    whole = dataclasses.replace(game, accumulation_steps=1)  # a loop's rounds would be counted once
    counted = jax.jit(partial(step, whole)).lower(state, batch).cost_analysis()
    assert counted is not None  # every backend of jax's own counts
    return counted["flops"]
