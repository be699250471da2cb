"""`sagan-jax convert`: weights that others published, into files that everything here reads."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Convert a published weight file: .pth (with the extra `torch`; nothing in it is executed), .npz, .safetensors."""

    weights: tyro.conf.Positional[Path]
    """the file"""
    out: Annotated[Path | None, tyro.conf.Positional] = None
    """a .safetensors file; where `evaluate` looks for it unless given"""
    kind: Annotated[Literal["inception"], tyro.conf.arg(name="from")] = "inception"
    """whose weights they are: those of the FID network, Inception of 2015"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax convert")
    from sagan_jax.evaluation.inception import default_weights_path

    out = parsed.out or default_weights_path()
    if out.suffix != ".safetensors":
        raise InvalidInputError(f"convert writes a .safetensors file; got {str(out)!r}.")
    convert_inception(parsed.weights, out)


def convert_inception(path: Path, out: Path) -> None:
    """Writes the FID network's weights as .safetensors, after they were checked, and prints both digests.

    Args:
        path: .pth, .npz or .safetensors.
        out: replaced if it exists.

    Raises:
        InvalidInputError: the file is not what its name promises, or holds other tensors; nothing is written then.
        StorageError: the disk refuses.
    """
    from sagan_jax.evaluation.inception import read_inception, required_tensors
    from sagan_jax.interop.arrays import read_weights, safetensors_bytes
    from sagan_jax.interop.pytorch import read_pth
    from sagan_jax.training.recording import write_atomically

    require_hash_in_name(path)
    weights = read_pth(path) if path.suffix.lower() in (".pth", ".pt") else read_weights(path)
    needed = required_tensors()
    weights.require(needed, "the FID network", ignored=("num_batches_tracked",))
    source = {"source_name": weights.name, "source_sha256": weights.sha256} | weights.metadata
    write_atomically(out, safetensors_bytes({name: weights.arrays[name] for name in needed}, source))
    print(f"{path}: sha256 {weights.sha256}")
    print(f"{out}: sha256 {read_inception(out).sha256}")


def require_hash_in_name(path: Path) -> None:
    """Raises InvalidInputError when a file's name ends with the first digits of a sha256, and it is not the file's.

    Published PyTorch files carry it: `pt_inception-2015-12-05-6726825d.pth`.
    """
    from sagan_jax.interop.arrays import sha256_of

    promised = re.search(r"-([0-9a-f]{8,64})\.(pth|pt)$", path.name)
    if promised and path.is_file() and not sha256_of(path).startswith(promised[1]):
        raise InvalidInputError(
            f"{str(path)!r} needs the sha256 that its name promises, {promised[1]}..; it has {sha256_of(path)[:8]}..: "
            f"the download is damaged, or not what it says."
        )
