"""Draws a summary of the benchmark: training images, images generated without and with attention, and bars.

    python experiments/benchmarks/long_range_picture.py runs/long_range_v1 --out long_range.png
    python experiments/benchmarks/long_range_picture.py runs/long_range_v1 --attention "article at 16" --out article.png
    python experiments/benchmarks/long_range_picture.py runs/long_range_v1 --every-run --out runs.png

It reads the results of `run_table.py long_range_v1 --out runs/long_range_v1`. The images of a row are the first ones of
the run whose share beyond chance is the median of its row (the lower one of two), so they are not hand-picked. They are
stored in ROW-SEED/images.png: with that file a result of `experiments/results` is enough. A bar is the mean, with its
95% bootstrap interval. A line across a bar marks the share by chance. Medians and means are those of the runs that did
not collapse, if there are any, and the number of collapsed runs is given.

With `--every-run`, it draws the share beyond chance of every run of every row instead.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

import sagan_jax
from sagan_jax.cli.main import explained
from sagan_jax.config import Experiment, Table
from sagan_jax.data.synthetic import Pairs, parse_synthetic
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.rules import check_rule
from sagan_jax.runs.load import checkpoint_steps
from sagan_jax.runs.long_range import VERSION
from sagan_jax.runtime.image_files import save_png
from sagan_jax.views.figures import image_grid

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

sys.path.append(str(Path(__file__).parents[1]))
import run_table
from comparisons.intervals import bootstrap
from comparisons.outcomes import families, outcomes, tested_scores
from comparisons.tables import known, p_values

LINES, COLUMNS = 2, 10
LEARNED_MAPS = ("release", "article", "multi_head")
"""The layers with attention: those with a learned map."""
Found = dict[str, dict[int, dict[str, Any]]]


def median_seed(table: Table, found: Found, row: str) -> int:
    """Returns the seed with the median of a row's tested score, the lower one of two.

    Collapsed runs do not count, unless all runs of the row collapsed.

    Raises:
        InvalidInputError: no run of the row is finished.
    """
    if not found[row]:
        raise InvalidInputError(f"The picture needs a finished run of {row!r}: run `run_table.py {VERSION}` first.")
    shares = dict(zip(found[row], outcomes(table, found, row, tested_scores(table)[0]), strict=True))
    counted = {seed: share for seed, share in shares.items() if share is not None} or dict.fromkeys(shares, 0.0)
    return sorted(counted, key=counted.__getitem__)[(len(counted) - 1) // 2]


def first_images(workdir: Path, count: int = LINES * COLUMNS) -> np.ndarray:
    """Returns the first generated images `[count, R, R, 3]` uint8 of a run.

    They are read from WORKDIR/images.png, unless the run has a newer checkpoint.
    """
    path, steps = workdir / "images.png", checkpoint_steps(workdir)
    saved = (workdir / "checkpoints" / str(steps[-1])).stat().st_mtime if steps else -math.inf
    if not path.is_file() or path.stat().st_mtime < saved:
        images = sagan_jax.load_run(workdir).generate(count).images
        save_png(path, image_grid(images, count, padding=0))
    with Image.open(path) as picture:
        strip = np.asarray(picture.convert("RGB"))
    return np.stack(np.split(strip, count, axis=1))


def show_images(axes: Axes, images: np.ndarray, rule: Pairs, title: str) -> None:
    """Draws images in two lines, and underlines each image that follows the rule."""
    step = images.shape[1] + 6
    axes.imshow(image_grid(images, COLUMNS, padding=6), interpolation="nearest")
    for number in np.flatnonzero(check_rule(images, rule).follows_rule):
        left, bottom = number % COLUMNS * step, (number // COLUMNS + 1) * step - 3
        axes.plot([left, left + step - 7], [bottom, bottom], color="tab:green", linewidth=3, clip_on=False)
    axes.set_title(title, fontsize=12, loc="left")
    axes.axis("off")


def show_bars(axes: Axes, table: Table, found: Found, rows: Sequence[str]) -> None:
    """Draws a bar for each of the three rows of images, and states p of the table's test of the last two."""
    score = next(iter(table.scores))
    shares = [outcomes(table, found, row, score) for row in rows]
    counts = [known(values) for values in shares]
    means = [100.0, *(100 * float(np.mean(values)) if values else 0.0 for values in counts)]
    axes.barh(range(3), means, color=["lightgrey", "tab:blue", "tab:orange"], height=0.5)
    for place, (values, all_runs) in enumerate(zip(counts, shares, strict=True), start=1):
        bounds = bootstrap(values) if values else None
        if bounds:
            mean = means[place]
            lengths = [[mean - 100 * bounds[0]], [100 * bounds[1] - mean]]
            axes.errorbar([mean], [place], xerr=lengths, color="black", capsize=4)
        lost = len(all_runs) - len(values)
        label = f"{means[place]:.0f}%, {len(values)} run{'s' * (len(values) != 1)}"
        label += f", {lost} collapsed" if lost else ""
        axes.text((100 * bounds[1] if bounds else means[place]) + 2, place, label, va="center", fontsize=10)
        chance = known(outcomes(table, found, rows[place - 1], f"{score}/chance"))
        if chance:
            axes.plot([100 * float(np.mean(chance))] * 2, [place - 0.3, place + 0.3], color="black", linestyle=":")
    note = "dotted: by chance" + p_of_rows(table, found, rows)
    axes.set_xlabel(f"images whose two squares have one colour, %\n{note}")
    axes.set(xlim=(0, 105), ylim=(2.6, -0.6))
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)


