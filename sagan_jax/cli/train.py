"""`sagan-jax train`: an experiment, from its file and the flags to a trained network."""

import argparse
import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

import tyro

from sagan_jax.cli.experiments import load_experiment, names
from sagan_jax.config import AnyExperiment, Experiment

DEFAULT = "digits_32"


Kind = TypeVar("Kind", bound=AnyExperiment)


@dataclasses.dataclass(frozen=True)
class Arguments(Generic[Kind]):
    """Train an experiment, from its newest checkpoint if it was begun."""

    experiment: Kind
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
        description=f"Train {experiment.name}. EXPERIMENT, the first word behind `train`, is the path of a .py file or "
        f"one of {', '.join(names())}; {DEFAULT} unless given, or with --init-from what that run was. A flag changes a "
        f"value of it.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from sagan_jax.cli import running
    from sagan_jax.runtime.processes import is_first, join

    join(parsed.coordinator, parsed.num_processes, parsed.process_id)
    workdir = parsed.workdir or Path("runs") / parsed.experiment.name
    running.train(parsed.experiment, workdir, fresh=parsed.fresh)
    if is_first():
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
    from sagan_jax.cli.checks import require_experiment

    experiment = require_experiment(Path(init_from))
    return dataclasses.replace(experiment, name=f"{experiment.name}_tuned")
