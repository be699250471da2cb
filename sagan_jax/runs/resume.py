"""Whether a run may be resumed: with the same config, on the same images; and starting over."""

import shutil
from pathlib import Path

from sagan_jax.config import AnyExperiment, Experiment, Networks, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.best_checkpoint import SET_ASIDE
from sagan_jax.runs.load import require_experiment
from sagan_jax.runs.saved_config import MAY_CHANGE, differences, read_experiment

# The fields that decide the shapes of the layers that two runs can share.
_SIZES = ("family", "resolution", "base_channels", "discriminator_base_channels", "image_channels", "latent_size")
_SIZES += ("shared_size", "hierarchical")

_FOLDERS = ("checkpoints", "best", "samples", "attention", "scores", "tensorboard")
_FILES = ("metrics.jsonl", "config.json", "environment.json", "report.html")


def check_same_run(workdir: Path, experiment: AnyExperiment, *, trust_checkpoint: bool = False) -> None:
    """Raises InvalidInputError when the run in `workdir` was started with another config.

    Args:
        workdir: of the run; it need not exist.
        experiment: the config to go on with.
        trust_checkpoint: compare with the config of the checkpoint, not with `config.json`.
    """
    saved = read_experiment(workdir, trust_checkpoint=trust_checkpoint)
    if saved is None:
        return
    may_change = MAY_CHANGE
    if not isinstance(experiment, Experiment) and experiment.training.total_steps < saved.training.total_steps:
        # The learning rate of a completion falls until the last step, which may be moved on but not back.
        may_change = tuple(name for name in MAY_CHANGE if name != "training.total_steps")
    changed = [line for line in differences(to_dict(saved), to_dict(experiment)) if not line.startswith(may_change)]
    if changed:
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was started with another config ({'; '.join(changed)}): "
            f"give the same, another --workdir, or --fresh to start over."
        )


def check_same_data(workdir: Path, saved: str | None, found: str) -> None:
    """Raises InvalidInputError when the fingerprint of the images differs from that of the saved run.

    With other images the order of the data would not continue.
    """
    if saved not in (None, found):
        raise InvalidInputError(
            f"The run in {str(workdir)!r} was trained on other images than --source holds now: bring those back, or "
            f"give another --workdir, or --fresh to start over."
        )


def check_same_sizes(workdir: Path, networks: Networks) -> None:
    """Raises InvalidInputError unless the run in `workdir` has networks of the same family and sizes."""
    theirs = require_experiment(workdir).networks
    for name in _SIZES:
        wanted, got = getattr(networks, name), getattr(theirs, name)
        if wanted != got:
            raise InvalidInputError(
                f"--init-from needs a run with the same --{name.replace('_', '-')}, which is {wanted} here; in "
                f"{str(workdir)!r} it is {got}. Without EXPERIMENT, its networks are taken as they are."
            )


def remove_run(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    set_aside = [path for why in SET_ASIDE for path in workdir.glob(f"best.{why}*")]
    for path in [*(workdir / name for name in _FOLDERS), *set_aside]:
        shutil.rmtree(path, ignore_errors=True)
    for name in _FILES:
        (workdir / name).unlink(missing_ok=True)
