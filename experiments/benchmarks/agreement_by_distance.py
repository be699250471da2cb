"""Do two blobs agree less the farther apart they are? Measured on images that the generators of runs on `pairs` draw.

    python experiments/benchmarks/agreement_by_distance.py runs/attention_buys/none-* runs/attention_buys/at\\ 16-*

Runs whose folders are named ROW-SEED form one row: mean and deviation over seeds. The value is Scott's pi of the two
blobs' hues, over the images with two clear blobs, by the distance between the blobs' centres in pixels of a 32x32
image. It is 1 if the hues always agree, and 0 if they agree as often as when the hues of the same blobs are shuffled.
So a generator gains nothing by drawing few hues. One that draws almost only one hue has no value and is left out; a
number in brackets then says how many seeds are left. `--out distances.png` draws the table.
"""

import argparse
import itertools
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
from scipy import ndimage

import sagan_jax
from sagan_jax.cli.main import explained
from sagan_jax.data.synthetic import Pairs, is_synthetic, parse_synthetic
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.rules import find_blobs
from sagan_jax.runs.load import require_experiment

matplotlib.use("Agg")
from matplotlib import pyplot

EDGES = (8, 12, 16, 20, 24, 36)
ONE_HUE = 0.9
"""If pairs agree this often by chance, there is hardly a second hue, and agreement has no meaning."""


def require_pairs(workdir: Path) -> Pairs:
    """Returns the set that a run was trained on.

    Raises:
        InvalidInputError: there is no run, or it was not trained on images of two blobs.
    """
    source = require_experiment(workdir).data.source
    rule = parse_synthetic(source) if is_synthetic(source) else None
    if not isinstance(rule, Pairs) or rule.blobs != 2:
        raise InvalidInputError(
            f"The run needs to be one on `pairs` with two blobs; {str(workdir)!r} is on {source!r}."
        )
    return rule


def require_images(count: int) -> None:
    """Raises InvalidInputError if the number of images is below 1."""
    if count < 1:
        raise InvalidInputError(f"--images needs at least 1; got {count}.")


def row_of(workdir: Path) -> str:
    """Returns the row of a table that a run belongs to.

    >>> row_of(Path("runs/attention_buys/at 16-0")), row_of(Path("runs/with-attention"))
    ('at 16', 'with-attention')
    """
    return re.sub(r"-\d+$", "", workdir.name)


def hues_and_distances(images: np.ndarray, rule: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hues `[N, 2]` and the distances `[N]` of the two blobs of each image that has two clear ones.

    Args:
        images: `[*, R, R, 3]` uint8.
        rule: the set that they should belong to.
    """
    pairs = [blobs for image in images if (blobs := find_blobs(image, rule))]
    hues = np.array([[blob.hue for blob in blobs] for blobs in pairs], int).reshape(-1, 2)
    places = np.array([[ndimage.center_of_mass(blob.region) for blob in blobs] for blobs in pairs]).reshape(-1, 2, 2)
    return hues, np.linalg.norm(places[:, 0] - places[:, 1], axis=-1) * 32 / images.shape[1]


def scott_pi(hues: np.ndarray) -> float:
    """Returns how much pairs `[N, 2]` agree beyond chance: 1 always, 0 by chance; nan if nearly all have one value.

    Source: Scott 1955. It is Cohen's kappa with one distribution for both, since neither blob is the first.

    >>> scott_pi(np.array([[0, 0], [1, 1]])), scott_pi(np.array([[0, 1], [1, 0]])), scott_pi(np.array([[0, 0], [0, 0]]))
    (1.0, -1.0, nan)
    """
    chance = ((np.bincount(hues.ravel()) / hues.size) ** 2).sum()
    return float(((hues[:, 0] == hues[:, 1]).mean() - chance) / (1 - chance)) if chance < ONE_HUE else np.nan


def by_distance(hues: np.ndarray, distances: np.ndarray) -> list[float]:
    """Returns the agreement of the pairs between each two of `EDGES`; nan for fewer than 20 pairs."""
    places = np.digitize(distances, EDGES)
    groups = [hues[places == place] for place in range(1, len(EDGES))]
    return [scott_pi(group) if len(group) >= 20 else np.nan for group in groups]


def draw(rows: dict[str, np.ndarray], path: Path) -> None:
    """Draws means and deviations over seeds, one line for each row."""
    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    names = [f"{low} to {high}" for low, high in itertools.pairwise(EDGES)]
    for row, values in rows.items():
        axes.errorbar(names, *mean_and_deviation(values), capsize=3, marker="o", label=row)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel="pixels between the two blobs", ylabel="agreement in hue\n(0: chance, 1: always)")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def mean_and_deviation(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and sample deviation of each column of `[runs, C]`, without nan; nan if too few values are left."""
    columns = [column[~np.isnan(column)] for column in values.T]
    means = [column.mean() if len(column) else np.nan for column in columns]
    return np.array(means), np.array([column.std(ddof=1) if len(column) > 1 else np.nan for column in columns])


def spread(mean: float, deviation: float) -> str:
    """Returns mean and deviation as text.

    >>> spread(2, 1), spread(0.5, np.nan), spread(np.nan, np.nan)
    ('2.00 ± 1.00', '0.50', '–')
    """
    if np.isnan(mean):
        return "–"
    return f"{mean:.2f}" if np.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def run(arguments: list[str]) -> None:
    """Prints a table of agreement by distance, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, help="of runs on pairs, called ROW-SEED")
    parser.add_argument("--images", type=int, default=5000, help="to draw from each")
    parser.add_argument("--out", type=Path, help="a .png file")
    given = parser.parse_args(arguments)
    require_images(given.images)
    if given.out and (given.out.suffix != ".png" or not given.out.parent.is_dir()):
        raise InvalidInputError(f"--out needs a .png file in an existing folder; got {str(given.out)!r}.")
    rules = {workdir: require_pairs(workdir) for workdir in given.workdirs}
    runs: dict[str, list[list[float]]] = {}
    for workdir, rule in rules.items():
        images = sagan_jax.load_run(workdir).generate(given.images).images
        runs.setdefault(row_of(workdir), []).append(by_distance(*hues_and_distances(images, rule)))
    rows = {row: np.array(values) for row, values in runs.items()}
    print("| row | " + " | ".join(f"{low} to {high}" for low, high in itertools.pairwise(EDGES)) + " | seeds |")
    print("|---" * (len(EDGES) + 1) + "|")
    for row, values in rows.items():
        cells = [spread(*both) for both in zip(*mean_and_deviation(values), strict=True)]
        counts = (~np.isnan(values)).sum(axis=0)
        cells = [
            f"{cell} ({count})" if count < len(values) else cell for cell, count in zip(cells, counts, strict=True)
        ]
        print("| " + " | ".join([row, *cells, str(len(values))]) + " |")
    if given.out:
        draw(rows, given.out)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "agreement_by_distance"))
