"""Measures where a layer helps to complete mirrored textures: errors by the distance of a pixel from its mirror image.

    python experiments/benchmarks/mirror_by_distance.py runs/completion_mirror/*-[0-9]/

The runs are those of `experiments/tables/completion_mirror.py`. Half of each held-out image is hidden, and mirrors the
visible half. Runs whose folders are named ROW-SEED form one row: means over seeds, with 95% bootstrap intervals. The
first table is the PSNR by column of the hidden half, in groups of four, from the axis outwards. In column i, a pixel is
2i + 1 pixels away from its mirror image.

The second table splits what a row gains over the baseline: how much each group contributes to the reduction of the
squared error in the hidden half, in percent. The last line says which columns are in reach of the convolutions: the
images of a network without the layer depend on the mirror image of their pixels there, with constant latents.

Runs that diverged or are not finished are left out. Results are cached in ROW-SEED/by_distance.json. A folder with that
file and the run's row.json is enough.
"""

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from agreement_by_distance import experiment_of, finished_runs, row_of
from kept_results import kept

from sagan_jax.cli.main import explained
from sagan_jax.config import CompletionExperiment
from sagan_jax.data.masks import draw_masks
from sagan_jax.data.synthetic import Mirror, parse_synthetic
from sagan_jax.errors import InvalidInputError
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.runs.build import build_completion_task
from sagan_jax.runs.load import CompletionRun, open_completion_run

sys.path.append(str(Path(__file__).parents[1]))
from comparisons.tables import estimate, with_head

GROUP = 4
"""Columns in a group."""
HOLES = "half_right"
"""The kind of hole that the runs are trained and scored with."""


def require_mirror(workdir: Path) -> CompletionExperiment:
    """Returns the experiment of a run that completes mirrored textures.

    Raises:
        InvalidInputError: there is no run, or it was trained for something else.
    """
    found = experiment_of(workdir)
    if not isinstance(found, CompletionExperiment) or not found.data.source.startswith("mirror"):
        raise InvalidInputError(f"{str(workdir)!r} needs to be a run that completes images of `mirror`.")
    if found.training.holes != HOLES:
        raise InvalidInputError(f"{str(workdir)!r} needs to be trained with {HOLES}; got {found.training.holes!r}.")
    return found


def squared_errors(run: CompletionRun) -> list[float]:
    """Returns the mean squared error of each column of the hidden half, `[R / 2]`, of pixels in [0, 1].

    The first column is the one next to the axis. Completions are those with latents at their means.

    Args:
        run: a trained run.
    """
    photographs = run.images(held_out=True)
    images = np.stack([photographs[index][0] for index in range(len(photographs))])
    masks = draw_masks(HOLES, *images.shape[1:3], seed=0, indices=range(len(images)))
    completed = run.completer().complete(images, masks)
    errors = ((completed.astype(float) - images) / 255) ** 2
    return errors.mean(axis=(0, 1, 3))[images.shape[2] // 2 :].tolist()


def held_out_images(experiment: CompletionExperiment) -> int:
    """Returns the number of images that a run is measured on."""
    rule = parse_synthetic(experiment.data.held_out)
    assert isinstance(rule, Mirror)
    return rule.images


def columns_in_reach(network: CompletionNetwork) -> list[bool]:
    """Returns for each column of the hidden half whether its pixels depend on their mirror images, `[R / 2]`.

    Layers at `attention_resolutions` are removed, and the latents, which see the whole image, are constant. A NaN in
    one visible column goes where the convolutions carry it.

    Args:
        network: the network of a run.
    """
    size, half = network.resolution, network.resolution // 2
    plain = network.clone(attention_resolutions=())
    images = jnp.zeros((half, size, size, network.image_channels))
    masks = jnp.zeros(images.shape[:3], bool).at[:, :, half:].set(True)
    params: Any = plain.init(jax.random.key(0), images[:1], masks[:1])
    columns = jnp.arange(half)
    images = images.at[columns, :, half - 1 - columns].set(jnp.nan)  # image i has NaN at the mirror image of column i
    encoded: Any = plain.apply(params, images, masks, method="encode")
    drawn: Any = plain.apply(params, jnp.zeros((half, network.latent_size)), encoded.features, method="decode")
    return [bool(found) for found in np.isnan(drawn)[np.arange(half), :, half + np.arange(half)].any(axis=(1, 2))]


def grouped(errors: np.ndarray) -> np.ndarray:
    """Returns the mean of each group of four columns, `[..., R / 2]` to `[..., R / 8]`.

    >>> grouped(np.arange(8.0)).tolist()
    [1.5, 5.5]
    """
    return errors.reshape(*errors.shape[:-1], -1, GROUP).mean(axis=-1)


def psnr_table(rows: Mapping[str, np.ndarray]) -> str:
    """Returns the PSNR of each group of columns, in dB, as a table.

    Args:
        rows: for each row the squared errors, `[runs, R / 2]`.
    """
    lines = [
        [row, *(estimate(column.tolist()) for column in (-10 * np.log10(grouped(errors))).T), str(len(errors))]
        for row, errors in rows.items()
    ]
    return with_head(["row, PSNR in dB", *names_of(rows), "seeds"], lines)


def names_of(rows: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the headings of the groups of columns."""
    half = next(iter(rows.values())).shape[1]
    return [f"{first} to {last - 1}" for first, last in itertools.pairwise(range(0, half + 1, GROUP))]


def gain_table(rows: Mapping[str, np.ndarray], baseline: str, reach: Sequence[bool]) -> str:
    """Returns how much each group contributes to the reduction of the baseline's squared error, as a table.

    Args:
        rows: for each row the squared errors, `[runs, R / 2]`.
        baseline: the row that others are compared with.
        reach: as `columns_in_reach` returns it.
    """
    lines = []
    for row, errors in rows.items():
        if row == baseline:
            continue
        gains = rows[baseline].mean(axis=0) - errors.mean(axis=0)
        parts = grouped(gains) / grouped(gains).sum()
        beyond = gains[~np.array(reach)].sum() / gains.sum()
        total = gains.sum() / rows[baseline].mean(axis=0).sum()
        lines.append([row, f"{total:.0%}", *(f"{part:.0%}" for part in parts), f"{beyond:.0%}"])
    head = ["row", f"less error than {baseline}", *(f"of it in {name}" for name in names_of(rows)), "out of reach"]
    return with_head(head, lines)


def run(arguments: list[str]) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, help="workdirs of runs on mirror, named ROW-SEED")
    parser.add_argument("--baseline", default="residual", help="the row that others are compared with")
    given = parser.parse_args(arguments)
    experiments = {workdir: require_mirror(workdir) for workdir in finished_runs(given.workdirs)}
    rows: dict[str, list[list[float]]] = {}
    for workdir, experiment in experiments.items():
        images = held_out_images(experiment)
        errors = kept(workdir, "by_distance", images, lambda at=workdir: squared_errors(open_completion_run(at)))
        rows.setdefault(row_of(workdir, given.workdirs), []).append(errors)
    if given.baseline not in rows:
        raise InvalidInputError(f"--baseline needs to be one of {', '.join(rows)}; got {given.baseline!r}.")
    measured = {row: np.array(errors) for row, errors in rows.items()}
    reach = columns_in_reach(build_completion_task(next(iter(experiments.values()))).network)
    print(psnr_table(measured))
    print(gain_table(measured, given.baseline, reach))
    print(f"The convolutions reach the mirror images of the first {sum(reach)} of {len(reach)} columns.")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "mirror_by_distance"))
