"""The curves of a run: small SVG figures for its report, and a figure of the scores of its checkpoints."""

import io
import itertools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from sagan_jax.runtime.metrics_log import Curve

MAX_POINTS = 2000
"""Largest number of points of a drawn curve; `downsample` reduces longer curves."""

SMOOTH_ABOVE = 200
"""Number of points above which a curve of a noisy metric is drawn faint, with its running mean on top."""

# Placeholder colours for matplotlib. They are replaced by CSS variables, because the page has a light and a dark theme.
_INK, _FAINT = "#0a0b01", "#0a0b02"
_COLOURS = [f"#0a0bc{number}" for number in range(6)]
_PAGE_COLOURS = {_INK: "currentColor", _FAINT: "var(--line)"} | {
    colour: f"var(--curve-{number})" for number, colour in enumerate(_COLOURS)
}
_STYLE = {
    "svg.fonttype": "none",
    "path.simplify_threshold": 0.2,
    "font.size": 8,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _FAINT,
    "grid.color": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
}
_TICK_STEPS = [1, 2, 2.5, 5, 10]
_TINY = 1e-100  # smaller numbers count as zero, because their products and ratios leave the range of floats


class CurvePanel(NamedTuple):
    """Curves on one axis.

    Attributes:
        title: what the curves show.
        svg: the `<svg>` element; its colours are CSS variables of the page.
        legend: for each curve the number of its colour, its label and its last value.
    """

    title: str
    svg: Markup
    legend: list[tuple[int, str, str]]


def curve_sections(curves: Mapping[str, Curve]) -> dict[str, list[CurvePanel]]:
    """Returns panels with every metric of a run, by the heading of their section.

    Args:
        curves: by the name of the metric, each with at least one point. `score/seconds`, the signs of `health/` and
            scores with one point are not drawn.
    """
    left = dict(curves)

    def take(pattern: str) -> dict[str, Curve]:
        return {name: left.pop(name) for name in list(left) if re.search(pattern, name)}

    scores = take(r"^score/")
    scores.pop("score/seconds", None)
    diversity = take(r"^health/diversity$")
    take(r"^health/")  # the report describes these signs in words
    spectral = {network: take(rf"^{network}/sigma/") for network in ("generator", "discriminator")}
    training = {
        "discriminator losses": take(r"^discriminator/loss(_\w+)?$"),
        "generator loss": take(r"^generator/loss(_\w+)?$"),
        "mean logits": take(r"_logits$"),
        "γ (attention gate)": take(r"gamma_\d+$"),
        "mean attention distance, pixels": take(r"/attention_distance_\d+$"),
        "mean attention entropy, nats": take(r"/attention_entropy_\d+$"),
        "gradient norms": take(r"/gradient_norm$"),
        "diversity of drawn images, relative to real ones": diversity,
        "images per second": take(r"^images_per_second$"),
        "share of the time that devices wait for images": take(r"^input_wait$"),
    }
    sections = {
        "Losses, logits, attention, gradients, throughput": [
            _panel(title, found, log=title == "gradient norms", zero_line=title.startswith("γ"))
            for title, found in training.items()
            if found
        ],
        "Scores over the run": [
            _panel(name.removeprefix("score/"), {"": curve}) for name, curve in scores.items() if len(curve.steps) > 1
        ],
    }
    for network, found in spectral.items():
        sections[f"Largest singular values, {network}"] = _spectral_panels(found, f"{network}/sigma/")
    sections["Other metrics"] = [_panel(name, {"": curve}) for name, curve in left.items()]
    return {heading: panels for heading, panels in sections.items() if panels}


