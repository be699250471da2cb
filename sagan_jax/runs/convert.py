"""Converts released weights: the FID network and DINOv2 to files, a generator and its discriminator to a run."""

import dataclasses
import hashlib
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sagan_jax import evaluation, interop
from sagan_jax.config import Experiment, Training, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import ReleasedNetworks
from sagan_jax.interop.pytorch import SUFFIXES, read_pth
from sagan_jax.interop.source_config import read_source_config
from sagan_jax.interop.tensorflow_checkpoint import checkpoint_prefix, read_checkpoint
from sagan_jax.interop.weight_files import WeightFile, read_arrays, to_safetensors
from sagan_jax.runs.build import build_adversarial_task, image_shape
from sagan_jax.runs.families import networks_config
from sagan_jax.runs.load import NO_DISCRIMINATOR
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import reproducibility_info, write_run_files
from sagan_jax.runtime.files import write_atomically
from sagan_jax.training.adversarial import AdversarialState, initial_state
from sagan_jax.training.network_state import NetworkState

_CHECKED_IMAGES = 4


def convert_inception(file: Path, out: Path | None = None) -> Path:
    """Writes the weights of the FID network as .safetensors, and prints the sha256 of both files.

    Args:
        file: .pth, .pt, .npz or .safetensors.
        out: the file to write. Defaults to the place where evaluations look.

    Returns:
        The file that was written.

    Raises:
        InvalidInputError: the file is damaged or holds another network, or `out` has another suffix.
        StorageError: a file cannot be written.
    """
    out = _checked_out(out or evaluation.inception.default_weights_path())
    read = _read(file)
    return _write_weights(out, read, interop.inception.published_arrays(read.arrays, read.name), {})


def convert_dinov2(file: Path, out: Path | None = None, *, num_heads: int | None = None) -> Path:
    """Writes the weights of DINOv2 as .safetensors, and prints what they are and the sha256 of both files.

    Args:
        file: .pth, .pt, .npz or .safetensors, with the published names.
        out: the file to write. Defaults to the place where evaluations look. That place is only for ViT-L/14, which
            published scores use.
        num_heads: the heads of each attention layer. Defaults to the number in the file, else to one per 64 features.

    Returns:
        The file that was written.

    Raises:
        InvalidInputError: the file is damaged or holds another network, `out` has another suffix, or the network is not
            ViT-L/14 and there is no `out`.
        StorageError: a file cannot be written.
    """
    named = out is not None
    out = _checked_out(out or evaluation.dinov2.default_weights_path())
    read = _read(file)
    heads = num_heads or evaluation.dinov2.stated_heads(read.metadata, read.name)
    network = interop.dinov2.network_of(read.arrays, heads, read.name)
    arrays = interop.dinov2.published_arrays(read.arrays, network, read.name)
    words = interop.dinov2.size_words(network)
    if network != evaluation.dinov2.STANDARD and not named:
        raise InvalidInputError(
            f"{read.name!r} is DINOv2 of {words}. The default place is only for ViT-L/14, which published scores use: "
            f"name OUT, and later give that file with --dinov2-weights."
        )
    print(f"DINOv2 of {words}: {sum(map(np.size, arrays.values())):,} parameters")
    return _write_weights(out, read, arrays, {evaluation.dinov2.NUM_HEADS: str(network.num_heads)})


def _checked_out(out: Path | None) -> Path:
    if out is None:
        raise InvalidInputError("convert needs OUT, a file: this user has no home folder for a cache.")
    if out.suffix.lower() != ".safetensors":
        raise InvalidInputError(f"convert needs a .safetensors file to write; got {str(out)!r}.")
    return out


