"""Measures whether two blobs agree less when they are farther apart, on generated images of runs on `pairs`.

    python experiments/benchmarks/agreement_by_distance.py runs/attention_buys/none-*/ runs/attention_buys/at\\ 16-*/

Runs whose folders are named ROW-SEED form one row: means over seeds, with 95% bootstrap intervals. The value is
Scott's pi of the two blobs' hues, over the images with two clear blobs, by the distance between the blobs' centres in
pixels of a 32x32 image. It is 1 if the hues always agree, and 0 if they agree as often as shuffled hues of the same
blobs. So a generator gains nothing by drawing few hues. A generator that draws almost only one hue has no value, and
is left out of the mean. A number in brackets then gives the remaining seeds. The distances are those that occur in real
images.

Below, it prints the receptive fields of each row's networks. For G it is the number of image columns that one of its
four coarsest columns reaches. For D it is the number of columns that the middle of each feature map sees.
`--out distances.png` draws both.

Runs that collapsed, by their row.json, are left out. Results are cached in ROW-SEED/by_distance.json. A folder with
that file and the run's row.json is enough.
"""

import argparse
import itertools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from kept_results import kept
from scipy import ndimage

import sagan_jax
from sagan_jax.cli.main import explained
from sagan_jax.config import AnyExperiment, Experiment, from_dict
from sagan_jax.data.synthetic import Pairs, is_synthetic, parse_synthetic
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.rules import find_blobs
from sagan_jax.models.receptive_fields import discriminator_fields, generator_reach
from sagan_jax.runs.families import build_networks
from sagan_jax.runs.load import checkpoint_steps
from sagan_jax.runs.long_range import LEAST_PARTS, PARTS
from sagan_jax.runs.saved_config import read_experiment
from sagan_jax.runtime.files import read_json

matplotlib.use("Agg")
from matplotlib import pyplot

sys.path.append(str(Path(__file__).parents[1]))
from comparisons.intervals import bootstrap
from comparisons.tables import estimate, with_head

STEP, STEPS = 4, 4
"""Width of a bin in pixels, and largest number of bins; the last bin ends at the greatest distance."""
LEAST_PAIRS = 20
"""Least number of pairs in a bin; a bin with fewer has no value."""
ONE_HUE = 0.9
"""If pairs agree this often by chance, there is hardly a second hue, and agreement has no meaning."""


def experiment_of(workdir: Path) -> AnyExperiment:
    """Returns the experiment of a run, from the run itself or from its result in a table, row.json.

    Raises:
        InvalidInputError: neither exists.
    """
    found = read_experiment(workdir, offer_trust=False)
    if found is None and (workdir / "row.json").is_file():
        found = from_dict(read_json(workdir / "row.json")["experiment"])
    if found is None:
        raise InvalidInputError(f"There is no run in {str(workdir)!r}: it has no config.json. Is the path right?")
    return found


def require_pairs(workdir: Path) -> Pairs:
    """Returns the synthetic data set that a run was trained on.

    Raises:
        InvalidInputError: there is no run, or it was not trained on images of two blobs.
    """
    experiment = experiment_of(workdir)
    source = experiment.data.source
    rule = parse_synthetic(source) if is_synthetic(source) else None
    if not isinstance(experiment, Experiment) or not isinstance(rule, Pairs) or rule.blobs != 2:
        raise InvalidInputError(
            f"The run needs to be one on `pairs` with two blobs; {str(workdir)!r} is on {source!r}."
        )
    return rule


def finished_runs(workdirs: Sequence[Path]) -> list[Path]:
    """Returns the runs that are finished and did not collapse or diverge, and prints the others on stderr.

    Whether a run collapsed is read from its row.json. A run without row.json, which no table made, did not.

    Raises:
        InvalidInputError: no run remains.
    """
    remaining = []
    for workdir in workdirs:
        path = workdir / "row.json"
        result = read_json(path) if path.is_file() else {}
        if "diverged_at" in result or _collapsed(result.get("curves", {})):
            print(f"left out: {workdir} collapsed", file=sys.stderr)
            continue
        steps = checkpoint_steps(workdir)
        is_stopped = not steps and not result and (workdir / "config.json").is_file()
        if is_stopped or (steps and steps[-1] != steps_of(workdir, result)):
            print(f"left out: {workdir} is not finished, or was trained further", file=sys.stderr)
            continue
        remaining.append(workdir)
    if not remaining:
        raise InvalidInputError("None of these runs is finished and did not collapse: name one that is.")
    return remaining


def steps_of(workdir: Path, result: Mapping[str, Any]) -> int:
    """Returns the number of steps of a run: of its result in a table, if it has one."""
    experiment = from_dict(result["experiment"]) if "experiment" in result else experiment_of(workdir)
    return experiment.training.total_steps


def _collapsed(curves: Mapping[str, Sequence[Sequence[float]]]) -> bool:
    """Returns whether the kept curves of a run show that it collapsed, by the limits of the tables of `pairs`."""
    limits = {PARTS: LEAST_PARTS, "score/rule1k": 0.01}
    curve = next((name for name in limits if curves.get(name)), None)
    return curve is not None and curves[curve][-1][1] < limits[curve]


