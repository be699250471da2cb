"""Figures of attention: the maps of query positions, and gamma, attention distance and entropy over a run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from sagan_jax.runtime.metrics_log import Curve

COLOURS = ("#e6194b", "#3cb44b", "#ffd21f", "#42a5f5", "#f58231", "#b455d6", "#46f0f0", "#f032e6")
"""The colours of the queries, in turn."""

MASS = 0.5
"""The outlined region is the smallest that holds this share of a query's attention."""


class Panel(NamedTuple):
    """The attention of some queries in one layer.

    Attributes:
        title: such as `generator, 32x32, gamma 0.21`.
        weights: `[Q, h, w]`: for each query its attention weights over the key positions; each map sums to 1.
    """

    title: str
    weights: np.ndarray


def attention_figure(
    image: np.ndarray, queries: Sequence[tuple[float, float]], panels: Sequence[Panel], *, title: str = ""
) -> Figure:
    """Returns an image with a coloured dot at each query, and beside it their attention maps.

    The layout follows figures 1 and 5 of the paper.

    Each row is a layer, each column a query. The weights are a heat map over the grey image. The smallest region that
    holds half of the attention is outlined in the colour of the query.

    Args:
        image: `[R, R, C]` uint8, C 1 or 3.
        queries: x and y of each dot, in pixels from the upper left corner of the image.
        panels: one per layer, with weights in the order of the queries.
        title: above the whole figure.
    """
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(queries))]
    figure = Figure(figsize=(1.6 * (len(queries) + 1), 1.75 * len(panels) + 0.35), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(panels), len(queries) + 1, squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, extent=_extent(image), interpolation="nearest")
        row[0].set_xlabel(panel.title, fontsize=6)
        for query, colour in zip(queries, colours, strict=True):
            _draw_dot(row[0], query, colour)
        for axis, weights, query, colour in zip(row[1:], panel.weights, queries, colours, strict=True):
            _draw_map(axis, image, weights, colour)
            _draw_dot(axis, query, colour)
    return figure


def _extent(image: np.ndarray) -> tuple[float, float, float, float]:
    """Returns left, right, bottom and top of an image, in its pixels."""
    size = image.shape[0]
    return 0, size, size, 0


def _draw_map(axis: Axes, image: np.ndarray, weights: np.ndarray, colour: str) -> None:
    """Draws the attention map of a query over the grey image, and the outline of the most attended region."""
    grey, extent = image.mean(axis=2), _extent(image)
    opacity = 0.15 + 0.65 * weights / max(float(weights.max()), 1e-12)
    axis.imshow(grey, cmap="gray", vmin=-120, vmax=420, extent=extent, interpolation="nearest")
    axis.imshow(weights, cmap="inferno", vmin=0, extent=extent, interpolation="nearest", alpha=opacity)
    edges = region_edges(most_attended(weights)) * image.shape[0] / np.array(weights.shape[::-1])
    axis.add_collection(LineCollection(list(edges), colors=colour, linewidths=1.1))
    axis.set_xlabel(f"max {weights.max():.1%}", fontsize=6)


def _draw_dot(axis: Axes, query: tuple[float, float], colour: str) -> None:
    axis.plot(*query, "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.7, clip_on=False)


def most_attended(weights: np.ndarray, mass: float = MASS) -> np.ndarray:
    """Returns the smallest set of positions that holds the share `mass` of the attention.

    Args:
        weights: `[h, w]`, not negative.
        mass: in (0, 1].

    Returns:
        `[h, w]` bool, True in the set.

    Examples:
        >>> most_attended(np.array([[0.1, 0.6], [0.3, 0.0]])).tolist()
        [[False, True], [False, False]]
    """
    order = np.argsort(weights, axis=None, kind="stable")[::-1]
    before = np.cumsum(weights.ravel()[order]) - weights.ravel()[order]
    chosen = np.zeros(weights.size, bool)
    chosen[order[before < mass * weights.sum()]] = True
    return chosen.reshape(weights.shape)


def history_figure(curves: Mapping[str, Curve]) -> Figure:
    """Returns gamma, attention distance and attention entropy over the steps of a run, one line per layer.

    Args:
        curves: the curves of a run, by the name of the metric. Other metrics are ignored.
    """
    wanted = (
        ("gamma_", "γ (attention gate)"),
        ("attention_distance_", "mean attention distance, pixels"),
        ("attention_entropy_", "mean attention entropy, nats"),
    )
    found = [(title, [name for name in sorted(curves) if f"/{part}" in name]) for part, title in wanted]
    found = [(title, names) for title, names in found if names]
    figure = Figure(figsize=(4.2 * max(1, len(found)), 3), layout="constrained")
    for axis, (title, names) in zip(np.atleast_1d(figure.subplots(1, max(1, len(found)))), found, strict=False):
        for name in names:
            axis.plot(*curves[name], label=_layer_label(name), linewidth=1.4)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
        if "γ" in title:
            axis.axhline(0, color="black", linewidth=0.7)
    return figure


def spread_figure(layers: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Returns a box plot of attention distance and entropy for each layer, with the entropy of uniform attention.

    Args:
        layers: by name: attention distance of each query in pixels, entropy of each in nats, and the entropy of
            uniform attention.
    """
    figure = Figure(figsize=(8.4, 0.5 * len(layers) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (_name, (distance, entropy, uniform)) in enumerate(layers.items()):
        left.boxplot(distance.ravel(), positions=[place], orientation="horizontal", widths=0.6, showfliers=False)
        right.boxplot(entropy.ravel(), positions=[place], orientation="horizontal", widths=0.6, showfliers=False)
        right.plot([uniform, uniform], [place - 0.4, place + 0.4], color="tab:red", linewidth=1.2)
    left.set_yticks(range(len(layers)), layers, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("attention distance, pixels", fontsize=8)
    right.set_xlabel("attention entropy, nats (red: uniform attention)", fontsize=8)
    for axis in (left, right):
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3, axis="x")
    return figure


def _layer_label(name: str) -> str:
    """Returns `G 32` for `generator/gamma_32`."""
    network, _, rest = name.partition("/")
    return f"{network[:1].upper()} {rest.rpartition('_')[2]}"


def region_edges(region: np.ndarray) -> np.ndarray:
    """Returns the border of a region as line segments along the edges of its cells.

    Args:
        region: `[h, w]` bool.

    Returns:
        `[E, 2, 2]`: x and y of both ends of each segment, in cells from the upper left corner.

    Examples:
        >>> len(region_edges(np.array([[True, True], [False, False]])))
        6
    """
    padded = np.pad(region, 1)
    y, x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = np.stack([np.stack([x, y], 1), np.stack([x + 1, y], 1)], 1)
    y, x = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], 1)
    return np.concatenate([level, upright])
