"""`sagan-jax train`: trains an experiment."""

import dataclasses
import os
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.config import AnyExperiment, Experiment
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.experiments import experiment_names, load_experiment

DEFAULT = "digits_32"


Kind = TypeVar("Kind", bound=AnyExperiment)


@dataclasses.dataclass(frozen=True)
class Arguments(Generic[Kind]):
    """Train an experiment. A run that was stopped is resumed from its newest checkpoint."""

    experiment: Kind
    """the values that flags can change"""
    workdir: Path | None = None
    """the folder of the run. Defaults to runs/NAME. An existing run is resumed with its own config"""
    fresh: bool = False
    """remove what an earlier run left in the workdir, and start over: with EXPERIMENT or --init-from if given, else
    with the config of that run"""
    dry_run: bool = False
    """check everything and print what would be trained and the memory that a step needs; train nothing"""
    trust_checkpoint: bool = False
    """if config.json was changed, resume with the config that is stored in the checkpoint"""
    profile_steps: str = ""
    """first and last step of a jax profiler trace, such as 10:15. The trace is written to WORKDIR/profile"""
    coordinator: str | None = None
    """host:port of process 0, for a run of several processes. Not needed under SLURM, Open MPI and on TPU hosts"""
    num_processes: int | None = None
    """number of processes of the run"""
    process_id: int | None = None
    """number of this process, from 0"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    name, rest = "", arguments
    if arguments and not arguments[0].startswith("-"):
        name, rest = arguments[0], arguments[1:]
    experiment, remarks = _experiment(name, _read_early(rest))
    kind = type(experiment)
    parsed = parse_arguments(
        Arguments[kind],  # pyrefly: ignore[not-a-type]
        rest,
        f"sagan-jax train {name}".rstrip(),
        hint=lambda word: "" if name else _misplaced_experiment(word),
        default=Arguments(experiment),
        description=f"Train {experiment.name}. EXPERIMENT, the first word after `train`, is the path of a .py file or "
        f"one of {', '.join(experiment_names())}. It defaults to {DEFAULT}; with --init-from to the experiment of that "
        f"run. A flag changes a value of it. If the workdir holds a run already, it is resumed with its own config, "
        f"and flags change that: EXPERIMENT and the flags of its start need not be given again.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    # These flags take all words that follow, because objects of a user may have any name.
    for flag in ("--augmentation", "--callbacks"):
        taken = " ".join(rest).partition(f"{flag} ")[2].partition(" --")[0]
        if not name and (hint := _misplaced_experiment(taken)):
            raise InvalidInputError(f"train: {taken.split()[-1]!r} is not expected here.{hint}")
    announce(f"training {parsed.experiment.name}", compilation_cache=parsed.compilation_cache)
    from sagan_jax.runs.dry_run import dry_run
    from sagan_jax.runs.train import train_to_the_end
    from sagan_jax.runs.unread_fields import without_unread
    from sagan_jax.runtime.processes import initialize_distributed, is_main_process

    initialize_distributed(parsed.coordinator, parsed.num_processes, parsed.process_id)
    workdir = parsed.workdir or Path("runs") / parsed.experiment.name
    if is_main_process():
        for line in remarks:
            print(line, flush=True)
    how: Any = {name: getattr(parsed, name) for name in ("fresh", "trust_checkpoint", "profile_steps")}
    wanted = without_unread(parsed.experiment, experiment)
    if parsed.dry_run:
        dry_run(wanted, workdir, **how)
        return
    train_to_the_end(wanted, workdir, **how)
    if is_main_process():
        generates, folder = isinstance(parsed.experiment, Experiment), shlex.quote(str(workdir))
        more = (
            f"draw more: sagan-jax sample --workdir {folder} --out samples.png"
            if generates
            else f"fill a hole: sagan-jax complete PHOTO --workdir {folder} --mask MASK"
        )
        print(f"done: look at {workdir / 'samples'}, or {more}")


@dataclasses.dataclass
class _Early:
    """The flags that decide which config the others change."""

    workdir: str = ""
    init_from: str = ""
    name: str = ""
    fresh: bool = False
    trust_checkpoint: bool = False


def _read_early(arguments: Sequence[str]) -> _Early:
    """Returns the flags of `_Early`, read before the others can be parsed."""
    early = _Early()
    for word, following in pairwise([*arguments, ""]):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if flag in ("--fresh", "--no-fresh"):
            early.fresh = flag == "--fresh"
        elif name in ("trust_checkpoint", "no_trust_checkpoint"):
            early.trust_checkpoint = name == "trust_checkpoint"
        elif flag.startswith("--") and name in ("workdir", "init_from", "name"):
            setattr(early, name, value if equals else following)
    return early


def _experiment(name: str, early: _Early) -> tuple[AnyExperiment, list[str]]:
    """Returns the config that the flags change, and remarks. It is the config of the run in the workdir, or a new one.

    Args:
        name: the name of the experiment in the command, or "".
        early: the flags that `_read_early` returns.
    """
    named = load_experiment(name) if name else None
    starts_over = early.fresh and bool(named or early.init_from)
    if early.workdir:
        workdir = Path(early.workdir)
    else:
        workdir = Path("runs") / (early.name or (named or _unnamed(early.init_from)).name)
    if starts_over or not _holds_run(workdir):
        return named or _unnamed(early.init_from), []
    # The --init-from of the run is not opened, because that folder may be gone by now.
    from sagan_jax.runs.resume import resumed_experiment

    return resumed_experiment(workdir, named, early.name, trust_checkpoint=early.trust_checkpoint)


def _holds_run(workdir: Path) -> bool:
    return os.path.isfile(workdir / "config.json")  # noqa: PTH113  False where the folder may not be read


def _unnamed(init_from: str) -> AnyExperiment:
    """Returns the experiment of a command that names none: the default, or the experiment of the run to start from."""
    if not init_from:
        return load_experiment(DEFAULT)
    from sagan_jax.runs.load import require_experiment

    experiment = require_experiment(Path(init_from))
    return dataclasses.replace(experiment, name=f"{experiment.name}_tuned")


def _misplaced_experiment(text: str) -> str:
    """Returns a hint if a text that no flag takes contains the name of an experiment; else ""."""
    found = [word for word in re.findall(r"[^\s'\[\],]+", text) if word.endswith(".py") or word in experiment_names()]
    return f" EXPERIMENT comes before the flags: sagan-jax train {shlex.quote(found[-1])} ..." if found else ""
