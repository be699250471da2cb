"""The floating-point operations of a training step as counted by XLA, without compiling or running it."""

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

    The count covers the whole step: the updates of D and G, forward and backward, the optimisers and spectral
    normalisation. A multiply-add counts as two operations. A convolution's window counts only where it lies inside the
    image.

    The count is XLA's `HloCostAnalysis` of `jax.jit(step).lower(...)`, lowered as for a GPU or a TPU. No such device is
    needed. On a CPU some weight gradients are loops of products instead, with the same number of operations. The
    compiler may add operations by recomputing values, or save some with other convolution algorithms.

    Attention whose map has more than 2**22 entries per image is computed in blocks of queries. Only the first block is
    counted. Article attention has such maps at 64 x 64 positions and more, release attention at 128 x 128 and more.

    The function allocates no parameters or activations. It takes a few seconds for any width and batch size.

    Args:
        task: the networks and losses.
        batch_size: the number of images in one discriminator update, over all devices.
        image_shape: (H, W, C).
        discriminator_steps: discriminator updates per step.
    """
    state = jax.eval_shape(lambda: initial_state(task, 0, image_shape))
    batch = Batch(
        jax.ShapeDtypeStruct((discriminator_steps, batch_size, *image_shape), jnp.float32),
        jax.ShapeDtypeStruct((discriminator_steps, batch_size), jnp.int32),
    )
    whole = dataclasses.replace(task, accumulation_steps=1)  # the body of a loop is counted only once
    return program_flops(partial(step, whole), state, batch)


def program_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the floating-point operations of a function, counted as in `step_flops`. Loop bodies count once.

    Args:
        function: the function to trace. It is neither compiled nor run.
        arguments: its arguments, or their shapes as `jax.ShapeDtypeStruct`.

    Raises:
        InvalidInputError: when `JAX_PLATFORMS` excludes the CPU, whose backend does the counting.
    """
    # The CPU backend can count operations, also for programs of other platforms. The GPU backend cannot.
    with jax.default_device(_cpu()):
        traced = jax.jit(function).trace(*arguments)
        # Lowered for a CPU, loops of products would count once. Lowered for a GPU, library calls would not count.
        counted = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    assert counted is not None
    return counted["flops"]


def _cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        asked = jax.config.jax_platforms  # pyrefly: ignore[missing-attribute]
        raise InvalidInputError(
            f"Operations are counted by jax's CPU backend, which JAX_PLATFORMS={asked!r} excludes. "
            f"Set JAX_PLATFORMS={asked},cpu."
        ) from error
