"""Attention as pictures: where positions of an image look, and how gamma and the reach of attention went."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

COLOURS = ("#e6194b", "#3cb44b", "#ffd21f", "#42a5f5", "#f58231", "#b455d6", "#46f0f0", "#f032e6")
"""Of the queries, in turn."""

MASS = 0.5
"""The outlined region is the smallest that holds this much of a query's weight."""


class Panel(NamedTuple):
    """What one attention layer saw in one image.

    Attributes:
        title: such as `generator, 32x32, gamma 0.21`.
        rows: `[Q, h, w]`: for each query its weights over the key positions; each sums to 1.
    """

    title: str
    rows: np.ndarray


def attention_figure(
    image: np.ndarray, queries: Sequence[tuple[float, float]], panels: Sequence[Panel], *, title: str = ""
) -> Figure:
    """Returns an image with coloured dots, and beside it for each dot where it looks: figures 1 and 5 of the paper.

    One row a layer, one column a query: the weights as a heat map over the image, darkened, and the smallest region
    that holds half of the weight outlined in the query's colour.

    Args:
        image: `[R, R, C]` uint8, C 1 or 3.
        queries: x and y of each dot, in pixels of the image, from its upper left corner.
        panels: one a layer, rows in the order of the queries.
        title: above all.
    """
    grey = image.mean(axis=2)
    size = image.shape[0]
    extent = (0, size, size, 0)
    figure = Figure(figsize=(1.6 * (len(queries) + 1), 1.75 * len(panels) + 0.35), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(panels), len(queries) + 1, squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].imshow(
            image.squeeze(), cmap="gray", vmin=0, vmax=255, extent=(0, size, size, 0), interpolation="nearest"
        )
        row[0].set_xlabel(panel.title, fontsize=6)
        for (x, y), colour in zip(queries, _colours(len(queries)), strict=True):
            row[0].plot(
                x, y, "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.7, clip_on=False
            )
        for axis, weights, (x, y), colour in zip(row[1:], panel.rows, queries, _colours(len(queries)), strict=True):
            axis.imshow(grey, cmap="gray", vmin=-120, vmax=420, extent=extent, interpolation="nearest")
            axis.imshow(
                weights, cmap="inferno", vmin=0, extent=extent, interpolation="nearest", alpha=_opacity(weights)
            )
            edges = region_edges(most_attended(weights)) * size / np.array(weights.shape[::-1])
            axis.add_collection(LineCollection(list(edges), colors=colour, linewidths=1.1))
            axis.plot(
                x, y, "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.7, clip_on=False
            )
            axis.set_xlabel(f"max {weights.max():.1%}", fontsize=6)
    return figure


def most_attended(weights: np.ndarray, mass: float = MASS) -> np.ndarray:
    """Returns which positions belong to the smallest region that holds `mass` of the weight, bool, same shape.

    >>> most_attended(np.array([[0.1, 0.6], [0.3, 0.0]])).tolist()
    [[False, True], [False, False]]
    """
    order = np.argsort(weights, axis=None, kind="stable")[::-1]
    before = np.cumsum(weights.ravel()[order]) - weights.ravel()[order]
    chosen = np.zeros(weights.size, bool)
    chosen[order[before < mass * weights.sum()]] = True
    return chosen.reshape(weights.shape)


def history_figure(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns how gamma, and the reach and entropy of attention, went over a run, one line a layer.

    Args:
        metrics: of `metrics.jsonl`, in order; steps that lack a value are passed over.
    """
    wanted = (
        ("gamma_", "γ: what attention adds"),
        ("attention_distance_", "mean distance looked, pixels"),
        ("attention_entropy_", "entropy of a row, nats"),
    )
    names = sorted({name for line in metrics for name in line})
    found = [(title, [name for name in names if f"/{part}" in name]) for part, title in wanted]
    found = [(title, names) for title, names in found if names]
    figure = Figure(figsize=(4.2 * max(1, len(found)), 3), layout="constrained")
    for axis, (title, curves) in zip(np.atleast_1d(figure.subplots(1, max(1, len(found)))), found, strict=False):
        for name in curves:
            points = [(line["step"], line[name]) for line in metrics if line.get(name) is not None]
            axis.plot(*zip(*points, strict=True), label=_layer(name), linewidth=1.4)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
        if "γ" in title:
            axis.axhline(0, color="black", linewidth=0.7)
    return figure


def spread_figure(layers: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Returns for each layer how far its positions look and how spread out, against what a uniform map would give.

    Args:
        layers: by name: mean distance of each query in pixels, entropy of each in nats, and that of a uniform row.
    """
    figure = Figure(figsize=(8.4, 0.5 * len(layers) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (_name, (distance, entropy, uniform)) in enumerate(layers.items()):
        left.boxplot(distance.ravel(), positions=[place], orientation="horizontal", widths=0.6, showfliers=False)
        right.boxplot(entropy.ravel(), positions=[place], orientation="horizontal", widths=0.6, showfliers=False)
        right.plot([uniform, uniform], [place - 0.4, place + 0.4], color="tab:red", linewidth=1.2)
    left.set_yticks(range(len(layers)), layers, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("distance looked, pixels", fontsize=8)
    right.set_xlabel("entropy of a row, nats (red: looks everywhere alike)", fontsize=8)
    for axis in (left, right):
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3, axis="x")
    return figure


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _opacity(weights: np.ndarray) -> np.ndarray:
    return 0.15 + 0.65 * weights / max(float(weights.max()), 1e-12)


def _layer(name: str) -> str:
    """Returns `G 32` for `generator/gamma_32`."""
    network, _, rest = name.partition("/")
    return f"{network[:1].upper()} {rest.rpartition('_')[2]}"


def region_edges(region: np.ndarray) -> np.ndarray:
    """Returns the border of a region as segments along the edges of its cells, `[E, 2, 2]`: x and y of both ends.

    >>> len(region_edges(np.array([[True, True], [False, False]])))
    6
    """
    padded = np.pad(region, 1)
    y, x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = np.stack([np.stack([x, y], 1), np.stack([x + 1, y], 1)], 1)
    y, x = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], 1)
    return np.concatenate([level, upright])
