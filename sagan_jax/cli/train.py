"""`sagan-jax train`: trains an experiment."""

import argparse
import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

import tyro

from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.runs.experiments import experiment_names, load_experiment

DEFAULT = "digits_32"


Kind = TypeVar("Kind", bound=AnyExperiment)


@dataclasses.dataclass(frozen=True)
class Arguments(Generic[Kind]):
    """Train an experiment. A run that was stopped is resumed from its newest checkpoint."""

    experiment: Kind
    workdir: Path | None = None
    """the folder of the run. Defaults to runs/NAME"""
    fresh: bool = False
    """remove what an earlier run left in the workdir, and start over"""
    trust_checkpoint: bool = False
    """where config.json was changed: go on with the config that the checkpoint was saved with"""
    coordinator: str | None = None
    """host:port of process 0, for a run of several processes. Not needed under SLURM, Open MPI and on TPU hosts"""
    num_processes: int | None = None
    """number of processes of the run"""
    process_id: int | None = None
    """number of this process, from 0"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: those after the name of the command.
    """
    name, rest = "", arguments
    if arguments and not arguments[0].startswith("-"):
        name, rest = arguments[0], arguments[1:]
    experiment = load_experiment(name) if name else _unnamed(rest)
    kind = type(experiment)
    parsed = tyro.cli(
        Arguments[kind],  # pyrefly: ignore[not-a-type]
        default=Arguments(experiment),
        args=rest,
        prog=f"sagan-jax train {name}".rstrip(),
        description=f"Train {experiment.name}. EXPERIMENT, the first word after `train`, is the path of a .py file or "
        f"one of {', '.join(experiment_names())}. It defaults to {DEFAULT}; with --init-from to the experiment of that "
        f"run. A flag changes a value of it.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from sagan_jax.runs.train import train
    from sagan_jax.runtime.processes import initialize_distributed, is_main_process

    initialize_distributed(parsed.coordinator, parsed.num_processes, parsed.process_id)
    workdir = parsed.workdir or Path("runs") / parsed.experiment.name
    train(parsed.experiment, workdir, fresh=parsed.fresh, trust_checkpoint=parsed.trust_checkpoint)
    if is_main_process():
        generates = isinstance(parsed.experiment, Experiment)
        more = (
            f"draw more: sagan-jax sample --workdir {workdir} --out samples.png"
            if generates
            else f"fill a hole: sagan-jax complete PHOTO --workdir {workdir} --mask MASK"
        )
        print(f"done: look at {workdir / 'samples'}, or {more}")


def _unnamed(arguments: list[str]) -> AnyExperiment:
    """Returns the experiment of a command that names none: the default, or that of the run to start from."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--init-from", "--init_from", nargs="?", default="")
    init_from = parser.parse_known_args(arguments)[0].init_from
    if not init_from:
        return load_experiment(DEFAULT)
    from sagan_jax.runs.load import require_experiment

    experiment = require_experiment(Path(init_from))
    return dataclasses.replace(experiment, name=f"{experiment.name}_tuned")
