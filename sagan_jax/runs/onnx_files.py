"""The networks of a run as ONNX files, checked in onnxruntime before they are written."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sagan_jax import __version__
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.import_paths import errors_of_user_code
from sagan_jax.interop.onnx_export import to_onnx
from sagan_jax.runs.build import image_shape
from sagan_jax.runs.contracts import runs_own_code
from sagan_jax.runs.export import checked_folder, folded
from sagan_jax.runs.load import CheckpointName, open_run
from sagan_jax.runtime.files import write_files_atomically
from sagan_jax.runtime.full_precision import in_float32
from sagan_jax.runtime.packages import is_installed

GENERATOR, DISCRIMINATOR = "generator.onnx", "discriminator.onnx"
TOLERANCE = 1e-4
"""Largest difference between onnxruntime and jax. It is absolute for values in [-1, 1], and relative for others."""

Inputs = dict[str, tuple[tuple[int, ...], Any]]


def export_onnx(
    workdir: str | Path,
    out: str | Path | None = None,
    *,
    checkpoint: CheckpointName = "newest",
    raw: bool = False,
    trust_checkpoint: bool = False,
) -> list[Path]:
    """Writes the networks of a run as ONNX files, all or none, and returns their paths.

    `generator.onnx` maps `latents` `[b, Z]` float32 and `labels` `[b]` int32 to `images` `[b, H, W, C]` float32 in
    [-1, 1], for any b. A label outside the classes gives a grey image. `discriminator.onnx` maps such `images` and
    `labels` to `logits` `[b]`. Networks without classes have no labels. Spectral normalisation and the statistics of
    the batch norms are folded in.

    Args:
        workdir: the folder of a run with a checkpoint.
        out: a folder. Defaults to `onnx` in the workdir.
        checkpoint: `newest`, `best` (the best score of a run that was scored while it trained), or the step of a
            checkpoint.
        raw: use G's weights as trained, even where there is a moving average.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: there is no run or no whole checkpoint in it, `out` is not a folder, or onnx or onnxruntime
            is missing. Or a network has an operation that cannot be exported, or onnxruntime does not agree with jax.
        NonFiniteError: the networks have diverged.
        StorageError: a file cannot be written.
    """
    folder = checked_folder(workdir, out, "onnx")
    absent = [name for name in ("onnx", "onnxruntime") if not is_installed(name)]
    if absent:
        raise InvalidInputError(f"--format onnx needs {' and '.join(absent)}. Run: pip install 'sagan-jax[onnx]'")
    run = open_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    generator, discriminator = run.generator(raw=raw), run.discriminator()
    notes = {"sagan_jax": __version__, "run": run.experiment.name, "step": str(generator.step)}
    notes |= {"num_classes": str(generator.num_classes)}
    weights = "moving average" if generator.averaged else "as trained"
    files = {GENERATOR: generator_onnx(generator, notes | {"weights": weights})}
    if discriminator:
        files[DISCRIMINATOR] = discriminator_onnx(discriminator, image_shape(run.experiment), notes)
    write_files_atomically(folder, files)
    return [folder / name for name in files]


def generator_onnx(trained: TrainedGenerator, notes: Mapping[str, str]) -> bytes:
    """Returns the content of `generator.onnx`; see `export_onnx`."""
    module, variables = folded(trained)
    classes = trained.num_classes

    def generate(latents: Array, labels: Array | None = None) -> Any:
        given = jnp.zeros(latents.shape[:1], jnp.int32) if labels is None else labels
        images: Any = module.apply(variables, latents, given, train=False, mutable=["batch_stats"])[0]
        if labels is None:
            return images
        return jnp.where(((labels >= 0) & (labels < classes))[:, None, None, None], images, 0)

    with _errors_of(trained.generator, GENERATOR):
        inputs: Inputs = {"latents": ((trained.latent_size,), np.float32)}
        return _checked(GENERATOR, generate, inputs, "images", classes, notes)


def _errors_of(module: Any, name: str) -> AbstractContextManager[None]:
    """Turns errors in a user's network code into one line."""
    return errors_of_user_code(f"{name} could not be made of the network") if runs_own_code(module) else nullcontext()


def discriminator_onnx(trained: TrainedDiscriminator, shape: tuple[int, ...], notes: Mapping[str, str]) -> bytes:
    """Returns the content of `discriminator.onnx`; see `export_onnx`."""

    def judge(images: Array, labels: Array | None = None) -> Any:
        given = jnp.zeros(images.shape[:1], jnp.int32) if labels is None else labels
        module: Any = trained.discriminator
        return module.apply(trained.variables, images, given, train=False, mutable=["batch_stats"])[0]

    with _errors_of(trained.discriminator, DISCRIMINATOR):
        return _checked(DISCRIMINATOR, judge, {"images": (shape, np.float32)}, "logits", trained.num_classes, notes)


def _checked(
    name: str, function: Callable[..., Any], inputs: Inputs, output: str, classes: int, notes: Mapping[str, str]
) -> bytes:
    """Returns the content of an ONNX file, after a check that onnxruntime gives the same values as jax."""
    import onnxruntime

    inputs = inputs | ({"labels": ((), np.int32)} if classes else {})
    content = to_onnx(function, inputs, output, notes=notes)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    exact, drawn = jax.jit(in_float32(function)), np.random.default_rng(0)
    for count in (1, 3):
        given = {
            name: np.arange(count, dtype=np.int32) % classes if name == "labels" else _draw(drawn, count, *of)
            for name, of in inputs.items()
        }
        wanted, found = np.asarray(exact(*given.values())), np.asarray(session.run([output], given)[0])
        if not np.isfinite(wanted).all():
            raise NonFiniteError(f"{name} cannot be exported: the network has diverged.")
        error = float((np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max())
        if not error <= TOLERANCE:
            raise InvalidInputError(
                f"{name} needs to agree with jax to {TOLERANCE:g} in onnxruntime {onnxruntime.__version__}; it is "
                f"{error:.2g} away, so nothing is written. Another version of onnxruntime may work."
            )
    return content


def _draw(drawn: np.random.Generator, count: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    noise = drawn.normal(size=(count, *shape)).astype(dtype)
    return noise if len(shape) == 1 else np.tanh(noise)
