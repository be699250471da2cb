"""The weights of DINOv2 for scores, read from a file that `sagan-jax convert` writes."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.weight_places import find_file, read_once
from sagan_jax.interop.dinov2 import load
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.models.dinov2 import DinoV2
from sagan_jax.runtime.cache_folders import weights_folder

STANDARD = DinoV2()
"""ViT-L/14 without registers, whose features published scores use."""

NUM_HEADS = "num_heads"
"""The metadata key of a .safetensors file for the number of heads."""

WEIGHTS_NAME = "dinov2-vitl14.safetensors"


@dataclasses.dataclass(frozen=True)
class DinoV2Weights:
    """DINOv2 with its weights, and their origin.

    Attributes:
        network: the module, with the sizes in the file.
        variables: the variables for `network.apply`.
        origin: one line that identifies the weights; it is recorded with every score.
    """

    network: DinoV2
    variables: dict[str, Any] = dataclasses.field(repr=False)
    origin: str

    @property
    def is_standard(self) -> bool:
        """Whether the network has the size that published scores use."""
        return self.network == STANDARD


def default_weights_path() -> Path | None:
    """Returns the default path of the weights, where `sagan-jax convert` writes them; None without a home folder."""
    folder = weights_folder()
    return folder and folder / WEIGHTS_NAME


def find_weights(path: str | Path | None = None) -> Path | None:
    """Returns the file of the weights: `path` if given, else the default file, or None if that does not exist.

    Raises:
        InvalidInputError: `path` is given and is not a file.
    """
    hint = "sagan-jax fetch-weights dinov2, or sagan-jax convert --from dinov2 FILE"
    return find_file(path, default_weights_path(), network="DINOv2", hint=hint)


@read_once
def read_dinov2(path: Path) -> DinoV2Weights:
    """Returns DINOv2 with the weights in a file. The file is read again only if it has changed.

    Args:
        path: a .safetensors or .npz file with the published names and PyTorch's layouts. The metadata of a .safetensors
            file may state the number of heads.

    Raises:
        InvalidInputError: the file is absent, damaged, or holds another network.
    """
    file = read_arrays(path)
    network, variables = load(file.arrays, stated_heads(file.metadata, file.name), file.name)
    return DinoV2Weights(network, jax.tree.map(jnp.asarray, variables), file.origin)


def stated_heads(metadata: dict[str, str], file: str) -> int | None:
    """Returns the number of heads in a file's metadata, or None.

    Raises:
        InvalidInputError: the value is not a number.
    """
    stated = metadata.get(NUM_HEADS)
    if stated is not None and not (stated.isascii() and stated.isdecimal() and len(stated) < 7):
        raise InvalidInputError(f"{file!r} needs a number as {NUM_HEADS!r} in its metadata; got {stated!r}.")
    return None if stated is None else int(stated)
