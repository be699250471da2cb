"""`sagan-jax explore`: the interactive attention page of a run."""

import dataclasses
import math
import re
import sys
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write an interactive page: point at an image, and see the attention of that position in every layer of G and D.

    The page is one file and needs no network. A sample is a class and a seed; a slider interpolates between two latents
    of the seed, z1 and z2.
    """

    workdir: Path
    """the folder of the run"""
    out: Path
    """a .html file"""
    num_samples: int | None = None
    """number of samples. Defaults to 20, or with --seeds to every class with each seed"""
    seeds: tuple[int, ...] = ()
    """seeds of the latents. Defaults to 0, 1, 2, .."""
    classes: tuple[str, ...] = ()
    """classes of the samples, by number or by name. Defaults to all"""
    steps: int = 5
    """images from z1 to z2, both included; 1 gives no slider and leaves room for more samples"""
    megabytes: float = 10.0
    """largest size of the file. Samples that do not fit are left out, and the page says how many"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, _renamed(arguments), "sagan-jax explore")
    if parsed.out.suffix.lower() not in (".html", ".htm") or parsed.out.is_dir():
        raise InvalidInputError(f"--out needs a .html file; got {str(parsed.out)!r}, which is of another kind.")
    for flag, number in (("num-samples", parsed.num_samples), ("steps", parsed.steps)):
        if number is not None and number < 1:
            raise InvalidInputError(f"--{flag} needs to be at least 1; got {number}.")
    for seed in parsed.seeds:
        if not 0 <= seed < 2**32:
            raise InvalidInputError(f"--seeds needs numbers in [0, 2**32); got {seed}.")
    if not (math.isfinite(parsed.megabytes) and parsed.megabytes > 0):
        raise InvalidInputError(f"--megabytes needs to be a number above 0; got {parsed.megabytes}.")
    check_can_write(parsed.out)
    announce("drawing the page", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.explorer import write_explorer

    page, requested = write_explorer(
        parsed.workdir,
        parsed.out,
        num_samples=parsed.num_samples,
        seeds=parsed.seeds,
        classes=parsed.classes,
        steps=parsed.steps,
        budget=int(parsed.megabytes * 1e6),
        checkpoint=parsed.checkpoint,
        trust_checkpoint=parsed.trust_checkpoint,
    )
    left_out = f" ({requested - page.num_samples} did not fit)" if page.num_samples < requested else ""
    print(f"{page.num_samples} samples{left_out} in {parsed.out}, {len(page.content) / 1e6:.1f} MB")


def _renamed(arguments: list[str]) -> list[str]:
    """Returns the arguments with the former name of --megabytes replaced, and says so."""
    former = re.compile(r"--budget[-_]mb(?=$|=)")
    if any(map(former.match, arguments)):
        print("sagan-jax: explore: --budget-mb is now called --megabytes, as in report.", file=sys.stderr)
    return [former.sub("--megabytes", word) for word in arguments]
