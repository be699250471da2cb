"""The probe of reach from a layer to its accuracies, with few steps and images."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sagan_jax.errors import NonFiniteError
from sagan_jax.models.reach_probe import RESIDUAL_POSITIONS, ReachProbe
from sagan_jax.runs import reach
from sagan_jax.runs.reach import BINS, ReachBin, ReachResult, measure_reach
from support.assertions import refusal


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"HELD_OUT": 12, "QUARTETS": 4, "CURVE_STEPS": 40, "CURVE_QUARTETS": 8}.items():
        monkeypatch.setattr(reach, name, value)


def test_bins_end_where_the_receptive_fields_do():
    field, with_residual = ReachProbe().receptive_field(), ReachProbe().receptive_field(RESIDUAL_POSITIONS)
    assert BINS[2][0] == field - 1
    assert BINS[3][0] == with_residual - 1
    assert [low for low, _ in BINS[1:]] == [high + 1 for _, high in BINS[:-1]]
    assert BINS[-1][1] == reach.RESOLUTION - 2 * reach.RULE.width(reach.RESOLUTION)


@pytest.mark.slow
@pytest.mark.one_jax
def test_without_a_layer_accuracy_beyond_reach_is_one_half():
    points = []
    result = measure_reach("none", seed=3, steps=70, on_progress=lambda *point: points.append(point))
    assert [part.accuracy for part in result.bins[2:]] == [0.5, 0.5]
    assert result.curve == tuple(points) == ((40, 0.5), (70, 0.5))
    assert (result.attention, result.seed, result.steps, result.gamma) == ("none", 3, 70, None)
    assert [part[:3] for part in result.bins] == [(*gaps, 12) for gaps in BINS]
    assert result.parameters == 3 * 9 * 32 + 2 * 32 * 9 * 32 + 3 * 32 + 33
    assert measure_reach("none", seed=3, steps=70) == result


def test_images_of_each_step_seed_and_bin_are_others():
    batches = [reach._training_batch(0, 1), reach._training_batch(0, 2), reach._training_batch(1, 1)]
    drawn = [batch.images for batch in batches] + [reach._held_out(number)[:4] for number in range(4)]
    assert len({images.tobytes() for images in drawn}) == 7
    assert np.array_equal(reach._training_batch(0, 2).images, drawn[1])


def test_layer_of_a_file_is_measured(tmp_path):
    (tmp_path / "layers.py").write_text(
        "import flax.linen as nn\nclass Sum(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n"
        "        return x + self.param('gamma', lambda _: 0.5 + 0 * x.sum()) * x.sum((1, 2), keepdims=True)\n"
    )
    result = measure_reach(f"{tmp_path}/layers.py:Sum", steps=51)
    assert result.attention == f"{tmp_path}/layers.py:Sum"
    assert result.gamma != 0.5
    assert result.bins[3].accuracy != 0.5


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        ("releese", "one of release, article, .*; got 'releese'. Perhaps you meant 'release'?"),
        ("absent.py:Layer", "attention absent.py:Layer: there is no file 'absent.py'"),
        (lambda x: x[:, 1:], "attention <lambda>: .* needs to return features of float32 [2, 16, 16, 32]"),
        (nn.BatchNorm(True), "attention BatchNorm has variables batch_stats"),
    ],
)
def test_what_is_no_layer_is_refused(attention, words):
    line = refusal(measure_reach, attention)
    assert all(part in line for part in words.removesuffix("?").split(".*"))


def test_seed_and_steps_out_of_range_are_refused():
    assert "more than 50 steps; got seed 0 and 50 steps" in refusal(measure_reach, "none", steps=50)
    assert "got seed -1 and 1500 steps" in refusal(measure_reach, "none", seed=-1)


def test_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(NonFiniteError, match="The loss of the probe is nan at step 40") as caught:
        measure_reach(lambda features: features / jnp.zeros(()), steps=60)
    assert caught.value.step == 40


@pytest.mark.parametrize(("right", "total"), [(0, 7), (5, 7), (7, 7), (300, 512)])
def test_interval_is_wilsons(right, total):
    expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert ReachBin(1, 2, total, right / total).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_first_step_is_the_first_that_is_accurate_enough():
    curve = (100, 0.5), (200, 0.9), (300, 0.85), (400, 0.99)
    result = ReachResult("none", 0, 400, 1, (ReachBin(1, 2, 3, 0.5),), curve, None)
    assert [result.first_step(), result.first_step(0.95), result.first_step(0.999)] == [200, 400, None]
    assert result.beyond_reach == result.bins[0]
