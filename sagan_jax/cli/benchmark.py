"""`sagan-jax benchmark`: compares an attention layer with those of this package on long-range tasks."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train and score an attention layer in the long-range benchmark, and print it beside the layers of this package.

    Two numbers matter. `beyond reach` is how often a small network correctly compares two parts of an image that its
    convolutions cannot see together: 0.5 by chance. `beyond chance` is about the images of a GAN. It is the share with
    two distant squares of the same hue, minus the share expected by chance. One seed is a first look. For a claim, use
    --seeds 8.
    """

    name: tyro.conf.Positional[Literal["long_range"]]
    """the benchmark"""
    attention: str
    """the layer: an import path such as my_package.layers:Layer or layers.py:Layer, or a name that `train --attention`
    takes"""
    seeds: int = 1
    """number of seeds: 0, 1, 2, .."""
    part: Literal["both", "probe", "gan"] = "both"
    """what to measure: the probe of reach, the GAN, or both"""
    out: Path = Path("runs/long_range_v1")
    """the folder for results. The runs and the table.md of a layer lie in a folder in it, named after the layer.
    Finished parts are not run again"""
    quick: bool = False
    """only a few steps, to check that the layer works; the numbers mean nothing"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax benchmark")
    if not 1 <= parsed.seeds <= 100:
        raise InvalidInputError(f"benchmark needs --seeds from 1 to 100; got {parsed.seeds}.")
    announce(f"measuring {parsed.attention}", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.long_range import folder_name, measure_layer
    from sagan_jax.runs.long_range_table import beside_ours
    from sagan_jax.runtime.files import write_atomically

    folder = parsed.out / (folder_name(parsed.attention) + ("-quick" if parsed.quick else ""))
    shown = f"{parsed.attention}, quick" if parsed.quick else parsed.attention
    table = ""
    measured = measure_layer(
        parsed.attention,
        range(parsed.seeds),
        folder,
        quick=parsed.quick,
        probe=parsed.part != "gan",
        gan=parsed.part != "probe",
        notify=lambda line: print(line, flush=True),
    )
    for seeds, trials in enumerate(measured, start=1):
        table = beside_ours(shown, trials, tested=seeds == parsed.seeds)
        write_atomically(folder / "table.md", (table + "\n").encode())
    print(f"\n{table}\n")
    if parsed.quick:
        print("quick: a few steps only, so the numbers of the last row mean nothing")
    print(folder / "table.md")
