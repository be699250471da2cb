"""The model card of a published run: the page that the Hugging Face hub shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from sagan_jax import __version__
from sagan_jax.config import CompletionExperiment, Experiment, holds_objects
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.own_objects import without_folder
from sagan_jax.runs.published import CONFIG, LIBRARY, PICTURE, WEIGHTS, Published, needed_objects
from sagan_jax.runtime.files import read_json


def scores_on_record(workdir: Path, step: int) -> list[tuple[str, float, str]]:
    """Returns the scores of a step in `scores/` of a workdir: name, value, and notes on how it was measured.

    A file that cannot be read is left out.

    Args:
        workdir: the folder of the run.
        step: the step of the checkpoint.
    """
    found = []
    for path in sorted((workdir / "scores").glob(f"*-{step:08d}.json")):
        try:
            result = read_json(path)
        except (OSError, InvalidInputError):
            continue
        values = result.get("values") if isinstance(result, dict) else None
        if isinstance(values, dict):
            said = ". ".join(_said(result[key]) for key in ("reference", "embedding", "warning") if result.get(key))
            found += [(str(name), value, said) for name, value in values.items() if isinstance(value, int | float)]
    return found


def _said(entry: Any) -> str:
    """Returns an entry of a result file as words. A dictionary gives its values, without the fingerprint."""
    if isinstance(entry, dict):
        return ", ".join(str(entry[name]) for name in entry if name != "fingerprint")
    return str(entry)


def model_card(
    published: Published,
    *,
    license: str,
    parameters: Mapping[str, int],
    scores: Sequence[tuple[str, float, str]],
    average: bool,
) -> str:
    """Returns the page. It starts with the metadata that the hub reads.

    Args:
        published: the published run.
        license: the identifier of its license on the hub, such as `apache-2.0`; "" for none.
        parameters: the number of parameters of each network.
        scores: as `scores_on_record` returns them.
        average: whether the weights have a moving average.
    """
    experiment = published.experiment
    completes = isinstance(experiment, CompletionExperiment)
    kind = "completion" if completes else _kind(experiment)
    size, data = experiment.networks.resolution, experiment.data.source
    data = without_folder(data) if holds_objects("source", data) else data
    trained = f"It was trained for {published.step:,} steps{f' on `{data}`' if data else ''}."
    counts = ", ".join(f"{count:,} parameters in the {network}" for network, count in parameters.items())
    picture = "" if completes else f"\n![Samples of fixed latents]({PICTURE})\n"
    weights = "as trained, and their moving average" if average else "as trained; the run kept no moving average"
    return f"""\
{_front_matter(license, kind)}
# {experiment.name}

{_what(experiment, kind)} It works at {size} x {size} pixels. {trained}
Written by `sagan-jax export --format hub` of sagan_jax {__version__} with jax {jax.__version__}.
{picture}
## Use

{_use(experiment)}
{_own_objects(published)}
## Scores

{_table(scores)}

## Files

| file | what |
|---|---|
| `{WEIGHTS}` | the weights {weights}: {counts}; float32, with batch statistics and spectral vectors |
| `{CONFIG}` | the config of the run |

The license is {f"`{license}`" if license else "not stated"}.
"""


def _front_matter(license: str, kind: str) -> str:
    tags = ["jax", "flax", "image-inpainting" if kind == "completion" else "gan", kind]
    lines = [f"license: {license}"] if license else []
    lines += [f"library_name: {LIBRARY}", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _kind(experiment: Experiment) -> str:
    return "custom-networks" if experiment.networks.modules else experiment.networks.family


def _what(experiment: Any, kind: str) -> str:
    """Returns a sentence on what the networks do."""
    if kind == "completion":
        return "A network that fills holes in images."
    classes = experiment.networks.num_classes
    of_classes = f"of {classes} classes" if classes else "without classes"
    return f"Generator and discriminator for images {of_classes} ({kind})."


def _use(experiment: Any) -> str:
    """Returns the code that loads the networks."""
    trust = ", trust_code=True" if needed_objects(experiment) else ""
    networks = experiment.networks
    shape = f"[4, {networks.resolution}, {networks.resolution}, {networks.image_channels}]"
    draws = f"images = networks.generator().generate(4).images  # {shape} uint8"
    fills = f"completed = networks.completer().complete(images, masks)  # {shape} uint8, [4, H, W] bool"
    return f"""\
```python
import sagan_jax

networks = sagan_jax.load_pretrained("."{trust})  # this folder, or OWNER/NAME on the hub; raw=True: as trained
{fills if isinstance(experiment, CompletionExperiment) else draws}
```"""


def _own_objects(published: Published) -> str:
    """Returns a section on the author's own source files that loading needs, or ""."""
    names = needed_objects(published.experiment)
    if not names:
        return ""
    rows = "\n".join(f"| `{name}` | `{published.sources.get(name, '')}` |" for name in names)
    return f"""
## Source that is needed

The networks are made by code of the author's own, which is not in this folder. Put the file into the current folder,
or install the module. `trust_code=True` allows it to be run.

| object | sha256 of its source |
|---|---|
{rows}
"""


def _table(scores: Sequence[tuple[str, float, str]]) -> str:
    """Returns the table of the scores, or a sentence if there are none."""
    if not scores:
        return "None of this step were on record."
    rows = [f"| `{_cell(name)}` | {value:.5g} | {_cell(said)} |" for name, value, said in scores]
    return "\n".join(["| score | value | measured with |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
