"""`sagan-jax convert`: converts released weights to files that need none of the tools that wrote them."""

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
    evaluations look. DINOv2: `--from dinov2 FILE [OUT]` does the same. A generator: `--from SOURCE --generator G.pth
    [--discriminator D.pth] OUT` writes the folder of a run, for sample, evaluate, attend, explore and `train
    --init-from`. It prints numbers of a few images and logits for comparison with the source.
    """

    source: Annotated[
        Literal["inception", "dinov2", "official", "studiogan", "biggan-pytorch"], tyro.conf.arg(name="from")
    ]
    """inception: the FID network as torch-fidelity publishes it; dinov2: as its authors publish it; official: the SAGAN
    authors' release; studiogan: PyTorch-StudioGAN's SAGAN and DCGAN; biggan-pytorch: its BigGAN and SAGAN"""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """FILE [OUT] for inception and dinov2, OUT for the others"""
    generator: Path | None = None
    """.pth, .pt, .safetensors, .npz, or for the official release its checkpoint, such as model.ckpt-1000000"""
    discriminator: Path | None = None
    """the same for D, when it has its own file. To sample, a generator is enough"""
    source_config: Path | None = None
    """the config of the source's training, for settings that the weights do not show: StudioGAN's .yaml, or the
    metalog.txt of BigGAN-PyTorch"""
    num_heads: int = 0
    """for dinov2: heads of an attention layer, which the weights do not show. Defaults to one for each 64 features, as
    in all published sizes"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax convert")
    announce("converting", compilation_cache=parsed.compilation_cache)
    if parsed.num_heads < 0 or (parsed.num_heads and parsed.source != "dinov2"):
        raise InvalidInputError(f"--num-heads goes with --from dinov2 and is at least 1; got {parsed.num_heads}.")
    if parsed.source in ("inception", "dinov2"):
        _convert_features(parsed)
    else:
        _convert_networks(parsed)


def _convert_features(parsed: Arguments) -> None:
    from sagan_jax.runs.convert import convert_dinov2, convert_inception

    if parsed.generator or parsed.discriminator or parsed.source_config or len(parsed.paths) not in (1, 2):
        network = "the FID network" if parsed.source == "inception" else "DINOv2"
        raise InvalidInputError(f"convert needs, for {network}: --from {parsed.source} FILE [OUT].")
    if parsed.source == "inception":
        convert_inception(*parsed.paths)
    else:
        convert_dinov2(*parsed.paths, num_heads=parsed.num_heads or None)


def _convert_networks(parsed: Arguments) -> None:
    from sagan_jax.runs.convert import convert_networks

    if not parsed.generator or len(parsed.paths) != 1:
        raise InvalidInputError(f"convert needs: --from {parsed.source} --generator FILE [--discriminator FILE] OUT.")
    if parsed.source == "official" and parsed.source_config:
        raise InvalidInputError("The official release has no configuration file: leave out --source-config.")
    convert_networks(
        parsed.source,
        parsed.paths[0],
        parsed.generator,
        parsed.discriminator,
        source_config=parsed.source_config,
    )
