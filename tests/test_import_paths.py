"""Names of a user's classes and functions, and the objects that they name."""

import doctest
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sagan_jax import import_paths
from sagan_jax.errors import InvalidInputError
from sagan_jax.import_paths import errors_of_user_code, find_object, import_path, run_file, source_digest

pytestmark = pytest.mark.one_jax

SOURCE = """
import functools

class Layer:
    class Inner:
        pass

def double(features):
    return 2 * features

triple = functools.partial(int.__mul__, 3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_examples_of_the_module_are_right():
    failed, attempted = doctest.testmod(import_paths)
    assert attempted
    assert not failed


@pytest.mark.parametrize("name", ["Layer", "Layer.Inner", "double", "triple"])
def test_object_of_a_file_is_found_again_by_its_name(file, name):
    value = find_object(f"{file}:{name}")
    assert import_path(value) == f"{file}:{name}"
    assert find_object(import_path(value)) is value


def test_object_of_a_module_is_found_again_by_its_name():
    assert import_path(json.JSONDecoder) == "json.decoder:JSONDecoder"
    assert find_object("json.decoder:JSONDecoder") is json.JSONDecoder


def test_path_of_a_file_becomes_absolute(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert import_path("mine.py:Layer") == f"{file}:Layer"


def test_file_is_run_once_for_each_version_of_its_source(file):
    first = find_object(f"{file}:Layer")
    assert find_object(f"{file}:Layer") is first
    file.write_text(SOURCE.replace("Inner", "Other"))
    assert find_object(f"{file}:Layer.Other")
    assert find_object(f"{file}:Layer") is not first


def test_class_is_named_while_its_file_still_runs(file):
    file.write_text(SOURCE + "\nfrom sagan_jax.import_paths import import_path\nname = import_path(Layer)\n")
    assert run_file(file, "The file").name == f"{file}:Layer"


def test_script_that_names_its_own_class_is_not_run_again(tmp_path):
    (tmp_path / "script.py").write_text(
        "from sagan_jax.import_paths import find_object, import_path\n"
        "class Layer:\n    pass\n"
        "print(import_path(Layer), find_object(import_path(Layer)) is Layer)\n"
    )
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{tmp_path / 'script.py'}:Layer True\n"


def test_digest_is_that_of_the_file(file):
    assert source_digest(f"{file}:Layer") == hashlib.sha256(SOURCE.encode()).hexdigest()
    module = Path(json.decoder.__file__).read_bytes()
    assert source_digest("json.decoder:JSONDecoder") == hashlib.sha256(module).hexdigest()


def test_digest_of_a_class_in_a_script_that_names_it_is_that_of_the_script(file, monkeypatch):
    main = ModuleType("__main__")
    main.__file__ = str(file)
    exec(SOURCE, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert source_digest(f"{file}:Layer") == hashlib.sha256(SOURCE.encode()).hexdigest()


def test_digest_changes_with_the_file_that_defines_an_imported_class(tmp_path, monkeypatch):
    package = tmp_path / "package_of_layers"
    package.mkdir()
    (package / "__init__.py").write_text("from package_of_layers.layers import Layer\nlayer = Layer()\n")
    (package / "layers.py").write_text("class Layer: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before, instance = source_digest("package_of_layers:Layer"), source_digest("package_of_layers:layer")
    (package / "layers.py").write_text("class Layer: size = 2\n")
    assert source_digest("package_of_layers:Layer") != before
    assert source_digest("package_of_layers:layer") == instance


@pytest.mark.parametrize("value", [lambda features: features, json.JSONDecoder()])
def test_object_without_a_name_is_refused(value):
    with pytest.raises(InvalidInputError, match="has no name by which a saved run could find it again: give a class"):
        import_path(value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("release", "--x needs the name of an object; got 'release'. It is written module:NAME"),
        ("no_such_module:Layer", "--x no_such_module:Layer: the module 'no_such_module' could not be imported: "),
        ("absent.py:Layer", "--x absent.py:Layer: there is no file 'absent.py'."),
        ("{file}:Lajer", "{file} has no 'Lajer'. Perhaps you meant Layer."),
        ("{broken}:Layer", "{broken}' could not be read: ZeroDivisionError in line 2: division by zero."),
    ],
)
def test_name_of_nothing_is_refused_in_one_line(file, tmp_path, name, message):
    broken = tmp_path / "broken.py"
    broken.write_text("import os\n1 / 0\n")
    places = {"file": str(file), "broken": str(broken)}
    with pytest.raises(InvalidInputError) as refused:
        find_object(name.format(**places), "--x")
    assert message.format(**places) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("X = 1\nraise ValueError('planted')\n", "ValueError in line 2 of 'mine_of_a_test.py': planted."),
        ("import absent_of_a_test\n", "in line 1 of 'mine_of_a_test.py': No module named 'absent_of_a_test'."),
    ],
)
def test_module_that_is_there_and_fails_is_not_called_absent(source, message, tmp_path, monkeypatch):
    (tmp_path / "mine_of_a_test.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInputError) as refused:
        find_object("mine_of_a_test:X", "--x")
    assert str(refused.value).endswith(message)
    with pytest.raises(InvalidInputError, match=r"No module named 'absent_of_a_test'. Is its folder on PYTHONPATH\?"):
        find_object("absent_of_a_test.layers:X", "--x")


def test_code_of_a_user_that_ends_the_program_is_one_line():
    message = r"^--x: SystemExit in line \d+ of 'test_import_paths.py': 2\.$"
    with pytest.raises(InvalidInputError, match=message), errors_of_user_code("--x"):
        sys.exit(2)


def test_file_that_fails_leaves_no_module_behind(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("X = 1\nraise SystemExit('no')\n")
    before = set(sys.modules)
    with pytest.raises(InvalidInputError, match="SystemExit in line 2: no"):
        run_file(broken, "The file")
    assert set(sys.modules) == before
