"""The curves of the report: what is drawn of a metric, and under which heading."""

import doctest
import re

import numpy as np
import pytest

from sagan_jax.runtime.metrics_log import Curve
from sagan_jax.views import curves
from sagan_jax.views.curves import curve_sections, downsample, metric_label, smooth

pytestmark = pytest.mark.one_jax


def make_curves(*names, points=3):
    return {name: Curve(np.arange(points) * 10, np.arange(points) + 0.5) for name in names}


def test_examples_of_the_curves_are_true():
    assert doctest.testmod(curves) == (0, 8)


def test_downsample_keeps_short_curves_and_spikes():
    curve = Curve(np.arange(10_001), np.sin(np.arange(10_001)))
    curve.values[[3333, 7777]] = 50, -50
    kept = downsample(curve)
    assert len(kept.values) <= 2000
    assert {3333, 7777} <= set(kept.steps.tolist())
    assert (np.diff(kept.steps) > 0).all()
    assert (kept.values == curve.values[kept.steps]).all()
    assert downsample(Curve(curve.steps[:2000], curve.values[:2000])).steps.tolist() == list(range(2000))


def test_smooth_is_the_mean_around_each_step():
    values = np.random.default_rng(1).normal(size=350)
    curve = smooth(Curve(np.arange(350) * 10, values))
    assert len(curve.steps) == 344
    assert curve.steps[0] == 30
    assert np.allclose(curve.values[40], values[40:47].mean())
    assert curve.steps[40] == 430


def test_sections_hold_every_metric_once():
    names = ["generator/loss", "discriminator/loss_real", "discriminator/loss", "generator/gamma_32", "a/b"]
    names += ["generator/attention_distance_8", "discriminator/fake_logits", "images_per_second", "score/fid50k_train"]
    names += ["generator/sigma/block_2/conv_1_kernel", "discriminator/sigma/dense_kernel", "generator/gradient_norm"]
    panels = [panel for section in curve_sections(make_curves(*names)).values() for panel in section]
    assert sum(len(panel.legend) for panel in panels) == len(names)


def test_sections_leave_out_the_seconds_of_scoring_and_a_score_of_one_point():
    assert curve_sections(make_curves("score/seconds")) == {}
    assert curve_sections(make_curves("score/fid50k_train", points=1)) == {}


def test_blocks_are_in_the_order_of_the_network():
    names = [f"generator/sigma/{block}/conv_kernel" for block in ("to_rgb", "block_10", "block_2", "attention_32")]
    (section,) = curve_sections(make_curves(*names, "generator/sigma/dense_kernel")).values()
    assert [panel.title for panel in section] == ["block 2", "block 10", "attention 32", "to rgb", "other layers"]


@pytest.mark.parametrize(("points", "lines"), [(200, 1), (201, 2)])
def test_running_mean_is_drawn_over_long_curves_only(points, lines):
    ((panel,),) = curve_sections(make_curves("generator/loss", points=points)).values()
    assert len(re.findall(r"stroke: var\(--curve-0\)", panel.svg)) == lines


@pytest.mark.parametrize(
    ("name", "label"),
    [("discriminator/loss", "both"), ("generator/loss", "loss"), ("generator/attention_entropy_16", "G at 16")],
)
def test_label_of_a_metric_is_short(name, label):
    assert metric_label(name) == label