def score_figure(curves: Mapping[str, Curve]) -> Figure:
    """Returns a figure with a panel for each score, over the steps whose checkpoints were scored.

    Args:
        curves: by the name of the score, each of at least one point.
    """
    columns = min(3, max(1, len(curves)))
    rows = -(-len(curves) // columns)
    plain = {name: value for name, value in _STYLE.items() if "color" not in name}
    with matplotlib.style.context(plain, after_reset=True):
        figure = Figure(figsize=(3.5 * columns, 2.2 * max(1, rows)), layout="constrained")
        for number, (name, curve) in enumerate(curves.items()):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.plot(curve.steps, curve.values, marker=".", clip_on=False)
            _set_scale(axes, float(curve.values.min()), float(curve.values.max()), log=False)
            axes.set_title(name)
            axes.set_xlabel("step")
    return figure


def smooth(curve: Curve) -> Curve:
    """Returns the running mean over windows of 1/50 of the points, at the middle step of each window.

    Examples:
        >>> curve = smooth(Curve(np.arange(150), np.arange(150) % 3))
        >>> curve.steps.tolist() == list(range(1, 149)), {round(value, 9) for value in curve.values.tolist()}
        (True, {1.0})
    """
    window = max(1, len(curve.values) // 50)
    total = np.cumsum(np.concatenate([[0.0], curve.values]))
    means = (total[window:] - total[:-window]) / window
    return Curve(curve.steps[(window - 1) // 2 :][: len(means)], means)


def downsample(curve: Curve, max_points: int = MAX_POINTS) -> Curve:
    """Returns at most `max_points` of a curve: the smallest and largest value of each interval, to keep spikes.

    Args:
        curve: of any length; returned unchanged if it is short enough.
        max_points: an even number; there are half as many intervals, of equal length.

    Examples:
        >>> curve = downsample(Curve(np.arange(9), np.array([0, 0, 9, 0, 0, 0, -9, 0, 0])), 4)
        >>> curve.steps.tolist(), curve.values.tolist()
        ([0, 2, 4, 6], [0, 9, 0, -9])
    """
    if len(curve.values) <= max_points:
        return curve
    edges = np.linspace(0, len(curve.values), max_points // 2 + 1).astype(int)
    kept: list[int] = []
    for first, end in itertools.pairwise(edges):
        values = curve.values[first:end]
        kept += sorted({first + int(values.argmin()), first + int(values.argmax())})
    return Curve(curve.steps[kept], curve.values[kept])


def metric_label(name: str) -> str:
    """Returns the name of a metric, short enough for a legend.

    Examples:
        >>> names = ("loss_real", "fake_logits", "gamma_32", "gradient_norm")
        >>> [metric_label(f"discriminator/{name}") for name in names]
        ['real', 'D, fake', 'D at 32', 'D']
    """
    network, _, metric = name.rpartition("/")
    if metric == "images_per_second":
        return "last"
    if metric.startswith("loss"):
        return metric.removeprefix("loss_") if metric != "loss" else "both" if network == "discriminator" else "loss"
    letter = {"generator": "G", "discriminator": "D"}.get(network, network)
    metric = re.sub(r"^attention_gamma_(\d+)$", r" at \1, drawn", metric)
    metric = re.sub(r"^(?:gamma|attention_distance|attention_entropy)_(\d+)$", r" at \1", metric)
    metric = {"fake_logits": ", fake", "real_logits": ", real", "gradient_norm": ""}.get(metric, metric)
    return (letter + metric).replace("_", " ")


def format_value(value: float, digits: int = 3) -> str:
    """Returns a number with `digits` significant digits and a typographic minus.

    Examples:
        >>> format_value(-0.123456)
        '−0.123'
    """
    return f"{value:.{digits}g}".replace("-", "−")


def _spectral_panels(curves: Mapping[str, Curve], prefix: str) -> list[CurvePanel]:
    """Returns a panel for each block and one for the layers outside blocks, all with the same limits."""
    blocks: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        block, _, kernel = name.removeprefix(prefix).rpartition("/")
        blocks.setdefault(block or "other layers", {})[kernel.removesuffix("_kernel")] = curve
    values = np.concatenate([[], *(curve.values for curve in curves.values())])
    limits = (values.min(), values.max()) if len(values) else None
    order = sorted(blocks, key=lambda name: (not name.startswith("block"), name == "other layers", _natural(name)))
    return [_panel(block.replace("_", " "), blocks[block], log=True, limits=limits) for block in order]


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a sorting key with which block_2 comes before block_10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _panel(
    title: str,
    curves: Mapping[str, Curve],
    *,
    log: bool = False,
    zero_line: bool = False,
    limits: tuple[float, float] | None = None,
) -> CurvePanel:
    """Returns curves on one axis.

    Args:
        title: what the curves show; the same title and names give the same SVG.
        curves: by name, each of at least one point.
        log: use a logarithmic axis, if all values are positive and span a factor of five.
        zero_line: draw a line at zero.
        limits: smallest and largest value of the axis. Defaults to those of the curves.
    """
    values = np.concatenate([curve.values for curve in curves.values()])
    low, high = limits or (float(values.min()), float(values.max()))
    noisy = not zero_line and not limits  # gamma and singular values change slowly
    salt = f"{title} {list(curves)}".encode(errors="backslashreplace").decode()  # a name can have half a surrogate pair
    with matplotlib.style.context({**_STYLE, "svg.hashsalt": salt}, after_reset=True):
        figure = Figure(figsize=(3.5, 1.9))
        axes = figure.add_axes((0.12, 0.13, 0.86, 0.83))
        if zero_line:
            axes.axhline(0, color=_INK, linewidth=0.6)
        for number, curve in enumerate(curves.values()):
            _draw_curve(axes, curve, number, noisy=noisy)
        _set_scale(axes, low, high, log=log and low > _TINY and high > 5 * low)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True)
    legend = [
        (number % len(_COLOURS), metric_label(name) or "last", format_value(curve.values[-1]))
        for number, (name, curve) in enumerate(curves.items())
    ]
    return CurvePanel(title, _inline_svg(svg.getvalue()), legend)


def _draw_curve(axes: Axes, curve: Curve, number: int, *, noisy: bool) -> None:
    """Draws a curve in the colour of its number, and its running mean if it is long and noisy."""
    colour, dash = _COLOURS[number % len(_COLOURS)], "-" if number < len(_COLOURS) else "--"
    smoothed = noisy and len(curve.steps) > SMOOTH_ABOVE
    marker = "." if len(curve.steps) == 1 else ""
    axes.plot(*downsample(curve), dash, color=colour, alpha=0.3 if smoothed else 1, marker=marker)
    if smoothed:
        axes.plot(*downsample(smooth(curve)), dash, color=colour, zorder=3)


def _set_scale(axes: Axes, low: float, high: float, *, log: bool) -> None:
    """Sets limits and ticks: a margin of 6% around the values, and at most about six round numbers on each axis."""
    if log:
        axes.set_yscale("log")
        margin = 0.06 * math.log(high / low)
        bottom, top = low / math.exp(margin), high * math.exp(margin)
        axes.yaxis.set_major_locator(FixedLocator(_log_ticks(bottom, top)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.06 * max(high - low or abs(high) or 1.0, _TINY)
        bottom, top = low - margin, high + margin
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_TICK_STEPS))
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, 6)))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_TICK_STEPS, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="x")


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers between two positive numbers; with more decades, fewer in each decade.

    Examples:
        >>> _log_ticks(0.9, 30.0)
        [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    decades = math.log10(high / low)
    multiples = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)
    stride = 1 + int(decades // 6)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, stride)
    return [m * 10.0**power for power in powers for m in multiples if low <= m * 10.0**power <= high]


def _inline_svg(svg: str) -> Markup:
    """Returns an SVG file as an HTML element: without header, element ids and size, and with the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = re.sub(r' id="(?![pm][0-9a-f]{8,}")[^"]*"', "", svg).replace("xlink:href", "href")
    for placeholder, colour in _PAGE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    return Markup(re.sub(r"\n\s*", "\n", svg))
