"""`sagan-jax convert`: weights that other people released, from their files to what is read without their tools."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Convert released weights; nothing in a file is ever run.

    Of the FID network: `--from inception FILE [OUT]` writes a .safetensors file, where evaluations look for it unless
    OUT is given. Of a generator: `--from SOURCE --generator G.pth [--discriminator D.pth] OUT` writes a folder that
    sample, evaluate, attend, explore and `train --init-from` take like a run of ours.
    """

    source: Annotated[Literal["inception", "official", "studiogan", "biggan-pytorch"], tyro.conf.arg(name="from")]
    """inception: the FID network as torch-fidelity publishes it; official: the SAGAN authors' release; studiogan:
    PyTorch-StudioGAN's SAGAN and DCGAN; biggan-pytorch: its BigGAN and SAGAN"""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """FILE [OUT] for inception, OUT for the others"""
    generator: Path | None = None
    """.pth, .pt, .safetensors or .npz; of the official release its variables, exported as .npz"""
    discriminator: Path | None = None
    """the same, where it has a file of its own; a generator alone is enough to sample"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax convert")
    from sagan_jax.cli import converting

    if parsed.source == "inception":
        if parsed.generator or parsed.discriminator or len(parsed.paths) not in (1, 2):
            raise InvalidInputError("convert needs, for the FID network: --from inception FILE [OUT].")
        converting.convert_inception(*parsed.paths)
    else:
        if not parsed.generator or len(parsed.paths) != 1:
            raise InvalidInputError(
                f"convert needs: --from {parsed.source} --generator FILE [--discriminator FILE] OUT."
            )
        converting.convert_networks(parsed.source, parsed.paths[0], parsed.generator, parsed.discriminator)
