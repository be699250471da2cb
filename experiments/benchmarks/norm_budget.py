"""Compares the bound on class gains for each `--conditional-gain` with the class gains of trained networks.

    python experiments/benchmarks/norm_budget.py --out norm_budget
    python experiments/benchmarks/norm_budget.py runs/digits_32 exported/generator.safetensors --out norm_budget

Nothing is trained. For K classes and C channels, the kernel of a normalised map has a root mean square of at most
1/sqrt(max(K, C)): see `sagan_jax/models/class_gains.py`. The first table has this bound, and the initial value of maps.

The second table is for trained networks: workdirs, or files with the arrays of `sagan-jax export` (norms folded, gains
as maps). For each norm it has the root mean square of the gains minus 1, and of the shifts, over all classes and
channels. "Between classes" is the same after subtracting the mean over classes. "Of the bound" is the first as a share
of the bound, if the form has one. "Moved" is the root mean square of the change since initialisation, which is unknown
for a file. OUT/norm_budget.json holds all numbers, OUT/norm_budget.md the tables, OUT/norm_budget.png the picture.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from flax.traverse_util import unflatten_dict

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.models.class_gains import (
    ClassGains,
    between_classes,
    class_gains,
    largest_movement,
    root_mean_square,
)
from sagan_jax.models.layers import Initializer, kernel_initializer
from sagan_jax.runs.build import image_shape, trained_generator
from sagan_jax.runs.load import open_run
from sagan_jax.runtime.files import write_atomically
from sagan_jax.training.adversarial import initial_state

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

sys.path.append(str(Path(__file__).parents[1]))
from comparisons.tables import with_head

CLASSES = (10, 12, 48, 144, 1000)
CHANNELS = (32, 64, 128, 256, 512, 1024)
"""Channels of norms in our networks: 32 at width 8 and 32 pixels, 256 at width 64, and all but 32 at 128 pixels."""
INITIALIZERS: tuple[Initializer, ...] = ("xavier", "orthogonal")
PARTS = ("gain", "shift")


def start_of_a_map(classes: int, channels: int, initializer: Initializer) -> float:
    """Returns the root mean square of the initial kernel of a map, divided by its largest singular value."""
    kernel = np.asarray(kernel_initializer(initializer)(jax.random.key(0), (classes, channels)), np.float64)
    return root_mean_square(kernel / np.linalg.norm(kernel, 2))


def starts() -> list[dict[str, Any]]:
    """Returns the bound and the initial values of maps, for each number of classes and channels."""
    return [
        {
            "classes": classes,
            "channels": channels,
            "bound": largest_movement("map", classes, channels),
            **{name: start_of_a_map(classes, channels, name) for name in INITIALIZERS},
        }
        for classes in CLASSES
        for channels in CHANNELS
    ]


def gains_of(path: Path) -> tuple[str, dict[str, ClassGains], dict[str, ClassGains] | None]:
    """Returns the form of a trained network's class gains, the gains, and their initial values if known.

    The form of a file without metadata, such as an .npz, is taken to be "map".

    Raises:
        InvalidInputError: there is no such network, or its norms are not conditional.
    """
    if path.is_file():
        file = read_arrays(path)
        arrays = file.arrays
        gains = class_gains(unflatten_dict({tuple(name.split("/")): array for name, array in arrays.items()}))
        if not gains or not any(name.endswith("scale_kernel") for name in arrays):
            raise InvalidInputError(f"{str(path)!r} needs class gains as maps: folded tables cannot be recovered.")
        return json.loads(file.metadata.get("generator", "{}")).get("conditional_gain", "map"), gains, None
    run = open_run(path)
    networks = run.experiment.networks
    if networks.family == "biggan" or networks.modules or not networks.num_classes:
        raise InvalidInputError(f"{str(path)!r} needs to be a sagan or a dcgan with classes: its norms read no label.")
    begun = initial_state(run.task, run.experiment.training.seed, image_shape(run.experiment))
    first = trained_generator(run.task, begun, raw=True)
    gains, at_first = (class_gains(trained.variables["params"]) for trained in (run.generator(), first))
    return networks.conditional_gain, gains, at_first


def norms_of(path: Path) -> list[dict[str, Any]]:
    """Returns the facts about each conditional norm of a trained network."""
    form, gains, begun = gains_of(path)
    lines = []
    for name, norm in gains.items():
        classes, channels = norm.gains.shape
        bound = largest_movement(form, classes, channels)  # pyrefly: ignore[bad-argument-type]
        line: dict[str, Any] = {"network": path.name, "form": form, "norm": name}
        line |= {"classes": classes, "channels": channels, "bound": bound if math.isfinite(bound) else None}
        for part, values in zip(PARTS, norm, strict=True):
            start = None if begun is None else begun[name][PARTS.index(part)]
            line[part] = {
                "rms": root_mean_square(values),
                "between_classes": between_classes(values),
                "largest": float(abs(values).max()),
                "moved": None if start is None else root_mean_square(values - start),
            }
        lines.append(line)
    return lines


def starts_table(found: Sequence[dict[str, Any]]) -> str:
    """Returns a table of the bound and, in brackets, the initial value of a map with Xavier initialisation."""
    cells = {(entry["classes"], entry["channels"]): f"{entry['bound']:.3f} ({entry['xavier']:.3f})" for entry in found}
    lines = [[f"{classes:,}", *(cells[classes, channels] for channels in CHANNELS)] for classes in CLASSES]
    return with_head(["classes", *(f"{channels} channels" for channels in CHANNELS)], lines)


def norms_table(lines: Sequence[dict[str, Any]]) -> str:
    """Returns the table of the norms of trained networks."""
    head = ["network", "form", "norm", "K × C", "bound"]
    for part in PARTS:
        head += [part, "of the bound", "between classes", "largest entry", "moved"]
    return with_head(head, [_cells(line) for line in lines])


def _cells(line: dict[str, Any]) -> list[str]:
    bound = line["bound"]
    cells = [line["network"], line["form"], line["norm"], f"{line['classes']:,} × {line['channels']}"]
    cells.append("none" if bound is None else f"{bound:.4f}")
    for part in PARTS:
        values = line[part]
        cells += [f"{values['rms']:.4f}", "–" if bound is None else f"{values['rms'] / bound:.0%}"]
        cells += [f"{values['between_classes']:.4f}", f"{values['largest']:.2f}"]
        cells.append("–" if values["moved"] is None else f"{values['moved']:.4f}")
    return cells


def draw(found: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the bound with the initial values of maps, and beside it the norms of the trained networks."""
    names = list(dict.fromkeys(line["network"] for line in lines))
    figure, panels = pyplot.subplots(1, 1 + len(names), figsize=(5.5 + 4 * len(names), 4), layout="constrained")
    first, *others = np.atleast_1d(panels)
    _draw_starts(first, found)
    for axes, name in zip(others, names, strict=True):
        _draw_norms(axes, [line for line in lines if line["network"] == name])
        axes.set_title(f"{name}: {next(line['form'] for line in lines if line['network'] == name)}", fontsize=9)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _draw_starts(axes: Axes, found: Sequence[dict[str, Any]]) -> None:
    sides = np.array([min(max(entry["classes"], entry["channels"]) for entry in found), 1100])
    axes.plot(sides, sides**-0.5, color="black", label="bound of a normalised map: 1/sqrt(max(K, C))")
    for number, classes in enumerate(CLASSES):
        of = [entry for entry in found if entry["classes"] == classes]
        x = [max(entry["classes"], entry["channels"]) for entry in of]
        axes.plot(x, [entry["xavier"] for entry in of], "o", color=f"C{number}", label=f"Xavier's start, K = {classes}")
        axes.plot(x, [entry["orthogonal"] for entry in of], "+", color=f"C{number}", markersize=9)
    axes.plot([], [], "+", color="grey", label="orthogonal start")
    axes.set(xscale="log", yscale="log", xlabel="max(K, C)", ylabel="root mean square of a gain less 1")
    axes.set_title("what normalised maps allow, and where they start", fontsize=9)
    axes.legend(frameon=False, fontsize=7)


