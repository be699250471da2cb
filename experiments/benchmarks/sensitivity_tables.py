"""Tables and curves of the results of `score_sensitivity.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from damages import DAMAGES, MISSING, MIXED
from measuring import figures, markdown

matplotlib.use("Agg")
from matplotlib import pyplot

LOWER_IS_BETTER = ("fd", "kd")
STRENGTHS = {name: damage.strengths for name, damage in DAMAGES.items()} | {"mixed": MIXED, "missing": MISSING}
"""The strengths of each kind of damage, from mild to strong."""
_DRAWN = (
    ("random", "fd"),
    ("lite0", "fd"),
    ("lite0", "precision"),
    ("lite0", "recall"),
    ("lite0", "accuracy"),
    ("classifier", "accuracy"),
)

Cells = Mapping[str, Mapping[str, float]]


def verdict(values: Sequence[float], deviation: float, lower_is_better: bool) -> str:
    """Returns whether a score worsens with strength.

    Args:
        values: the floor, then the score at each strength.
        deviation: the deviation of the floor between draws of real images.
        lower_is_better: whether better images score lower.

    Returns:
        `no` if a step improves the score by more than twice the deviation. Otherwise `yes` if the strongest damage
        worsens it by more than twice the deviation, else `blind`.

    >>> verdict([1, 2, 1.9, 5], 0.1, True), verdict([1, 2, 1.7, 5], 0.1, True), verdict([1, 0.9, 1.05], 0.1, False)
    ('yes', 'no', 'blind')
    """
    worse = np.diff(values) * (1 if lower_is_better else -1)
    if worse.min() < -2 * deviation:
        return "no"
    return "yes" if worse.sum() > 2 * deviation else "blind"


def floor_of(cells: Cells, place: str, score: str) -> tuple[float, float]:
    """Returns the mean and the deviation of a score over draws of real images; `place` is SET/NETWORK."""
    drawn = [values[score] for cell, values in cells.items() if cell.startswith(f"{place}/floor/")]
    return float(np.mean(drawn)), float(np.std(drawn, ddof=1))


def series(cells: Cells, place: str, damage: str, score: str) -> list[float]:
    """Returns the score of the undamaged images, then the score at each strength; [] if a value was not measured.

    Mixing and damage change the images of the first draw.
    """
    names = [f"{place}/floor/0", *(f"{place}/{damage}/{strength}" for strength in STRENGTHS[damage])]
    return [cells[name][score] for name in names] if all(name in cells for name in names) else []


def sets_of(cells: Cells) -> list[str]:
    """Returns the names of the sets that were measured."""
    return list(dict.fromkeys(cell.split("/")[0] for cell in cells))


def scores_of(cells: Cells, network: str) -> list[str]:
    """Returns the names of the scores that were measured in a network."""
    return list(
        dict.fromkeys(name for cell, values in cells.items() if cell.split("/")[1] == network for name in values)
    )


def verdicts(cells: Cells, network: str, score: str, damage: str) -> dict[str, str]:
    """Returns the verdict of each set on which a score was measured."""
    found = {}
    for name in sets_of(cells):
        place = f"{name}/{network}"
        if score in cells.get(f"{place}/floor/0", {}) and (values := series(cells, place, damage, score)):
            found[name] = verdict(values, floor_of(cells, place, score)[1], score in LOWER_IS_BETTER)
    return found


def in_words(found: Mapping[str, str]) -> str:
    """Returns verdicts in a few words.

    >>> in_words({"a": "yes", "b": "yes"}), in_words({"a": "yes", "b": "no", "c": "blind"}), in_words({})
    ('yes', 'no: b; blind: c', '')
    """
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    words = []
    for word in ("no", "blind"):
        names = [name for name, said in found.items() if said == word]
        words += [f"{word}: {', '.join(names)}"] if names else []
    return "; ".join(words)


def tables(results: Mapping[str, Any]) -> str:
    """Returns the tables as Markdown: which score is monotone, and the floors."""
    cells: Cells = results["cells"]
    networks = list(dict.fromkeys(cell.split("/")[1] for cell in cells))
    rows, floors = [], []
    for network in networks:
        for score in scores_of(cells, network):
            rows.append([network, score, *(in_words(verdicts(cells, network, score, name)) for name in STRENGTHS)])
            floors.append(
                [network, score, *(_floor_words(cells, f"{name}/{network}", score) for name in sets_of(cells))]
            )
    settings = results["settings"]
    return "\n\n".join(
        [
            f"Does a score worsen with the strength of the damage? {settings['images']:,} images of each strength, "
            f"{settings['reference']:,} of the reference. An empty place was not measured.",
            markdown(["features", "score", *STRENGTHS], rows),
            "The floor is real images against other real images: mean and deviation of four draws. After it stands "
            "the score of uniform noise.",
            markdown(["features", "score", *sets_of(cells)], floors),
        ]
    )


def _floor_words(cells: Cells, place: str, score: str) -> str:
    if score not in cells.get(f"{place}/floor/0", {}):
        return ""
    mean, deviation = floor_of(cells, place, score)
    return f"{figures(mean)} ± {figures(deviation, 2)}; {figures(cells[f'{place}/uniform'][score])}"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draws curves: a row for each of a few scores, a column for each set, a line for each damage."""
    cells: Cells = results["cells"]
    names = sets_of(cells)
    size = {"figsize": (3.2 * len(names), 1.9 * len(_DRAWN)), "layout": "constrained", "sharex": True}
    lowest = {}
    figure, grid = pyplot.subplots(len(_DRAWN), len(names), squeeze=False, **size)
    for row, (network, score) in zip(grid, _DRAWN, strict=True):
        for axes, name in zip(row, names, strict=True):
            place = f"{name}/{network}"
            if score not in cells.get(f"{place}/floor/0", {}):
                axes.axis("off")
                continue
            for number, damage in enumerate(STRENGTHS):
                if values := series(cells, place, damage, score):
                    axes.plot(values, marker=".", label=damage, color=f"C{number}")
            axes.axhline(cells[f"{place}/uniform"][score], color="grey", linewidth=0.7, linestyle=":")
            axes.set(title=f"{name}: {score} ({network})")
            axes.set_yscale("log" if score in LOWER_IS_BETTER else "linear")
            axes.title.set_fontsize(9)
            lowest[name] = axes
    for axes in lowest.values():  # the panel below may be empty
        axes.tick_params(labelbottom=True)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    figure.supxlabel("strength, from none to the strongest; dotted: uniform noise", fontsize=9)
    figure.savefig(path, dpi=75)
    pyplot.close(figure)
