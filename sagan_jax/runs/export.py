"""Exports a generator: its weights, a serialised function, and a README on how to load them."""

import dataclasses
import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from sagan_jax import __version__
from sagan_jax.errors import InvalidInputError, NonFiniteError, one_line
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.import_paths import errors_of_user_code, import_path
from sagan_jax.interop.jax_export import PLATFORMS, to_jax_export
from sagan_jax.interop.weight_files import to_safetensors
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.runs.contracts import is_own, runs_own_code
from sagan_jax.runs.load import CheckpointName, open_run
from sagan_jax.runtime.files import check_can_write, write_files_atomically

WEIGHTS, FUNCTION, README = "generator.safetensors", "generator.jax_export", "README.md"
# Fields of a generator that have no effect once it is trained and folded.
_TRAINING_FIELDS = {"norm_epsilon", "norm_decay", "final_norm_decay", "axis_name", "initializer"}


def export_run(
    workdir: str | Path,
    out: str | Path | None = None,
    *,
    checkpoint: CheckpointName = "newest",
    raw: bool = False,
    trust_checkpoint: bool = False,
) -> list[Path]:
    """Writes the files of `exported_files` for a run, all or none, and returns their paths.

    Args:
        workdir: the folder of a run with a checkpoint.
        out: a folder. Defaults to `export` in the workdir.
        checkpoint: `newest`, `best` (the best score of a run that was scored while it trained), or the step of a
            checkpoint.
        raw: use the weights as trained, even where there is a moving average.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: there is no run or no whole checkpoint in it, `out` is not a folder, or flatbuffers is
            missing.
        NonFiniteError: the weights are not finite.
        StorageError: a file cannot be written.
    """
    folder = checked_folder(workdir, out, "export")
    check_readme(folder, WEIGHTS)
    run = open_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    files = exported_files(run.generator(raw=raw), run.experiment.name)
    write_files_atomically(folder, files)
    return [folder / file for file in files]


def checked_folder(workdir: str | Path, out: str | Path | None, default: str) -> Path:
    """Returns the folder to write to, by default the folder `default` in the workdir.

    Raises:
        InvalidInputError: the folder is a file, or its path goes through a file.
        StorageError: there is no write permission.
    """
    folder = Path(out) if out is not None else Path(workdir) / default
    lowest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not lowest.is_dir():
        raise InvalidInputError(f"--out needs a folder; got {str(folder)!r}, where {str(lowest)!r} is a file.")
    if Path(workdir).is_dir():  # else the next error is that there is no such run
        check_can_write(folder / README)
    return folder


def check_readme(folder: Path, weights: str) -> None:
    """Raises InvalidInputError if a folder has a README.md without these weights, such as that of a project."""
    if (folder / README).exists() and not (folder / weights).exists():
        raise InvalidInputError(
            f"--out needs a folder in which no other file is replaced; {str(folder)!r} has another {README}."
        )


def exported_files(trained: TrainedGenerator, name: str) -> dict[str, bytes]:
    """Returns names and contents of the files of an exported generator.

    Args:
        trained: a generator that normalises with stored statistics.
        name: the name of the run, for README.md.

    Returns:
        `generator.safetensors`: the folded parameters, float32, by names such as `block_1/conv_1/kernel`. Its metadata
        has `family`, `generator` (the module's fields as JSON), `latent_size`, `num_classes`, `step` and `weights`.
        `generator.jax_export`: see `to_jax_export`. `README.md`: how to load each file, in ten lines.

    Raises:
        InvalidInputError: flatbuffers is missing.
        NonFiniteError: the weights are not finite.
    """
    generator, variables = folded(trained)
    params = variables["params"] if len(variables) == 1 else variables
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in flatten_dict(params, sep="/").items()}
    notes = {
        "sagan_jax": __version__,
        "run": name,
        "family": type(generator).__name__ if is_own(generator) else type(generator).__module__.rpartition(".")[2],
        "generator": json.dumps(_fields(generator), default=_path_or_text),
        "latent_size": str(trained.latent_size),
        "num_classes": str(trained.num_classes),
        "step": str(trained.step),
        "weights": "moving average" if trained.averaged else "as trained",
    }
    try:
        weights = to_safetensors(arrays, notes)
    except ValueError as error:
        raise NonFiniteError(f"The generator has diverged: {one_line(error)}.") from error
    own = errors_of_user_code(
        "The generator could not be exported for any b, the shape[0] of latents and features that len() cannot tell"
    )
    with own if runs_own_code(generator) else nullcontext():
        function = to_jax_export(generator, variables, trained.latent_size, num_classes=trained.num_classes)
    parameters = sum(array.size for array in arrays.values())
    whats = {
        FUNCTION: (f"the function, for {', '.join(PLATFORMS)}", function),
        WEIGHTS: (f"its {parameters:,} parameters, float32, with notes on them", weights),
    }
    rows = [f"| `{file}` | {what} | `{hashlib.sha256(of).hexdigest()}` |" for file, (what, of) in whats.items()]
    readme = _readme(trained, generator, notes, rows)
    return {WEIGHTS: weights, FUNCTION: function, README: readme.encode()}


