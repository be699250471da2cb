"""The figures of attention."""

import doctest

import numpy as np
import pytest

from sagan_jax.runtime.metrics_log import Curve
from sagan_jax.views import attention
from sagan_jax.views.attention import (
    Panel,
    attention_figure,
    history_figure,
    most_attended,
    region_edges,
    spread_figure,
)

pytestmark = pytest.mark.one_jax


def test_examples_of_the_figures_are_true():
    assert doctest.testmod(attention) == (0, 2)


def test_most_attended_region_is_the_smallest_that_holds_half():
    weights = np.random.default_rng(0).dirichlet(np.full(15, 0.3)).reshape(3, 5)
    chosen = most_attended(weights)
    assert weights[chosen].sum() >= 0.5
    assert weights[chosen].sum() - weights[chosen].min() < 0.5
    assert weights[chosen].min() >= weights[~chosen].max()


@pytest.mark.parametrize(
    ("region", "length"),
    [([[1]], 4), ([[1, 1]], 6), ([[1, 0], [0, 1]], 8), ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], 16), ([[0, 0]], 0)],
)
def test_edges_of_a_region_lie_between_what_is_in_it_and_what_is_not(region, length):
    region = np.array(region, bool)
    edges = region_edges(region)
    assert len(edges) == length
    padded = np.pad(region, 1)
    for (x1, y1), (x2, y2) in edges:
        if y1 == y2:  # level: the cells above and below differ
            assert abs(x2 - x1) == 1
            assert padded[y1, min(x1, x2) + 1] != padded[y1 + 1, min(x1, x2) + 1]
        else:
            assert (x1, abs(y2 - y1)) == (x2, 1)
            assert padded[min(y1, y2) + 1, x1] != padded[min(y1, y2) + 1, x1 + 1]


def test_figure_has_a_column_a_query_and_a_row_a_layer_with_the_dots_where_they_belong():
    image = np.zeros((32, 32, 3), np.uint8)
    drawn = np.random.default_rng(0).dirichlet(np.ones(12), 3).reshape(3, 3, 4)
    figure = attention_figure(image, [(3, 5), (20, 30), (8, 1)], [Panel("one", drawn), Panel("two", drawn[::-1])])
    assert len(figure.axes) == 2 * 4
    first = [line.get_xydata()[0].tolist() for line in figure.axes[0].lines]
    assert first == [[3, 5], [20, 30], [8, 1]]
    assert [axis.lines[0].get_xydata()[0].tolist() for axis in figure.axes[1:4]] == first
    assert np.array_equal(figure.axes[2].images[1].get_array(), drawn[1])
    assert np.array_equal(figure.axes[5].images[1].get_array(), drawn[2])


def test_history_draws_each_layer_over_the_steps_that_have_it():
    curves = {
        "generator/gamma_8": Curve(np.array([1, 5]), np.array([0.1, 0.3])),
        "discriminator/gamma_8": Curve(np.array([5]), np.array([-0.2])),
        "generator/loss": Curve(np.array([1]), np.array([9.0])),
    }
    (axis,) = history_figure(curves).axes
    drawn = {
        line.get_label(): line.get_xydata().tolist() for line in axis.lines if not line.get_label().startswith("_")
    }
    assert drawn == {"G 8": [[1, 0.1], [5, 0.3]], "D 8": [[5, -0.2]]}


def test_history_has_an_axis_each_for_gamma_distance_and_entropy():
    names = ("attention_entropy_8", "attention_distance_8", "gamma_8")
    curves = {f"generator/{name}": Curve(np.array([1]), np.array([0.5])) for name in names}
    titles = [axis.get_title() for axis in history_figure(curves).axes]
    assert titles == ["γ (attention gate)", "mean attention distance, pixels", "mean attention entropy, nats"]


def test_history_of_a_run_that_recorded_nothing_is_empty():
    assert not [line for axis in history_figure({}).axes for line in axis.lines]


def test_spread_draws_the_median_of_each_layer_and_the_entropy_of_uniform_attention():
    layers = {
        "G 8": (np.array([[1.0, 2.0, 9.0]]), np.array([[0.25, 0.5, 0.75]]), 1.5),
        "D 16": (np.array([[3.0, 4.0, 5.0]]), np.array([[1.0, 2.0, 2.5]]), 2.75),
    }
    distance, entropy = spread_figure(layers).axes
    assert [label.get_text() for label in distance.get_yticklabels()] == ["G 8", "D 16"]
    assert medians(distance) == [2.0, 4.0]
    assert medians(entropy) == [0.5, 2.0]
    uniform = [list(line.get_xdata()) for line in entropy.lines if line.get_color() == "tab:red"]
    assert uniform == [[1.5, 1.5], [2.75, 2.75]]


def medians(axis):
    """Returns where the orange line of each box is."""
    return [float(line.get_xdata()[0]) for line in axis.lines if line.get_color() == "C1"]