def require_images(count: int) -> None:
    """Raises InvalidInputError if the number of images is below 1."""
    if count < 1:
        raise InvalidInputError(f"--images needs at least 1; got {count}.")


def row_of(workdir: Path, workdirs: Sequence[Path] = ()) -> str:
    """Returns the row of a table that a run belongs to. If `workdirs` are of several tables, the table comes first.

    >>> row_of(Path("runs/attention_buys/at 16-0")), row_of(Path("runs/with-attention"))
    ('at 16', 'with-attention')
    >>> row_of(Path("runs/a/none-0"), [Path("runs/a/none-0"), Path("runs/b/none-0")])
    'a/none'
    """
    row = re.sub(r"-\d+$", "", workdir.name)
    return f"{workdir.parent.name}/{row}" if len({other.parent for other in workdirs}) > 1 else row


def hues_and_distances(images: np.ndarray, rule: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hues `[N, 2]` and the distances `[N]` of the two blobs of each image that has two clear ones.

    Args:
        images: `[*, R, R, 3]` uint8.
        rule: the data set that the images should follow.
    """
    pairs = [blobs for image in images if (blobs := find_blobs(image, rule))]
    hues = np.array([[blob.hue for blob in blobs] for blobs in pairs], int).reshape(-1, 2)
    places = np.array([[ndimage.center_of_mass(blob.region) for blob in blobs] for blobs in pairs]).reshape(-1, 2, 2)
    return hues, np.linalg.norm(places[:, 0] - places[:, 1], axis=-1) * 32 / images.shape[1]


def scott_pi(hues: np.ndarray) -> float:
    """Returns how much pairs `[N, 2]` agree beyond chance: 1 always, 0 by chance; NaN if nearly all have one value.

    Source: Scott 1955. It is Cohen's kappa with one distribution for both, because the blobs of a pair have no order.

    >>> scott_pi(np.array([[0, 0], [1, 1]])), scott_pi(np.array([[0, 1], [1, 0]])), scott_pi(np.array([[0, 0], [0, 0]]))
    (1.0, -1.0, nan)
    """
    chance = ((np.bincount(hues.ravel()) / hues.size) ** 2).sum()
    return float(((hues[:, 0] == hues[:, 1]).mean() - chance) / (1 - chance)) if chance < ONE_HUE else np.nan


def edges_of(rule: Pairs) -> tuple[int, ...]:
    """Returns the edges of the distance bins. The first and the last enclose all distances in real images.

    >>> edges_of(Pairs(distance=12, size=8)), edges_of(Pairs(distance=25, size=8))
    ((12, 16, 20, 24, 34), (25, 29, 34))
    """
    greatest = math.ceil((32 - rule.size) * math.sqrt(2))
    inner = range(rule.distance, greatest - STEP, STEP)
    return (*(inner or (rule.distance,))[:STEPS], greatest)


def measure(workdir: Path, rule: Pairs, count: int) -> list[float | None]:
    """Returns the agreement in each bin of `edges_of`, for generated images of a run; None if it has no value.

    Args:
        workdir: the workdir of the run.
        rule: the data set that it was trained on.
        count: number of images.
    """
    images = sagan_jax.load_run(workdir).generate(count).images
    values = by_distance(*hues_and_distances(images, rule), edges_of(rule))
    return [None if math.isnan(value) else value for value in values]


def by_distance(hues: np.ndarray, distances: np.ndarray, edges: Sequence[int]) -> list[float]:
    """Returns the agreement of the pairs in each bin; NaN for fewer than 20 pairs."""
    places = np.digitize(distances, edges)
    groups = [hues[places == place] for place in range(1, len(edges))]
    return [scott_pi(group) if len(group) >= LEAST_PAIRS else np.nan for group in groups]


def fields_of(experiment: Experiment) -> tuple[float, dict[str, float]]:
    """Returns the receptive fields of a run's networks, in pixels of a 32x32 image.

    Returns:
        The number of columns that one of G's coarsest columns reaches. For each of D's feature maps, the number of
        columns that its middle column sees.
    """
    generator, discriminator = build_networks(experiment.networks)
    scale = 32 / experiment.networks.resolution
    seen = discriminator_fields(discriminator, experiment.networks.resolution)
    reach = generator_reach(generator, experiment.networks.latent_size)
    return scale * reach, {name: scale * columns for name, columns in seen.items()}


def known(values: np.ndarray) -> list[float]:
    """Returns the values that are not NaN."""
    return values[~np.isnan(values)].tolist()


_MARKERS = "osD^v<>PX*hd"


def draw(
    rows: dict[str, np.ndarray], fields: dict[str, tuple[float, dict[str, float]]], edges: Sequence[int], path: Path
) -> None:
    """Draws means over seeds with their intervals, one line for each row, and below the receptive fields.

    The names of the rows below have the colours and markers of the lines above, so there is no legend.
    """
    figure, (axes, below) = pyplot.subplots(
        2, figsize=(7, 3.5 + 0.4 * len(rows)), layout="constrained", sharex=True, height_ratios=(3, 0.5 * len(rows))
    )
    colours = pyplot.get_cmap("tab10" if len(rows) <= 10 else "tab20").colors  # pyrefly: ignore[missing-attribute]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    for number, (row, values) in enumerate(rows.items()):
        columns = [known(column) for column in values.T]
        means = [np.mean(column) if column else np.nan for column in columns]
        bounds = [
            bootstrap(column) or (mean, mean) if column else (np.nan,) * 2
            for column, mean in zip(columns, means, strict=True)
        ]
        lengths = abs(np.array(bounds).T - means)
        shift = 0.2 * (number - (len(rows) - 1) / 2)  # so that intervals do not hide each other
        colour, marker = colours[number % len(colours)], _MARKERS[number % len(_MARKERS)]
        axes.errorbar(np.array(middles) + shift, means, lengths, capsize=3, marker=marker, color=colour)
        reach, seen = fields.get(row, (0, {}))
        for place, name, widths in ((-0.15, "G", [reach]), (0.15, "D", [*seen.values()])):
            below.plot([0, *widths], [number + place] * (len(widths) + 1), color=colour, marker="|", markersize=9)
            below.annotate(
                name, (max(widths, default=0) + 0.5, number + place), fontsize=7, va="center", annotation_clip=False
            )
        below.plot(-0.7, number, color=colour, marker=marker, clip_on=False)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(ylabel="agreement in hue\n(0: chance, 1: always)")
    below.set(xlabel="pixels between the two blobs, and pixels that the networks see", xlim=(0, 36))
    below.set_yticks(range(len(rows)), list(rows))
    below.tick_params("y", length=0, pad=12)
    below.invert_yaxis()
    below.set_xticks([0, *edges])
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run(arguments: list[str]) -> None:
    """Prints a table of agreement by distance, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, help="workdirs of runs on pairs, named ROW-SEED")
    parser.add_argument("--images", type=int, default=5000, help="number of images to generate with each run")
    parser.add_argument("--out", type=Path, help="a .png file")
    given = parser.parse_args(arguments)
    require_images(given.images)
    if given.out and (given.out.suffix != ".png" or not given.out.parent.is_dir()):
        raise InvalidInputError(f"--out needs a .png file in an existing folder; got {str(given.out)!r}.")
    rules = {workdir: require_pairs(workdir) for workdir in finished_runs(given.workdirs)}
    edges = one_of(rules)
    runs: dict[str, list[list[float]]] = {}
    fields: dict[str, tuple[float, dict[str, float]]] = {}
    for workdir, rule in rules.items():
        row = row_of(workdir, given.workdirs)
        found = kept(workdir, "by_distance", given.images, lambda at=workdir, of=rule: measure(at, of, given.images))
        runs.setdefault(row, []).append([math.nan if value is None else value for value in found])
        experiment = experiment_of(workdir)
        assert isinstance(experiment, Experiment)
        if row not in fields and not experiment.networks.modules:
            fields[row] = fields_of(experiment)
    rows = {row: np.array(values) for row, values in runs.items()}
    print(agreement_table(rows, edges))
    print(fields_table(fields), end="")
    if given.out:
        draw(rows, fields, edges, given.out)


