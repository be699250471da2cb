"""The count of floating-point operations, against one by hand."""

import os
import subprocess
import sys

import pytest

from sagan_jax.models.sagan import Discriminator, Generator
from sagan_jax.training.adversarial import AdversarialTask
from sagan_jax.training.flops import step_flops


def convolution(size, inputs, outputs):
    """Multiplications and additions of a padded 3x3 convolution. An axis has 3 taps a position, and 2 at either end."""
    return 2 * (3 * size - 2) ** 2 * inputs * outputs


def point(size, inputs, outputs):
    return 2 * size**2 * inputs * outputs


def upsampled(size, inputs, outputs):
    """The same after upsampling to `size`: nine products for each position of the small map."""
    return point(size // 2, 9 * inputs, outputs)


def pooled(size, inputs, outputs):
    """The same before pooling from `size`: nine products for each position, or a padded 4x4 kernel of stride 2."""
    if min(inputs, outputs) >= 128:
        return point(size // 2, 9 * inputs, outputs)
    return 2 * (2 * size - 2) ** 2 * inputs * outputs


def by_hand(base, batch, updates):
    """One step of the 64-pixel networks without attention and classes: their convolutions, and nothing else."""
    generator, last = 0, 16 * base
    for size, width in zip((8, 16, 32, 64), (8, 4, 2, 1), strict=True):
        width *= base
        generator += upsampled(size, last, width) + convolution(size, width, width) + point(size // 2, last, width)
        last = width
    generator += convolution(64, last, 3)
    image_side = convolution(64, 3, base) + point(32, 3, base)
    discriminator = image_side + pooled(64, base, base)
    for size, inputs, outputs in ((32, 1, 2), (16, 2, 4), (8, 4, 8)):
        inputs, outputs = inputs * base, outputs * base
        discriminator += convolution(size, inputs, outputs) + pooled(size, outputs, outputs)
        discriminator += point(size // 2, inputs, outputs)
    discriminator += convolution(4, 8 * base, 16 * base) + convolution(4, 16 * base, 16 * base)
    discriminator += point(4, 8 * base, 16 * base)
    # The forward pass and the gradients of kernels and features are three passes. The images need no gradient here.
    update = generator + 2 * (3 * discriminator - image_side)
    return batch * (updates * update + 3 * generator + 2 * discriminator)


def task(base):
    return AdversarialTask(
        Generator(64, 0, base, attention_resolutions=()),
        Discriminator(64, 0, base, attention_resolutions=()),
        num_classes=0,
    )


@pytest.mark.slow
def test_step_flops_of_wide_networks_are_those_of_their_convolutions():
    counted = step_flops(task(48), 24, (64, 64, 3))
    assert 1.0 < counted / by_hand(48, 24, 1) < 1.02


@pytest.mark.slow
def test_step_flops_count_every_discriminator_update():
    one, three = (step_flops(task(48), 24, (64, 64, 3), discriminator_steps=updates) for updates in (1, 3))
    extra = by_hand(48, 24, 3) - by_hand(48, 24, 1)
    assert 1.0 < (three - one) / extra < 1.02


@pytest.mark.slow
@pytest.mark.one_jax
def test_step_at_full_width_takes_at_most_720_gflop():
    wide = AdversarialTask(Generator(128, 1000, 64), Discriminator(128, 1000, 64), num_classes=1000)
    assert step_flops(wide, 8, (128, 128, 3)) < 720e9


@pytest.mark.slow
@pytest.mark.one_jax  # the bounds hold for the compiler of one jax
def test_step_at_full_width_needs_at_most_the_temporaries_that_it_had():
    """Compiles in a process whose flags plan memory as for a user. The tests' own flags compile without fusion.

    Training donates the state, and so do these programs. They needed 1.785 GiB before convolutions were joined and D's
    new moments were made last. The result of a GPU's compiler is not known here, so the CPU's compiler also compiles
    the form for GPUs.
    """
    found = {}
    for form, prepare in (
        ("cpu", "convolution._has_patches = lambda *given: True"),
        ("gpu", "convolution._has_patches = lambda *given: False"),
    ):
        # Memory is planned before machine code is made, so the code need not be optimised.
        flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"}
        command = [sys.executable, "-c", TEMPORARIES.format(prepare=prepare)]
        ended = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
        found[form] = int(ended.stdout.split()[-1]) / 2**30
    assert found["cpu"] < 1.785
    assert found["gpu"] < 0.8 * 1.785


TEMPORARIES = """
from functools import partial
import jax, jax.numpy as jnp
from sagan_jax.functional import convolution
from sagan_jax.models.sagan import Discriminator, Generator
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step

{prepare}
shape = (128, 128, 3)
task = AdversarialTask(Generator(128, 1000, 64), Discriminator(128, 1000, 64), num_classes=1000)
state = jax.eval_shape(lambda: initial_state(task, 0, shape))
batch = Batch(jax.ShapeDtypeStruct((1, 8, *shape), jnp.float32), jax.ShapeDtypeStruct((1, 8), jnp.int32))
compiled = jax.jit(partial(step, task), donate_argnums=0).lower(state, batch).compile()
print(compiled.memory_analysis().temp_size_in_bytes)
"""
