"""Pillow's bicubic resize without rounding, as clean-fid uses it, against the kernel in float64."""

import numpy as np
import pytest

from sagan_jax.evaluation.pillow_resize import bicubic_in_floats
from sagan_jax.models.dinov2 import bicubic_weights


@pytest.mark.parametrize(("sides", "channels"), [((5, 8), 3), ((23, 31), 3), ((11, 11), 1), ((40, 7), 3)])
def test_resize_in_floats_is_the_antialiased_cubic_kernel_cut_off_at_0_and_255(sides, channels):
    images = np.random.default_rng(0).integers(0, 2, (3, *sides, channels)).astype(np.uint8) * 255
    resized = bicubic_in_floats(images, 11)
    down, across = (bicubic_weights(side, 11, 11 / side, antialias=True) for side in sides)
    wanted = np.stack(
        [[down @ image[..., channel].astype(float) @ across.T for channel in range(channels)] for image in images]
    )
    assert resized.dtype == np.float32
    assert resized.shape == (3, 11, 11, channels)
    np.testing.assert_allclose(resized, np.moveaxis(wanted, 1, -1).clip(0, 255), rtol=0, atol=1e-3)
    if sides != (11, 11):
        assert (resized % 1 != 0).any()
