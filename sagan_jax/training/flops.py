"""What a step costs: the floating-point operations that XLA counts in it, without compiling or running it."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sagan_jax.errors import InvalidInputError
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step


def step_flops(
    task: AdversarialTask, batch_size: int, image_shape: tuple[int, int, int], *, discriminator_steps: int = 1
) -> float:
    """Returns the floating-point operations of one training step.

    The count holds everything: the updates of D and of G, forward and backward, the optimisers and spectral
    normalisation. A multiplication and an addition are two operations. A convolution's window counts only where it
    lies inside the image.

    The count is that of the traced program: XLA's `HloCostAnalysis` of `jax.jit(step).lower(...)`, in the form that a
    GPU or a TPU gets. No such device is needed. On a CPU some weight gradients are loops of products instead, with as
    many operations. A compiler may add operations by computing values twice, or save some by another way to convolve.

    No array of the size of the networks is allocated. It takes a few seconds at any width and batch.

    Args:
        task: networks and losses.
        batch_size: images of one discriminator update, over all devices.
        image_shape: (H, W, C).
        discriminator_steps: discriminator updates per step.
    """
    state = jax.eval_shape(lambda: initial_state(task, 0, image_shape))
    batch = Batch(
        jax.ShapeDtypeStruct((discriminator_steps, batch_size, *image_shape), jnp.float32),
        jax.ShapeDtypeStruct((discriminator_steps, batch_size), jnp.int32),
    )
    whole = dataclasses.replace(task, accumulation_steps=1)  # the body of a loop would be counted once
    return program_flops(partial(step, whole), state, batch)


def program_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the floating-point operations of a function, counted as in `step_flops`: the body of a loop once.

    Args:
        function: is traced, neither compiled nor run.
        arguments: shapes suffice.

    Raises:
        InvalidInputError: `JAX_PLATFORMS` leaves out the CPU, whose backend counts.
    """
    # The backend of a CPU counts, also for other platforms; that of a GPU does not.
    with jax.default_device(_cpu()):
        traced = jax.jit(function).trace(*arguments)
        # On a CPU the body of a loop of products would be counted once, and on a GPU no product of a library.
        counted = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    assert counted is not None
    return counted["flops"]


def _cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        asked = jax.config.jax_platforms  # pyrefly: ignore[missing-attribute]
        raise InvalidInputError(
            f"Operations are counted by jax's CPU backend, which JAX_PLATFORMS={asked!r} leaves out. "
            f"Set JAX_PLATFORMS={asked},cpu."
        ) from error
