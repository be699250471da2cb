"""`sagan-jax reproduce`: a published figure or row, trained and scored again."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.config import Data
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train published rows again, score them by the published protocol, and compare.

    figure4: the three rows of the paper's Figure 4 at 10,000 steps, with --source the ImageNet training images. It
    tells whether the FIDs have the published order. cifar10: StudioGAN's SAGAN, with --source the original training
    images of CIFAR-10, which JPEG copies are not; with --held-out the test images it is scored by the older protocol
    too.

    Called again, it goes on where it was stopped. It needs the weights of the FID network: sagan-jax fetch-weights.
    """

    name: tyro.conf.Positional[Literal["figure4", "cifar10"]]
    """what is reproduced"""
    images: Data = dataclasses.field(default_factory=Data)
    """where the images come from"""
    workdir: Path | None = None
    """gets the workdir of each run, and reproduction.json. Defaults to runs/NAME"""
    dry_run: bool = False
    """check images, networks and memory, and print what would be trained; train nothing"""
    base_channels: int = 0
    """another width than the published one: a rehearsal, which takes any images and gives no verdict"""
    batch_size: int = 0
    """another batch than the published one: a rehearsal too"""
    precision: Literal["auto", "float32", "tensorfloat32", "bfloat16"] = "auto"
    """precision of the training step; auto: tensorfloat32 on a GPU, bfloat16 on a TPU, float32 on a CPU"""
    seed: int = 0
    """of the weights, the order of the images and all draws. Another seed needs another --workdir"""
    inception_weights: str = ""
    """weights of the FID network. Defaults to those of `sagan-jax fetch-weights`"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax reproduce", config=(tyro.conf.OmitArgPrefixes,))
    for flag in ("base_channels", "batch_size"):
        if getattr(parsed, flag) < 0:
            raise InvalidInputError(f"--{flag.replace('_', '-')} needs to be at least 0; got {getattr(parsed, flag)}.")
    announce(f"reproducing {parsed.name}", compilation_cache=parsed.compilation_cache)
    from sagan_jax.cli.progress import ScoreProgress
    from sagan_jax.runs.reproduce import Setting, rehearse, reproduce

    setting = Setting(parsed.images, parsed.base_channels, parsed.batch_size, parsed.precision, parsed.seed)
    workdir = parsed.workdir or Path("runs") / parsed.name
    if parsed.dry_run:
        rehearse(parsed.name, setting, workdir, parsed.inception_weights)
        return
    with ScoreProgress() as progress:
        reproduce(
            parsed.name, setting, workdir, inception_weights=parsed.inception_weights, progress=progress, notify=_show
        )
    print(workdir / "reproduction.json")


def _show(line: str) -> None:
    print(line, flush=True)