def _write_weights(out: Path, read: WeightFile, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> Path:
    """Writes converted arrays, and prints the sha256 of the source file and the new file."""
    source = {"source_name": read.name, "source_sha256": read.sha256}
    if "source_sha256" in read.metadata:  # the file was converted before: keep the original source
        source = {key: read.metadata.get(key, "") for key in source}
    write_atomically(out, content := to_safetensors(arrays, source | metadata))
    print(f"read  {read.name}  sha256 {read.sha256}\nwrote {out}  sha256 {hashlib.sha256(content).hexdigest()}")
    return out


def convert_networks(
    source: str,
    out: Path,
    generator: Path,
    discriminator: Path | None = None,
    *,
    source_config: Path | None = None,
) -> Path:
    """Writes released networks as the workdir of a run at step 0, and prints a summary of them.

    It also prints the assumptions, and statistics of a few images and logits to compare with the source's own code.

    Args:
        source: the code base of the weights; see `sagan_jax.interop.load`.
        out: the workdir; it must hold no run.
        generator: .pth, .pt, .npz, .safetensors or a checkpoint of TensorFlow 1, with tensors by name. Names may begin
            with `generator/` and `discriminator/`: both networks are then in this file, as in the official release.
        discriminator: the same for D, if it has its own file.
        source_config: a YAML or JSON file with the configuration of the source's training; see
            `sagan_jax.interop.load`.

    Returns:
        `out`.

    Raises:
        InvalidInputError: a file holds more than tensors; a tensor is missing, unknown or of another shape; the
            networks have a feature that this package lacks, differ from `source_config`, or give values that are not
            finite; or `out` is in use. Nothing is written then.
        StorageError: a file cannot be written.
    """
    if out.is_file() or any((out / name).exists() for name in ("config.json", "checkpoints")):
        raise InvalidInputError(f"convert needs a new folder to write; {str(out)!r} is a file or holds a run already.")
    config = read_source_config(source_config) if source_config else None
    files = {"generator": _read(generator)} | ({"discriminator": _read(discriminator)} if discriminator else {})
    try:
        released = interop.load(source, _named_arrays(source, files), config)
        released.refuse_zeros()
    except InvalidInputError as error:
        raise InvalidInputError(f"{' and '.join(repr(file.name) for file in files.values())}: {error}") from error
    experiment = _experiment(source, released)
    check = _check_line(released)
    state = _state(experiment, released)
    meta = {
        "experiment": to_dict(experiment),
        "environment": reproducibility_info(),
        "source": {name: {"name": file.name, "sha256": file.sha256} for name, file in files.items()},
        "discriminator": "present" if released.discriminator else NO_DISCRIMINATOR,
    }
    with Checkpoints(out / "checkpoints") as checkpoints:
        checkpoints.save(0, state, meta)
    write_run_files(out, to_dict(experiment))
    for file in files.values():
        print(f"read  {file.name}  sha256 {file.sha256}")
    print(_summary(experiment, state, bool(released.discriminator)))
    if released.assumed:
        print(f"assumed, not known from the weights: {', '.join(released.assumed)} (--source-config FILE checks it)")
    print(check)
    print(f"wrote {out}: try sagan-jax sample --workdir {shlex.quote(str(out))} --out samples.png")
    return out


def _check_line(released: ReleasedNetworks) -> str:
    """Returns statistics of a few images and logits, with the inputs that reproduce them in the source's own code.

    Raises:
        InvalidInputError: images or logits are not finite.
    """
    classes = released.generator.num_classes
    latents = np.random.default_rng(0).normal(size=(_CHECKED_IMAGES, released.latent_size)).astype(np.float32)
    labels = np.arange(_CHECKED_IMAGES) % max(classes, 1)
    images = np.asarray(released.generate(latents, labels), np.float64)
    parts = {"images": images}
    if released.discriminator:
        parts["logits"] = np.asarray(released.discriminate(images.astype(np.float32), labels), np.float64)
    for what, numbers in parts.items():
        if not np.isfinite(numbers).all():
            raise InvalidInputError(
                f"The weights were read, but the {what} that they give are not finite. Did the source's run diverge?"
            )
    found = "; ".join(
        f"{what} with mean {numbers.mean():.5f} and standard deviation {numbers.std():.5f}"
        for what, numbers in parts.items()
    )
    given = f"numpy.random.default_rng(0).normal(size={latents.shape})"
    given += f", labels {labels.tolist()}" if classes else ""
    return f"check: latents {given} give {found}; the source's code in evaluation mode should give the same"


def _read(file: Path) -> WeightFile:
    if checkpoint_prefix(file):
        return read_checkpoint(file, ignored=interop.official.IGNORED)
    return (read_pth if file.suffix.lower() in SUFFIXES else read_arrays)(file)


def _named_arrays(source: str, files: dict[str, WeightFile]) -> dict[str, Any]:
    """Returns all tensors under the names that `sagan_jax.interop.load` expects.

    Raises:
        InvalidInputError: two files hold different tensors of one name.
    """
    arrays: dict[str, Any] = {}
    for network, file in files.items():
        # TensorFlow names the value of a variable NAME:0.
        tensors = {name.removesuffix(":0"): array for name, array in file.arrays.items()}
        if source != "official" and not all(name.startswith(("generator/", "discriminator/")) for name in tensors):
            tensors = {f"{network}/{name}": array for name, array in tensors.items()}
        differing = [name for name in arrays.keys() & tensors.keys() if not np.array_equal(arrays[name], tensors[name])]
        if differing:
            raise InvalidInputError(
                f"--generator and --discriminator both hold {min(differing)!r}, with other values: each file holds "
                f"both networks. Give only one of them."
            )
        arrays |= tensors
    return arrays


def _experiment(source: str, released: ReleasedNetworks) -> Experiment:
    """Returns the config of a run that has the released networks."""
    networks = networks_config(released)
    differentiate = released.spectral_rule.get("differentiate_vectors", False)
    return Experiment(
        name=f"{source}_{networks.family}",
        networks=networks,
        training=Training(differentiate_spectral_vectors=differentiate),
    )


def _state(experiment: Experiment, released: ReleasedNetworks) -> AdversarialState:
    """Returns the state at step 0 with the released networks; a missing discriminator is all zeros."""
    task = build_adversarial_task(experiment)
    shapes = jax.eval_shape(lambda: initial_state(task, 0, image_shape(experiment)))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = dataclasses.replace(state, generator=_network_state(state.generator, released.generator_variables))
    if released.discriminator:
        discriminator = _network_state(state.discriminator, released.discriminator_variables)
        state = dataclasses.replace(state, discriminator=discriminator)
    return state


def _network_state(empty: NetworkState, variables: dict[str, Any]) -> NetworkState:
    """Returns a network state with released variables; the optimiser state is zeros."""
    return dataclasses.replace(
        empty,
        params=variables["params"],
        spectral=variables["spectral"],
        batch_stats=variables.get("batch_stats", {}),
    )


def _summary(experiment: Experiment, state: AdversarialState, has_discriminator: bool) -> str:
    """Returns one line about the networks that were read."""
    networks = experiment.networks

    def count(network: NetworkState) -> str:
        return f"{sum(leaf.size for leaf in jax.tree.leaves(network.params)):,}"

    places = ", ".join(map(str, networks.generator_attention_resolutions)) or "none"
    classes = f"{networks.num_classes} classes" if networks.num_classes else "no classes"
    discriminator = f"{count(state.discriminator)} in D" if has_discriminator else "no discriminator"
    return (
        f"{networks.family} of {networks.resolution} pixels, {classes}, attention at {places}: "
        f"{count(state.generator)} parameters in G, {discriminator}"
    )
