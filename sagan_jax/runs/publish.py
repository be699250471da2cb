"""Publishes a run as a folder in the layout of the Hugging Face hub."""

import json
import re
from pathlib import Path

import jax

from sagan_jax.errors import InvalidInputError, NonFiniteError, one_line
from sagan_jax.interop.weight_files import to_safetensors
from sagan_jax.runs.export import check_readme, checked_folder
from sagan_jax.runs.load import CheckpointName, CompletionRun, GenerationRun, open_any_run
from sagan_jax.runs.model_card import model_card, scores_on_record
from sagan_jax.runs.published import CARD, CONFIG, PICTURE, WEIGHTS, arrays_of, published, read_published
from sagan_jax.runs.samples import sample_grid
from sagan_jax.runtime.files import write_files_atomically
from sagan_jax.runtime.image_files import encode_png

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def publish_run(
    workdir: str | Path,
    out: str | Path | None = None,
    *,
    checkpoint: CheckpointName = "newest",
    license: str = "",
    trust_checkpoint: bool = False,
) -> list[Path]:
    """Writes the networks of a run in the layout of the hub, all files or none, and returns their paths.

    `model.safetensors` has the weights as trained, their moving average, and the discriminator; see
    `sagan_jax.runs.published.arrays_of`. `config.json` has the config, without folders of this machine. `README.md` is
    the model card. `samples.png` is drawn from fixed latents; a run that completes images has none, because it would
    show photographs. A user's own code is named but not copied.

    Args:
        workdir: the folder of a run with a checkpoint.
        out: a folder; files of an earlier call are replaced. Defaults to `hub` in the workdir.
        checkpoint: `newest`, `best` (the best score of a run that was scored while it trained), or the step of a
            checkpoint.
        license: the license's identifier on the hub, such as `apache-2.0`. Defaults to none.
        trust_checkpoint: as for `open_run`.

    Raises:
        InvalidInputError: there is no run or no whole checkpoint in it, `out` is not a folder or holds a config.json
            of another origin, or `license` is not an identifier.
        NonFiniteError: the weights are not finite.
        StorageError: a file cannot be written.
    """
    if license and not _LICENSE.fullmatch(license):
        raise InvalidInputError(f"--license needs an identifier of the hub, such as apache-2.0; got {license!r}.")
    folder = checked_folder(workdir, out, "hub")
    _check_not_of_another(folder)
    check_readme(folder, WEIGHTS)
    run = open_any_run(workdir, checkpoint=checkpoint, trust_checkpoint=trust_checkpoint)
    files = published_files(run, license)
    write_files_atomically(folder, files)
    return [folder / file for file in files]


def _check_not_of_another(folder: Path) -> None:
    """Raises InvalidInputError if `config.json` in a folder was not written by an earlier call, as in a workdir."""
    if not (folder / CONFIG).exists():
        return
    try:
        read_published(folder)
    except InvalidInputError as error:
        raise InvalidInputError(f"--out needs a folder in which no other file is replaced: {error}") from error


def published_files(run: GenerationRun | CompletionRun, license: str = "") -> dict[str, bytes]:
    """Returns names and contents of the files; see `publish_run`.

    Raises:
        InvalidInputError: there is no whole checkpoint.
        NonFiniteError: the weights are not finite.
    """
    state, has_discriminator = run.state, isinstance(run, GenerationRun) and run.has_discriminator
    facts = published(run.experiment, int(state.step), has_discriminator)
    try:
        weights = to_safetensors(arrays := arrays_of(state, has_discriminator), {"format": "flax"})
    except ValueError as error:
        raise NonFiniteError(f"The networks have diverged: {one_line(error)}.") from error
    counted: dict[str, int] = {}
    for name, array in arrays.items():
        network, kind, *_ = name.split("/")
        if kind == "params":
            counted[network] = counted.get(network, 0) + array.size
    card = model_card(
        facts,
        license=license,
        parameters=counted,
        scores=scores_on_record(run.workdir, facts.step),
        average=bool(jax.tree.leaves(state.average)),
    )
    files = {WEIGHTS: weights, CONFIG: (json.dumps(facts.content(), indent=2) + "\n").encode(), CARD: card.encode()}
    if isinstance(run, GenerationRun):
        files[PICTURE] = encode_png(sample_grid(run.generator()))
    return files
