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
    checks whether the FIDs have the published order. cifar10: StudioGAN's SAGAN, with --source the original training
    images of CIFAR-10, not JPEG copies. With the test images as --held-out, it is also scored by the older protocol.

    A second call resumes where the first one stopped. It needs the weights of the FID network: sagan-jax fetch-weights.
    """

    name: tyro.conf.Positional[Literal["figure4", "cifar10"]]
    """the result to reproduce"""
    images: Data = dataclasses.field(default_factory=Data)
    """where the images come from"""
    workdir: Path | None = None
    """folder for the workdir of each run and for reproduction.json. Defaults to runs/NAME"""
    dry_run: bool = False
    """check images, networks and memory, and print what would be trained; train nothing"""
    base_channels: int = 0
    """a width other than the published one. The run is then a rehearsal, with any images and without a verdict"""
    batch_size: int = 0
    """a batch size other than the published one: also a rehearsal"""
    precision: Literal["auto", "float32", "tensorfloat32", "bfloat16"] = "auto"
    """precision of the training step; auto: tensorfloat32 on a GPU, bfloat16 on a TPU, float32 on a CPU"""
    seed: int = 0
    """seed of the weights, the order of the images and all random draws. Another seed needs another --workdir"""
    inception_weights: str = ""
    """weights of the FID network. Defaults to those of `sagan-jax fetch-weights`"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
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