def one_of(rules: dict[Path, Pairs]) -> tuple[int, ...]:
    """Returns the edges of the bins.

    Raises:
        InvalidInputError: the blobs of two runs differ in size or distance.
    """
    first, *others = rules
    for other in others:
        if edges_of(rules[other]) != edges_of(rules[first]):
            raise InvalidInputError(
                f"The runs need blobs of one size and distance; {str(first)!r} and {str(other)!r} differ."
            )
    return edges_of(rules[first])


def agreement_table(rows: dict[str, np.ndarray], edges: Sequence[int]) -> str:
    """Returns the means over seeds, with intervals, and in brackets the number of seeds if some have no value."""
    lines = []
    for row, values in rows.items():
        columns = [known(column) for column in values.T]
        counts = ["" if len(column) == len(values) else f" ({len(column)})" for column in columns]
        cells = [f"{estimate(column)}{count}" for column, count in zip(columns, counts, strict=True)]
        lines.append([row, *cells, str(len(values))])
    return with_head(["row", *(f"{low} to {high}" for low, high in itertools.pairwise(edges)), "seeds"], lines)


def fields_table(fields: dict[str, tuple[float, dict[str, float]]]) -> str:
    """Returns the receptive fields of each row's networks, as a table."""
    lines = [
        [row, f"{reach:g}", ", ".join(f"{name} {width:g}" for name, width in seen.items())]
        for row, (reach, seen) in fields.items()
    ]
    return with_head(["row", "G reaches", "D sees, in pixels"], lines)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "agreement_by_distance"))
