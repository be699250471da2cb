"""Measures how much a blob attends to its partner: the share of its attention on the other blob, for runs on `pairs`.

    python experiments/benchmarks/partner_attention.py runs/attention_buys/at\\ 16-*/

G is measured on images that it generates, D on real images of a seed that it was not trained on. Images without clear
blobs are left out. Runs whose folders are named ROW-SEED form one row: mean and deviation over seeds. A line for each
row and layer gives the magnitude of gamma, whose sign is arbitrary; the share, averaged over blobs; and its ratio to
the share of uniform attention. Runs record the same values for 16 images while they train.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from agreement_by_distance import require_images, require_pairs, row_of

from sagan_jax.cli.main import explained
from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import AttentionRecord, discriminator_attention, generator_attention
from sagan_jax.evaluation.partners import partner_attention
from sagan_jax.runs.load import open_run

Layer = tuple[str, int]
"""Network and resolution."""


def attention_records(workdir: Path, rule: Pairs, count: int) -> Iterator[AttentionRecord]:
    """Yields the attention of G on `count` generated images, and of D on as many real images."""
    run = open_run(workdir)
    generator, discriminator = run.generator(), run.discriminator()
    labels = np.resize(generator.classes(), count).astype(np.int32)
    yield generator_attention(generator, generator.latents(jax.random.key(0), np.arange(count)), labels)
    if discriminator:
        unseen = dataclasses.replace(rule, seed=rule.seed + 1)
        images = np.stack([unseen.draw(index, discriminator.discriminator.resolution) for index in range(count)])
        yield discriminator_attention(discriminator, images, labels)


def layer_values(record: AttentionRecord, rule: Pairs) -> dict[Layer, tuple[float, float, float]]:
    """Returns for each layer the magnitude of gamma, the share, and its ratio to the share of uniform attention.

    The last two are NaN if no image has clear blobs.
    """
    found = partner_attention(record, rule)
    gammas = {(layer.network, layer.resolution): abs(layer.gamma or 0.0) for layer in record.layers}
    return {
        (network, resolution): (
            gamma,
            found.get(f"{network}/partner_share_{resolution}", np.nan),
            found.get(f"{network}/partner_lift_{resolution}", np.nan),
        )
        for (network, resolution), gamma in gammas.items()
    }


def mean_and_deviation(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and sample deviation of each column of `[runs, C]`, ignoring NaN; NaN if too few values remain."""
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
    """Prints a line for each row and layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, help="workdirs of runs on pairs, named ROW-SEED")
    parser.add_argument("--images", type=int, default=500, help="number of images for each network of each run")
    given = parser.parse_args(arguments)
    require_images(given.images)
    rules = {workdir: require_pairs(workdir) for workdir in given.workdirs}
    rows: dict[str, dict[Layer, list[tuple[float, float, float]]]] = {}
    for workdir, rule in rules.items():
        layers = rows.setdefault(row_of(workdir, given.workdirs), {})
        for record in attention_records(workdir, rule, given.images):
            for layer, values in layer_values(record, rule).items():
                layers.setdefault(layer, []).append(values)
    print("| row | layer | size of γ | share on the partner | times an even look | seeds |\n" + "|---" * 6 + "|")
    for row, layers in rows.items():
        for (network, resolution), values in layers.items():
            cells = [spread(*both) for both in zip(*mean_and_deviation(np.array(values)), strict=True)]
            counted = (~np.isnan(values)).all(axis=1).sum()
            name = f"{network[0].upper()} at {resolution}"
            print("| " + " | ".join([row, name, *cells, f"{counted} of {len(values)}"]) + " |")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "partner_attention"))
