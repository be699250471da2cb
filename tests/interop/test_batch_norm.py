"""A convolution with its batch norm folded in."""

import doctest

import numpy as np

from sagan_jax.interop import batch_norm


def test_folded_convolution_does_what_a_convolution_and_its_norm_did():
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(7, 3)), random.normal(size=(3, 5))
    norm = dict(zip(batch_norm.PARTS, random.uniform(0.5, 2, (4, 5)), strict=True))
    wanted = (x @ kernel - norm["running_mean"]) / np.sqrt(norm["running_var"] + 0.1) * norm["weight"] + norm["bias"]
    arrays = {f"layer.{part}": array for part, array in norm.items()}
    folded, bias = batch_norm.fold(kernel, arrays, "layer", epsilon=0.1)
    np.testing.assert_allclose(x @ folded + bias, wanted, rtol=1e-12)


def test_integers_and_half_precision_are_folded_in_float64():
    parts = dict(zip(batch_norm.PARTS, np.float16([[3], [1], [2], [0.3]]), strict=True))
    arrays = {f"layer.{part}": array for part, array in parts.items()}
    folded, _ = batch_norm.fold(np.array([[7]]), arrays, "layer", epsilon=1e-3)
    assert folded.item() == 7 * (3 / np.sqrt(float(np.float16(0.3)) + 1e-3))


def test_doctest():
    assert doctest.testmod(batch_norm) == (0, 4)
