"""`sagan-jax plan`: the resources that an experiment needs, on devices that need not be present."""

import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

import tyro

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.config import AnyExperiment
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.experiments import experiment_names, load_experiment
from sagan_jax.runs.plan_targets import check_target
from sagan_jax.runtime.files import check_can_write

Kind = TypeVar("Kind", bound=AnyExperiment)


@dataclasses.dataclass(frozen=True)
class Arguments(Generic[Kind]):
    """Print what an experiment needs on other devices: memory, operations, collectives and time. Nothing is trained."""

    experiment: Kind
    """the values that flags can change"""
    topology: tuple[str, ...] = ()
    """TPU slices such as v5e:2x4, or GPUs with their number such as h200:8. Defaults to this machine's devices"""
    compare: tuple[str, ...] = ()
    """the same, printed as one table with a column for each"""
    largest_batch: bool = False
    """also find the largest batch that fits, to within an eighth; this compiles several programs"""
    out: Path | None = None
    """path of the result files, without the endings .json and .html. Defaults to plans/NAME"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        raise InvalidInputError(
            f"plan: EXPERIMENT, the first word, must be given: the path of a .py file or one of "
            f"{', '.join(experiment_names())}. See sagan-jax plan --help."
        )
    named = not arguments[0].startswith("-")
    experiment = load_experiment(arguments[0] if named else "imagenet_128")
    kind = type(experiment)
    parsed = parse_arguments(
        Arguments[kind],  # pyrefly: ignore[not-a-type]
        arguments[named:],
        f"sagan-jax plan {arguments[0] if named else ''}".rstrip(),
        default=Arguments(experiment),
        description=f"Print what {experiment.name} needs on other devices: memory, operations, collectives and time. "
        f"EXPERIMENT, the first word after `plan`, is the path of a .py file or one of "
        f"{', '.join(experiment_names())}. Nothing is trained, and no images are opened. TPU slices need libtpu but "
        f"no TPU: pip install 'sagan-jax[plan]'. GPUs get memory and collectives after pip install "
        f"'sagan-jax[plan-gpu]', else only operations and times.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    targets = tuple(dict.fromkeys([*parsed.topology, *parsed.compare]))
    for name in targets:
        check_target(name)
    if targets:
        from sagan_jax.runtime.topologies import prepare_environment

        prepare_environment()
    out = parsed.out or Path("plans") / parsed.experiment.name
    for kind in ("json", "html"):
        check_can_write(out.parent / f"{out.name}.{kind}")
    announce(f"planning {parsed.experiment.name}")
    from sagan_jax.runs.plan_files import print_and_write

    print_and_write(
        parsed.experiment,
        targets,
        out,
        side_by_side=bool(parsed.compare),
        find_largest_batch=parsed.largest_batch,
    )