def folded(trained: TrainedGenerator) -> tuple[Any, dict[str, Any]]:
    """Returns the module and its variables. For our modules, the running moments are folded into the parameters."""
    generator: Any = trained.generator
    if is_own(generator):
        return generator, {name: tree for name, tree in trained.variables.items() if tree}
    generator = generator.clone(folded=True)
    params, moments = trained.variables["params"], trained.variables["batch_stats"]
    return generator, {"params": fold_batch_stats(params, moments, epsilon=generator.norm_epsilon)}


def _fields(generator: Any) -> dict[str, Any]:
    """Returns the constructor arguments of the module."""
    fields = [field.name for field in dataclasses.fields(generator) if field.name not in ("parent", "name")]
    return {name: getattr(generator, name) for name in fields}


def _construction(generator: Any) -> str:
    """Returns Python code that constructs the module, with the relevant fields that differ from their defaults."""
    default = _fields(type(generator)())
    given = [
        f"{name}={_expression(value)}"
        for name, value in _fields(generator).items()
        if name not in _TRAINING_FIELDS and value != default[name]
    ]
    line = f"Generator({', '.join(given)})"
    return line if len(line) <= 106 else f"Generator(\n    {', '.join(given)})"


def _path_or_text(value: Any) -> str:
    """Returns a text for a value that has no JSON type: its import path, or else its `repr`."""
    try:
        return import_path(value)
    except InvalidInputError:
        return repr(value)


def _expression(value: Any) -> str:
    """Returns a Python expression for the value of a field."""
    if callable(value):
        return f"find_object({json.dumps(import_path(value))})"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _readme(trained: TrainedGenerator, generator: Any, notes: dict[str, str], rows: list[str]) -> str:
    """Returns the content of README.md; `rows` are the rows of the table of files."""
    classes = trained.num_classes
    shape = jax.eval_shape(
        lambda latents, labels: trained.generator.apply(trained.variables, latents, labels, train=False),
        jax.ShapeDtypeStruct((1, trained.latent_size), np.float32),
        jax.ShapeDtypeStruct((1,), np.int32),
    ).shape
    of_classes = f"in [0, {classes})" if classes else "(not read: it has no classes)"
    asked = f"np.arange(4, dtype=np.int32) % {classes}" if classes else "np.zeros(4, np.int32)  # not read"
    inputs = f"""\
latents = np.random.default_rng(0).normal(size=(4, {trained.latent_size})).astype(np.float32)
labels = {asked}"""
    folded = "spectral norm" if is_own(generator) else "spectral norm and statistics"
    outside = f" A label outside [0, {classes}) gives a grey image: zeros." if classes else ""
    table = "\n".join(rows)
    return f"""\
# The generator of {notes["run"]}

A {notes["family"]} after {trained.step:,} steps ({notes["weights"]}), with {folded} folded in:
latents `[b, {trained.latent_size}]` float32, drawn from N(0, 1), and labels `[b]` int32 {of_classes}
to images `[b, {", ".join(map(str, shape[1:]))}]` float32 in [-1, 1], for any b.
Written by `sagan-jax export` of sagan_jax {__version__} with jax {jax.__version__}.

| file | what | sha256 |
|---|---|---|
{table}

## The function, without sagan_jax

It needs `pip install jax flatbuffers` and nothing else.{outside} jax {jax.__version__} wrote it, and jax promises to
read it with versions up to six months newer or three weeks older (https://docs.jax.dev/en/latest/export/export.html).
Where an older one cannot, install jax {jax.__version__}. The weights below have no such date.

```python
from pathlib import Path
import jax
import numpy as np
from jax import export

print("written by jax {jax.__version__}, read by jax", jax.__version__)
generate = jax.jit(export.deserialize(bytearray(Path("{FUNCTION}").read_bytes())).call)
{inputs}
images = generate(latents, labels)
pixels = np.rint((np.asarray(images) + 1) * 127.5).astype(np.uint8)
```

{_weights_section(generator, inputs)}"""


def _weights_section(generator: Any, inputs: str) -> str:
    """Returns the README section on loading the weights, with a module of this package or with the user's own."""
    if is_own(generator):
        return f"""\
## The weights, with your module

`generator` is the {type(generator).__name__} that was trained, of a file of yours.

<!-- not run: it needs that file -->
```python
from flax.traverse_util import unflatten_dict
from sagan_jax.interop.weight_files import read_arrays

found = unflatten_dict(read_arrays("{WEIGHTS}").arrays, sep="/")
variables = found if "params" in found else {{"params": found}}
images = generator.apply(variables, latents, labels, train=False)
```
"""
    construction = _construction(generator)
    finds = "from sagan_jax.import_paths import find_object\n" if "find_object(" in construction else ""
    return f"""\
## The weights, with sagan_jax

```python
import numpy as np
from flax.traverse_util import unflatten_dict
{finds}from sagan_jax.interop.weight_files import read_arrays
from {type(generator).__module__} import Generator

generator = {construction}
params = unflatten_dict(read_arrays("{WEIGHTS}").arrays, sep="/")
{inputs}
images = generator.apply({{"params": params}}, latents, labels, train=False)
```
"""
