"""`sagan-jax convert`: released weights, to files that are read without the tools that wrote them."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Convert released weights. No code in a file is executed.

    The FID network: `--from inception FILE [OUT]` writes a .safetensors file. OUT defaults to the place where
    evaluations look. A generator: `--from SOURCE --generator G.pth [--discriminator D.pth] OUT` writes the folder of a
    run, for sample, evaluate, attend, explore and `train --init-from`. It prints numbers of a few images and logits
    for comparison with the source.
    """

    source: Annotated[Literal["inception", "official", "studiogan", "biggan-pytorch"], tyro.conf.arg(name="from")]
    """inception: the FID network as torch-fidelity publishes it; official: the SAGAN authors' release; studiogan:
    PyTorch-StudioGAN's SAGAN and DCGAN; biggan-pytorch: its BigGAN and SAGAN"""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """FILE [OUT] for inception, OUT for the others"""
    generator: Path | None = None
    """.pth, .pt, .safetensors, .npz, or for the official release its checkpoint, such as model.ckpt-1000000"""
    discriminator: Path | None = None
    """the same for D, when it has its own file. A generator alone is enough to sample"""
    source_config: Path | None = None
    """what the source trained with, which decides what weights do not say: StudioGAN's .yaml, or the metalog.txt of
    BigGAN-PyTorch"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax convert")
    announce("converting", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.convert import convert_inception, convert_networks

    if parsed.source == "inception":
        if parsed.generator or parsed.discriminator or parsed.source_config or len(parsed.paths) not in (1, 2):
            raise InvalidInputError("convert needs, for the FID network: --from inception FILE [OUT].")
        convert_inception(*parsed.paths)
    else:
        if not parsed.generator or len(parsed.paths) != 1:
            raise InvalidInputError(
                f"convert needs: --from {parsed.source} --generator FILE [--discriminator FILE] OUT."
            )
        if parsed.source == "official" and parsed.source_config:
            raise InvalidInputError("The official release has no configuration file: leave out --source-config.")
        convert_networks(
            parsed.source,
            parsed.paths[0],
            parsed.generator,
            parsed.discriminator,
            source_config=parsed.source_config,
        )
