"""The probe of reach: its receptive field, and that it can only add up parts that are farther apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.data.pipeline import to_float
from sagan_jax.data.quartets import draw_quartets
from sagan_jax.data.synthetic import Pairs
from sagan_jax.models.reach_probe import RESIDUAL_POSITIONS, ReachProbe

SIZE = 48
RULE = Pairs(hues=5, forms=1, size=6)  # blobs of 9 pixels
LOCAL = {"none": 1, "residual": RESIDUAL_POSITIONS}
FAR = "release", "article", "multi_head", "uniform", "squeeze_excite"


def filled(probe):
    """Returns parameters away from where they start: gates that are open, and biases."""
    shapes = jax.eval_shape(lambda: probe.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))["params"]
    random = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: random.normal(scale=0.5, size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("attention", LOCAL)
@pytest.mark.parametrize("strides", [((2, 1), (1,)), ((1, 2, 1), (2, 1))])
def test_receptive_field_is_what_a_broken_column_reaches(attention, strides):
    probe = ReachProbe(attention, channels=3, strides_before=strides[0], strides_after=strides[1])
    images = np.where(np.eye(SIZE)[:, None, :, None] == 1, np.nan, np.zeros((SIZE, SIZE, SIZE, 3), np.float32))
    _, seen = probe.apply({"params": filled(probe)}, images, capture_intermediates=True, mutable=["intermediates"])
    features = seen["intermediates"][f"after_{len(strides[1])}"]["__call__"][0]
    columns = np.isnan(features).any(axis=(1, 3)).sum(axis=0)
    assert columns[len(columns) // 2] == probe.receptive_field(LOCAL[attention])


def interaction(attention, gap):
    """Returns how far the logits of quartets are from a sum over the two parts, relative to the effect of the hues."""
    probe = ReachProbe(attention, channels=8)
    quartets = draw_quartets(RULE, 8, SIZE, (gap, gap), np.random.default_rng(1))
    images = to_float(quartets.images.reshape(-1, SIZE, SIZE, 3))
    logits = np.asarray(probe.apply({"params": filled(probe)}, images), np.float64).reshape(8, 4)
    return np.abs(logits @ [1, 1, -1, -1]).max() / np.abs(logits[:, 0] - logits[:, 1]).max()


@pytest.mark.parametrize("attention", LOCAL)
def test_logit_is_a_sum_over_parts_beyond_the_receptive_field(attention):
    field = ReachProbe().receptive_field(LOCAL[attention])
    assert interaction(attention, field - 1) < 1e-5
    assert interaction(attention, field - 4) > 1e-3


@pytest.mark.parametrize("attention", FAR)
def test_logit_is_no_sum_over_parts_with_a_layer_that_looks_far(attention):
    assert interaction(attention, 28) > 1e-3


def test_layer_of_ones_own_sits_in_the_middle():
    seen = []
    probe = ReachProbe(lambda features: seen.append(features.shape) or features, channels=3)
    jax.eval_shape(lambda: probe.init(jax.random.key(0), jnp.zeros((2, SIZE, SIZE, 3))))
    assert seen == [(2, SIZE // 2, SIZE // 2, 3)]


def test_black_image_equals_padding():
    probe, black = ReachProbe(channels=3), -jnp.ones((1, SIZE, SIZE, 3))
    params = probe.init(jax.random.key(0), black)["params"]  # biases are 0
    assert probe.apply({"params": params}, black) == 0
    assert probe.apply({"params": params}, -black) != 0
