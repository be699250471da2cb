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


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Download published weights, verify their sha256, and convert them."""

    weights: tyro.conf.Positional[Literal["inception"]] = "inception"
    """inception: the FID network"""
    out: Path | None = None
    """the folder for the file. Defaults to the place where evaluations look"""
    url: str = INCEPTION_URL
    """an https address; the file name ends in the start of its sha256, as in NAME-0123abcd.pth"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax fetch-weights")
    announce("fetching the weights")
    from sagan_jax.runs.fetch import fetch_inception

    fetch_inception(parsed.url, parsed.out)
