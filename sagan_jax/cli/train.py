"""`sagan-jax train`: an experiment, from its file and the flags to a trained network."""

import dataclasses
from pathlib import Path

import tyro

from sagan_jax.cli.experiments import load_experiment, names
from sagan_jax.config import Experiment

DEFAULT = "digits_32"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train an experiment, from its newest checkpoint if it was begun."""

    experiment: Experiment
    workdir: Path | None = None
    """where everything is written; runs/NAME unless given"""
    fresh: bool = False
    """throw away what an earlier run left in the workdir"""
    coordinator: str | None = None
    """host:port of process 0, for a run of several processes; not needed under SLURM, Open MPI and on TPU hosts"""
    num_processes: int | None = None
    """how many processes the run has"""
    process_id: int | None = None
    """which of them this one is, from 0"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    name, rest = DEFAULT, arguments
    if arguments and not arguments[0].startswith("-"):
        name, rest = arguments[0], arguments[1:]
    experiment = load_experiment(name)
    parsed = tyro.cli(
        Arguments,
        default=Arguments(experiment),
        args=rest,
        prog=f"sagan-jax train {name}",
        description=f"Train {name}. EXPERIMENT, the first word behind `train`, is the path of a .py file or one of "
        f"{', '.join(names())}; {DEFAULT} unless given. Every value of it can be changed by a flag.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from sagan_jax.cli import running
    from sagan_jax.training.processes import is_first, join

    join(parsed.coordinator, parsed.num_processes, parsed.process_id)
    workdir = parsed.workdir or Path("runs") / parsed.experiment.name
    running.train(parsed.experiment, workdir, fresh=parsed.fresh)
    if is_first():
        print(
            f"done: look at {workdir / 'samples'}, or draw more: sagan-jax sample --workdir {workdir} --out samples.png"
        )
