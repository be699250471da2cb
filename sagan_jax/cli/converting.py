"""Released weights, read and written: the FID network as a file, a generator and its discriminator as a run."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax import interop
from sagan_jax.cli.families import networks_of
from sagan_jax.cli.wiring import ABSENT, build_adversarial_task
from sagan_jax.config import Experiment, Training, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.inception import default_weights_path
from sagan_jax.interop.inception import published_arrays
from sagan_jax.interop.pytorch import SUFFIXES, read_pth
from sagan_jax.interop.weight_files import WeightFile, read_arrays, to_safetensors
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import reproducibility_info, write_run_files
from sagan_jax.runtime.files import write_atomically
from sagan_jax.training.adversarial import AdversarialState, initial_state
from sagan_jax.training.network_state import NetworkState


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
    out = out or default_weights_path()
    if out.suffix.lower() != ".safetensors":
        raise InvalidInputError(f"convert needs a .safetensors file to write; got {str(out)!r}.")
    read = _read(file)
    source = {"source_name": read.name, "source_sha256": read.sha256}
    if "source_sha256" in read.metadata:  # it was converted already: the first source is the one that counts
        source = {key: read.metadata.get(key, "") for key in source}
    write_atomically(out, content := to_safetensors(published_arrays(read.arrays), source))
    print(f"read  {file}  sha256 {read.sha256}\nwrote {out}  sha256 {hashlib.sha256(content).hexdigest()}")
    return out


def convert_networks(source: str, out: Path, generator: Path, discriminator: Path | None = None) -> Path:
    """Writes released networks as the workdir of a run that has done no step, and prints what they are.

    Args:
        source: as `sagan_jax.interop.load` takes it.
        out: the workdir; it must hold no run.
        generator: .pth, .pt, .npz or .safetensors, of names to tensors; names may begin with `generator/` and
            `discriminator/`, both networks then lie in this file, as they do in the official release.
        discriminator: the same for D alone.

    Returns:
        `out`.

    Raises:
        InvalidInputError: a file cannot be read as tensors alone, a tensor is missing, unknown or does not fit, or
            `out` is no empty place. Nothing is written then.
        StorageError: the disk refused.
    """
    if out.is_file() or any((out / name).exists() for name in ("config.json", "checkpoints")):
        raise InvalidInputError(f"convert needs a new folder to write; {str(out)!r} is a file or holds a run already.")
    files = {"generator": _read(generator)} | ({"discriminator": _read(discriminator)} if discriminator else {})
    released = interop.load(source, _named(source, files))
    networks = networks_of(released)
    experiment = Experiment(
        name=f"{source}_{networks.family}",
        networks=networks,
        training=Training(
            differentiate_spectral_vectors=released.spectral_rule.get("differentiate_vectors", False),
        ),
    )
    game = build_adversarial_task(experiment)
    shapes = jax.eval_shape(
        lambda: initial_state(game, 0, (networks.resolution, networks.resolution, networks.image_channels))
    )
    # A discriminator that did not come is zeros, and noted as absent.
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = dataclasses.replace(state, generator=_player(state.generator, released.generator_variables))
    if released.discriminator:
        judge = _player(state.discriminator, released.discriminator_variables)
        state = dataclasses.replace(state, discriminator=judge)
    meta = {
        "experiment": to_dict(experiment),
        "environment": reproducibility_info(),
        "source": {name: {"name": file.name, "sha256": file.sha256} for name, file in files.items()},
        "discriminator": "present" if released.discriminator else ABSENT,
    }
    with Checkpoints(out / "checkpoints") as checkpoints:
        checkpoints.save(0, state, meta)
    write_run_files(out, to_dict(experiment))
    for file in files.values():
        print(f"read  {file.name}  sha256 {file.sha256}")
    print(_summary(experiment, state, bool(released.discriminator)))
    print(f"wrote {out}: try sagan-jax sample --workdir {out} --out samples.png")
    return out


def _read(file: Path) -> WeightFile:
    return (read_pth if file.suffix.lower() in SUFFIXES else read_arrays)(file)


def _named(source: str, files: dict[str, WeightFile]) -> dict[str, Any]:
    """Returns all tensors under the names that `sagan_jax.interop.load` knows."""
    arrays: dict[str, Any] = {}
    for network, file in files.items():
        # TensorFlow calls the first output of the operation that is a variable NAME:0.
        tensors = {name.removesuffix(":0"): array for name, array in file.arrays.items()}
        if source != "official" and not all(name.startswith(("generator/", "discriminator/")) for name in tensors):
            tensors = {f"{network}/{name}": array for name, array in tensors.items()}
        arrays |= tensors
    return arrays


def _player(empty: NetworkState, variables: dict[str, Any]) -> NetworkState:
    """Returns a player with released variables; Adam starts with zeros."""
    return dataclasses.replace(
        empty,
        params=variables["params"],
        spectral=variables["spectral"],
        batch_stats=variables.get("batch_stats", {}),
    )


def _summary(experiment: Experiment, state: AdversarialState, judged: bool) -> str:
    """Returns what a person wants to know of networks that were read."""
    networks = experiment.networks

    def count(player: NetworkState) -> str:
        return f"{sum(leaf.size for leaf in jax.tree.leaves(player.params)):,}"

    places = ", ".join(map(str, networks.generator_attention_resolutions)) or "none"
    classes = f"{networks.num_classes} classes" if networks.num_classes else "no classes"
    discriminator = f"{count(state.discriminator)} in D" if judged else "no discriminator"
    return (
        f"{networks.family} of {networks.resolution} pixels, {classes}, attention at {places}: "
        f"{count(state.generator)} parameters in G, {discriminator}"
    )
