"""ONNX files of networks of a user's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.models import sagan
from sagan_jax.runs.onnx_files import generator_onnx
from support.assertions import refusal
from support.params import draw_tree

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'sagan-jax[onnx]'")


class Counting(nn.Module):
    """Writes batch statistics also in evaluation, and takes `len` of the batch if `by_len` is set."""

    by_len: bool

    @nn.compact
    def __call__(self, latents, labels, *, train):
        seen = self.variable("batch_stats", "seen", lambda: jnp.zeros(()))
        seen.value = seen.value + (len(latents) if self.by_len else 1)
        return jnp.tanh(latents[:, :3]).reshape(-1, 1, 1, 3) * jnp.ones((1, 4, 4, 1))


def by_len(features):
    """A layer at an attention place that asks for the size of the batch."""
    return features + sum(features[number].mean() for number in range(len(features)))


def drawn(network, latent_size):
    inputs = jnp.zeros((1, latent_size)), jnp.zeros(1, jnp.int32)
    return draw_tree(dict(jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, train=False))), 3)


def trained(by_len):
    return TrainedGenerator(Counting(by_len), {"batch_stats": {"seen": np.float32(0)}}, 5, 0, step=3)


def test_network_that_writes_statistics_in_evaluation_is_exported():
    latents = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(generator_onnx(trained(by_len=False), {}))
    (images,) = session.run(["images"], {"latents": latents})
    expected = np.broadcast_to(np.tanh(latents[:, None, None, :3]), (7, 4, 4, 3))
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_error_of_a_layer_of_a_user_is_one_line_with_its_file():
    network = sagan.Generator(resolution=32, num_classes=0, base_channels=2, attention=by_len)
    line = refusal(generator_onnx, TrainedGenerator(network, drawn(network, 5), 5, 0, step=3), {})
    assert line.startswith("generator.onnx could not be made of the network: TypeError in line ")
    assert "of 'test_onnx_files.py'" in line


def test_error_of_a_network_is_one_line_with_its_file():
    line = refusal(generator_onnx, trained(by_len=True), {})
    assert line.startswith("generator.onnx could not be made of the network: ")
    assert "of 'test_onnx_files.py'" in line
