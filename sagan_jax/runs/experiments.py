"""Finds an experiment by name or path, and reads it."""

import difflib
from pathlib import Path

import sagan_jax
from sagan_jax.config import AnyExperiment
from sagan_jax.errors import InvalidInputError
from sagan_jax.import_paths import explained, run_file

_PACKAGE = Path(sagan_jax.__file__).parent
_CONTRACT = (
    "It needs a function `experiment()` without arguments that returns a sagan_jax.config.Experiment or "
    "CompletionExperiment."
)


def experiment_folders() -> list[Path]:
    """Returns the folders in which names are looked up: `experiments/` of a checkout, then the copy in a wheel."""
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
    module = run_file(path, "The experiment file")
    if not callable(getattr(module, "experiment", None)):
        raise InvalidInputError(f"The experiment file {str(path)!r} has no function `experiment()`. {_CONTRACT}")
    with explained(path, "The experiment file"):
        experiment = module.experiment()
    if not isinstance(experiment, AnyExperiment):
        raise InvalidInputError(
            f"`experiment()` in {str(path)!r} returned an object of type {type(experiment).__name__}. {_CONTRACT}"
        )
    return experiment


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
