"""Measures how much agreement two blobs lose if a generator's attention map is replaced, for runs on `pairs`.

    python experiments/benchmarks/knock_out.py runs/long_range_v1/{release,article,multi-head}*/

G draws the same latents again with replaced attention maps. The replacements are equal weights; the map of another
image; and the learned map in which a blob gives no weight to the other blob. See
`sagan_jax/evaluation/replaced_attention.py`. Only images that hold two clear blobs with the learned map are counted.
Each layer is replaced separately. If there are several, all of them are also replaced together.

Runs whose folders are named ROW-SEED form one row: means over seeds, with 95% bootstrap intervals. "Lost" is the
value with the learned map minus that with the other map, in the same run. "Beyond chance" is the share that follows the
rule minus the share that would if the same blobs were paired at random. Older results do not have it. Agreement in hue
is a share of the images that still hold two clear blobs, and is not corrected for chance. Runs that collapsed, by their
row.json, are left out. So are runs without two images with clear blobs in one batch. Runs whose generator has no map
to replace have no line.

Results are cached in ROW-SEED/knock_out.json. A folder with that file and the run's row.json is enough.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from agreement_by_distance import finished_runs, require_images, require_pairs, row_of
from kept_results import kept

from sagan_jax.cli.main import explained
from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.replaced_attention import KnockOut, Replacement, knock_out, replaceable_layers
from sagan_jax.runs.load import open_run

sys.path.append(str(Path(__file__).parents[1]))
from comparisons.tables import estimate, known, with_head

HEAD = ("row", "layers", "map", "two clear blobs", "follow the rule", "beyond chance", "lost beyond chance", "same hue")
HEAD += ("by chance", "lost in hue", "seeds")
Layers = tuple[str, ...]


def knocked_out(trained: TrainedGenerator, rule: Pairs, count: int) -> Iterator[tuple[Layers, KnockOut]]:
    """Yields the results for a generator, with each layer replaced separately and then with all layers replaced."""
    layers = replaceable_layers(trained)
    for chosen in [*((layer,) for layer in layers), *([layers] if len(layers) > 1 else [])]:
        yield chosen, knock_out(trained, rule, chosen, count=count)


def measure(workdir: Path, rule: Pairs, count: int) -> list[Any]:
    """Returns the results of `knocked_out` for a run, as a JSON value."""
    return [
        [list(layers), found.images, found.scores]
        for layers, found in knocked_out(open_run(workdir).generator(), rule, count)
    ]


def layers_text(layers: Layers) -> str:
    """Returns the sizes of some layers.

    >>> layers_text(("attention_8", "attention_16"))
    '8 and 16'
    """
    return " and ".join(layer.rpartition("_")[-1] for layer in layers)


def cells(runs: list[KnockOut], replacement: Replacement) -> list[str]:
    """Returns the cells of a line, starting with the column of the map.

    Args:
        runs: the results of the seeds of a row, with the same layers replaced.
        replacement: the map in place of the learned one.
    """
    counted = [run.scores for run in runs if run.images]
    pairs = [(scores["learned"], scores[replacement]) for scores in counted]

    def column(name: str, of: str | None = None) -> str:  # a share of zero images is left out
        return estimate(known([None if of and not other[of] else other.get(name) for _, other in pairs]))

    def lost(name: str, of: str | None = None) -> str:
        if replacement == "learned":
            return ""
        measured = [(own, other) for own, other in pairs if name in own and name in other and (not of or other[of])]
        return estimate([own[name] - other[name] for own, other in measured], sign="+")

    return [
        replacement,
        column("parts"),
        column("follows_rule"),
        column("beyond_chance"),
        lost("beyond_chance"),
        column("hue", of="parts"),
        column("hue_chance", of="parts"),
        lost("hue", of="parts"),
        f"{len(counted)} of {len(runs)}",
    ]


def run(arguments: list[str]) -> None:
    """Prints a line for each row, choice of layers and map."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, help="workdirs of runs on pairs, named ROW-SEED")
    parser.add_argument("--images", type=int, default=1000, help="number of images to generate with each run")
    given = parser.parse_args(arguments)
    require_images(given.images)
    rules = {workdir: require_pairs(workdir) for workdir in finished_runs(given.workdirs)}
    rows: dict[tuple[str, Layers], list[KnockOut]] = {}
    for workdir, rule in rules.items():
        made = kept(workdir, "knock_out", given.images, lambda at=workdir, of=rule: measure(at, of, given.images))
        for layers, images, scores in made:
            rows.setdefault((row_of(workdir, given.workdirs), tuple(layers)), []).append(KnockOut(images, scores))
    lines = [
        [row, layers_text(layers), *cells(runs, replacement)]
        for (row, layers), runs in rows.items()
        for replacement in get_args(Replacement)
    ]
    print(with_head(HEAD, lines), end="")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "knock_out"))
