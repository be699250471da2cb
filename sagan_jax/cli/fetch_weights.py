"""`sagan-jax fetch-weights`: downloads published weights. It is the only command that downloads."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Download published weights, verify their sha256, and convert them."""

    weights: tyro.conf.Positional[Literal["inception", "dinov2"]] = "inception"
    """inception: the FID network, 0.1 GB; dinov2: DINOv2 ViT-L/14, 1.2 GB"""
    out: Path | None = None
    """the folder for the file. Defaults to the place where evaluations look"""
    url: str = ""
    """an https address of the same weights. The file's name must identify the sha256: it ends in the first digits, as
    in NAME-0123abcd.pth, or it is the name of a file that the authors of DINOv2 published"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax fetch-weights")
    announce("fetching the weights")
    from sagan_jax.runs.fetch import fetch_dinov2, fetch_inception

    if parsed.weights == "inception":
        fetch_inception(parsed.url or INCEPTION_URL, parsed.out)
    else:
        fetch_dinov2(parsed.url or DINOV2_URL, parsed.out)
