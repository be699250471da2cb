"""`sagan-jax convert`: weights that other people released, from their file to one that is read without their tools."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Convert released weights, names and values as they are, to a .safetensors file that remembers its source."""

    file: tyro.conf.Positional[Path]
    """a .pth, .pt, .npz or .safetensors file"""
    source: Annotated[Literal["inception"], tyro.conf.arg(name="from")]
    """what it holds: inception, the FID network as torch-fidelity publishes it"""
    out: tyro.conf.Positional[Path | None] = None
    """a .safetensors file; where evaluations look for it unless given"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax convert")
    convert_inception(parsed.file, parsed.out)


def convert_inception(file: Path, out: Path | None = None) -> Path:
    """Writes the weights of the FID network as .safetensors, and prints the sha256 of both files.

    Args:
        file: .pth, .pt, .npz or .safetensors.
        out: where to; the place in which evaluations look unless given.

    Returns:
        The file that was written.

    Raises:
        InvalidInputError: the file is damaged or holds another network, or `out` has another suffix.
        StorageError: the disk refused.
    """
    from sagan_jax.evaluation.inception import default_weights_path
    from sagan_jax.interop.arrays import read_arrays, to_safetensors
    from sagan_jax.interop.inception import published_arrays
    from sagan_jax.interop.pytorch import SUFFIXES, read_pth
    from sagan_jax.training.recording import write_atomically

    out = out or default_weights_path()
    if out.suffix.lower() != ".safetensors":
        raise InvalidInputError(f"convert needs a .safetensors file to write; got {str(out)!r}.")
    read = (read_pth if file.suffix.lower() in SUFFIXES else read_arrays)(file)
    source = {"source_name": read.name, "source_sha256": read.sha256}
    if "source_sha256" in read.metadata:  # it was converted already: the first source is the one that counts
        source = {key: read.metadata.get(key, "") for key in source}
    write_atomically(out, content := to_safetensors(published_arrays(read.arrays), source))
    print(f"read  {file}  sha256 {read.sha256}\nwrote {out}  sha256 {hashlib.sha256(content).hexdigest()}")
    return out
