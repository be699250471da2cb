"""Finding an experiment by name or path, and reading it."""

import contextlib
import difflib
import importlib.util
import traceback
from collections.abc import Iterator
from pathlib import Path

import sagan_jax
from sagan_jax.config import AnyExperiment
from sagan_jax.errors import InvalidInputError, one_line

_PACKAGE = Path(sagan_jax.__file__).parent
_CONTRACT = (
    "It needs a function `experiment()` without arguments that returns a sagan_jax.config.Experiment or "
    "CompletionExperiment."
)


def experiment_folders() -> list[Path]:
    """Returns where names are looked up: `experiments/` of the checkout, then the copy inside a wheel."""
    checkout = _PACKAGE.parent
    found = [checkout / "experiments"] if (checkout / "pyproject.toml").is_file() else []
    return [folder for folder in [*found, _PACKAGE / "experiments"] if folder.is_dir()]


def experiment_names() -> list[str]:
    """Returns the names of the experiments that come with the project, sorted."""
    files = [path for folder in experiment_folders() for path in folder.glob("[!_]*.py")]
    return sorted({path.stem for path in files if "def experiment(" in path.read_text(encoding="utf-8")})


def load_experiment(name: str) -> AnyExperiment:
    """Returns the config that the `experiment()` of a file returns. Reading an experiment runs its Python file.

    Args:
        name: a path that ends in `.py`, or the name of an experiment that comes with the project.

    Raises:
        InvalidInputError: there is no such file, or it cannot be read as an experiment.
    """
    path = _experiment_file(name)
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _explained(path):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "experiment", None)):
        raise InvalidInputError(f"The experiment file {str(path)!r} has no function `experiment()`. {_CONTRACT}")
    with _explained(path):
        experiment = module.experiment()
    if not isinstance(experiment, AnyExperiment):
        raise InvalidInputError(
            f"`experiment()` in {str(path)!r} returned an object of type {type(experiment).__name__}. {_CONTRACT}"
        )
    return experiment


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what an experiment file raises into one line that names the line of the file."""
    try:
        yield
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise InvalidInputError(
            f"The experiment file {str(path)!r} could not be read: {type(error).__name__}{_place(error, path)}: "
            f"{one_line(error)}."
        ) from error


def _place(error: BaseException, path: Path) -> str:
    """Returns the line at which an error left the experiment file, or at which a file could not be parsed."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f" in line {error.lineno} of {Path(error.filename or path).name!r}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.absolute())]
    return f" in line {frames[-1].lineno}" if frames else ""


def _experiment_file(name: str) -> Path:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise InvalidInputError(f"There is no experiment file {name!r}.")
        return path
    found = [folder / f"{name}.py" for folder in experiment_folders() if (folder / f"{name}.py").is_file()]
    if not found:
        names = experiment_names()
        near = difflib.get_close_matches(name, names, 1, 0.4)
        hint = f" Perhaps you meant {near[0]!r}." if near else ""
        raise InvalidInputError(
            f"There is no experiment {name!r}; there are {', '.join(names)}, or give the path of a .py file.{hint}"
        )
    return found[0]