def _draw_norms(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    places = np.arange(len(lines))
    for number, part in enumerate(PARTS):
        heights = [line[part]["rms"] for line in lines]
        between = [line[part]["between_classes"] for line in lines]
        left = places + 0.4 * (number - 1)
        axes.bar(left, heights, 0.38, align="edge", color=f"C{number}", alpha=0.4, label=part)
        axes.bar(left, between, 0.38, align="edge", color=f"C{number}", label=f"{part}, between classes")
    if all(line["bound"] is not None for line in lines):
        axes.step(
            [*places - 0.5, len(lines) - 0.5],
            [*(line["bound"] for line in lines), lines[-1]["bound"]],
            where="post",
            color="black",
            label="bound",
        )
    axes.set_xticks(places, [line["norm"].replace("/", "\n") for line in lines], fontsize=7)
    axes.set(ylabel="root mean square of gains less 1, of shifts", ylim=(0, 1.45 * axes.get_ylim()[1]))
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper right")


def run(arguments: list[str]) -> None:
    """Prints both tables, and writes them with the picture and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", type=Path, help="workdirs, or files that sagan-jax export wrote")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    given = parser.parse_args(arguments)
    if given.out.exists() and not given.out.is_dir():
        raise InvalidInputError(f"--out needs a folder; {str(given.out)!r} is a file.")
    lines = [line for path in given.networks for line in norms_of(path)]
    found = starts()
    text = starts_table(found) + ("\n" + norms_table(lines) if lines else "")
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "norm_budget.md", text.encode())
    content = json.dumps({"starts": found, "norms": lines}, indent=1, default=float)
    write_atomically(given.out / "norm_budget.json", (content + "\n").encode())
    draw(found, lines, given.out / "norm_budget.png")
    print(text, end="")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "norm_budget"))
