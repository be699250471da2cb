"""What `import sagan_jax` offers: every promised name is there, typed, and nothing is loaded before it is used."""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sagan_jax
from support.paths import ROOT

SUBPACKAGES = [module.name for module in pkgutil.iter_modules(sagan_jax.__path__) if module.ispkg]
PACKAGES = ["sagan_jax", *(f"sagan_jax.{package}" for package in SUBPACKAGES)]
# Their modules are imported one by one, and their packages load nothing.
PACKAGES_OF_MODULES = ["sagan_jax.cli", "sagan_jax.runs", "sagan_jax.runtime", "sagan_jax.views"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_all_can_be_imported(package):
    names = importlib.import_module(package).__all__
    imported = {}
    exec(f"from {package} import *", imported)
    assert names
    assert [name for name in names if imported.get(name) is None] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_nothing_twice(package):
    names = importlib.import_module(package).__all__
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("package", PACKAGES_OF_MODULES)
def test_package_of_modules_names_all_of_them(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(found.name for found in pkgutil.iter_modules(module.__path__))


PROMISED = ["functional", "models", "training", "data", "evaluation", "interop", "errors", "train", "load_run"]
PROMISED += ["load_completer", "evaluate", "Experiment", "CompletionExperiment", "Data", "Networks", "Training"]
PROMISED += ["Recording", "Evaluation", "CompletionNetworks", "CompletionTraining", "open_run", "open_completion_run"]
PROMISED += ["load_pretrained", "Pretrained", "Callback", "RunStart"]


@pytest.mark.slow
@pytest.mark.one_jax
def test_promised_names_are_in_a_fresh_package():
    program = f"import sagan_jax; print(*(name for name in {PROMISED} if getattr(sagan_jax, name, None) is None))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
    assert set(PROMISED) <= set(dir(sagan_jax))


def test_dir_lists_public_names_only():
    assert dir(sagan_jax) == sorted(sagan_jax.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sagan_jax' has no attribute 'trian'"):
        sagan_jax.trian  # noqa: B018  the access is the test


@pytest.mark.parametrize("function", ["train", "evaluate", "load_run", "load_completer", "load_pretrained", "open_run"])
def test_function_has_typed_arguments_and_no_catch_all(function):
    parameters = inspect.signature(getattr(sagan_jax, function)).parameters.values()
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
    assert all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters)


HEAVY = ["jax", "numpy", "flax", "optax", "orbax", "grain", "tyro", "PIL"]


def modules_loaded_by(statement: str) -> set[str]:
    """Returns those of HEAVY that a fresh interpreter has loaded after `statement`."""
    program = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_package_loads_no_library():
    assert modules_loaded_by("import sagan_jax") == set()


def test_functional_loads_no_library_but_jax_numpy_and_chex():
    assert modules_loaded_by("import sagan_jax.functional") == {"jax", "numpy"}


def test_config_loads_no_library():
    assert modules_loaded_by("import sagan_jax; sagan_jax.Experiment()") == set()


def test_loaded_modules_include_a_planted_import():
    assert modules_loaded_by("import sagan_jax.functional, PIL") == {"jax", "numpy", "PIL"}


USER = """\
from typing import assert_type

import sagan_jax
from sagan_jax.evaluation import TrainedCompleter, TrainedGenerator
from sagan_jax.functional import self_attention

assert_type(sagan_jax.train(sagan_jax.Experiment(), "a"), TrainedGenerator)
assert_type(sagan_jax.train(sagan_jax.CompletionExperiment(), "b"), TrainedCompleter)
assert_type(sagan_jax.evaluate("a", "fid50k_train", seed=3), dict[str, float])
assert_type(sagan_jax.open_run("a").generator(), TrainedGenerator)
assert_type(sagan_jax.load_run("a", checkpoint="best"), TrainedGenerator)
sagan_jax.train("digits_32", "a")  # wrong
sagan_jax.trian  # wrong
sagan_jax.evaluate("a", sed=3)  # wrong
sagan_jax.load_run("a", checkpoint="oldest")  # wrong
sagan_jax.functional.self_atention  # wrong
"""
WRONG = {number for number, line in enumerate(USER.splitlines(), start=1) if line.endswith("# wrong")}


@pytest.fixture
def user_file(tmp_path):
    """A file of a user, in a folder of its own, with the settings that a type checker has by default."""
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "pyrefly.toml").write_text('project-includes = ["user.py"]\n')
    return tmp_path / "user.py"


def checked(user_file: Path, *command: str) -> dict:
    program = Path(sys.executable).with_name(command[0])
    if not program.exists():
        message = f"needs {command[0]}, which is in the extra `dev`"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    answer = subprocess.run([program, *command[1:]], cwd=user_file.parent, capture_output=True, text=True)
    return json.loads(answer.stdout)


@pytest.mark.one_jax
def test_pyrefly_sees_the_types_from_a_users_file(user_file):
    flags = "--output-format", "json", "--python-interpreter-path", sys.executable
    found = checked(user_file, "pyrefly", "check", *flags)
    assert {error["line"] for error in found["errors"] if error["severity"] == "error"} == WRONG


@pytest.mark.slow
@pytest.mark.one_jax
def test_pyright_sees_the_types_from_a_users_file(user_file):
    found = checked(user_file, "basedpyright", "--outputjson", "--pythonpath", sys.executable, "user.py")
    errors = [entry for entry in found["generalDiagnostics"] if entry["severity"] == "error"]
    assert {entry["range"]["start"]["line"] + 1 for entry in errors} == WRONG


def test_package_promises_its_types():
    assert (ROOT / "sagan_jax" / "py.typed").is_file()