def p_of_rows(table: Table, found: Found, rows: Sequence[str]) -> str:
    """Returns p of the planned comparison of two rows, corrected by Holm over its family; "" if runs are missing."""
    for family in families(table):
        for (row, baseline, _), (_, corrected) in zip(family, p_values(table, found, family), strict=True):
            if {row, baseline} == set(rows) and corrected is not None:
                return f"; beyond chance: p = {corrected:.2g} (Holm)"
    return ""


def draw(table: Table, found: Found, out: Path, picture: Path, rows: Sequence[str]) -> None:
    """Writes the picture of training images and of the images of two rows, without and with attention."""
    first = table.rows[rows[0]]
    assert isinstance(first, Experiment)
    rule = parse_synthetic(first.data.source)
    assert isinstance(rule, Pairs)
    shown = [np.stack([rule.draw(number, 32) for number in range(LINES * COLUMNS)])]
    shown += [first_images(out / f"{row}-{median_seed(table, found, row)}") for row in rows]
    figure, panels = pyplot.subplots(3, 2, figsize=(11, 5.4), layout="constrained", width_ratios=(3, 2))
    titles = ("what it was shown", "drawn without attention", f"drawn with attention ({rows[1]})")
    for axes, images, title in zip(panels[:, 0], shown, titles, strict=True):
        show_images(axes, images, rule, title)
    grid = panels[0, 1].get_gridspec()
    for axes in panels[:, 1]:
        axes.remove()
    show_bars(figure.add_subplot(grid[:, 1]), table, found, rows)
    run_table.save(figure, picture, dpi=100)


def draw_every_run(table: Table, found: Found, picture: Path) -> None:
    """Writes the picture of all runs: the share beyond chance of each, and the mean and interval of each row."""
    score = tested_scores(table)[0]
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for place, row in enumerate(table.rows):
        shares = outcomes(table, found, row, score)
        values = [100 * share for share in known(shares)]
        axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.5, markeredgewidth=0)
        if values:
            axes.plot([float(np.mean(values))], [place], "|", color="black", markersize=18)
        bounds = bootstrap(values) if values else None
        if bounds:
            axes.plot(bounds, [place] * 2, color="black", linewidth=1)
        if lost := len(shares) - len(values):
            axes.text(
                1.0, place, f"{lost} of {len(shares)} collapsed", va="center", transform=axes.get_yaxis_transform()
            )
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(table.rows)), list(table.rows))
    axes.invert_yaxis()
    axes.set_xlabel("images that follow the rule, beyond chance, in points\ndot: a run; line: mean and 95% interval")
    axes.spines[["top", "right"]].set_visible(False)
    run_table.save(figure, picture, dpi=100)


def rows_with_attention(table: Table) -> list[str]:
    """Returns the rows whose networks have attention with a learned map."""
    rows = table.rows.items()
    return [name for name, row in rows if isinstance(row, Experiment) and row.networks.attention in LEARNED_MAPS]


def run(arguments: list[str]) -> None:
    """Draws a picture from the results in a folder."""
    table = run_table.load_table(VERSION)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="the folder that `run_table.py long_range_v1 --out` wrote")
    parser.add_argument("--out", type=Path, required=True, help="a .png file")
    parser.add_argument(
        "--attention", choices=rows_with_attention(table), default=table.strips[1], help="the row with attention"
    )
    parser.add_argument("--every-run", action="store_true", help="draw a dot for every run of every row instead")
    given = parser.parse_args(arguments)
    if given.out.suffix != ".png" or not given.out.parent.is_dir():
        raise InvalidInputError(f"--out needs a .png file in an existing folder; got {str(given.out)!r}.")
    found = run_table.results(table, given.results)
    if given.every_run:
        draw_every_run(table, found, given.out)
    else:
        draw(table, found, given.results, given.out, (table.strips[0], given.attention))
    print(given.out)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "long_range_picture"))
