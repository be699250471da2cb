import doctest
import importlib
import inspect
import pkgutil

import pytest

from sagan_jax import functional

MODULES = [f"{functional.__name__}.{module.name}" for module in pkgutil.iter_modules(functional.__path__)]
FUNCTIONS = [name for name in functional.__all__ if inspect.isfunction(getattr(functional, name))]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_of_a_module_hold(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_of_a_function_has_arguments_result_and_example(name):
    docstring = inspect.getdoc(getattr(functional, name)) or ""
    assert docstring.startswith("Returns ")
    assert [part for part in ("\nArgs:\n", "\nReturns:\n", "\nExamples:\n    >>> ") if part not in docstring] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_of_a_function_explains_each_argument(name):
    function = getattr(functional, name)
    _, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section, _, _ = rest.partition("\nReturns:\n")
    explained = [line.strip().split(":")[0] for line in section.splitlines() if line[:4] == "    " != line[4:8]]
    assert explained == list(inspect.signature(function).parameters)


def test_functional_exports_every_public_function_of_its_modules():
    # The shape checks and the call of cuDNN are tools of the package, not equations.
    modules = [name for name in MODULES if not name.endswith((".shape_checks", ".fused_attention"))]
    defined = {
        name
        for module in map(importlib.import_module, modules)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert defined == set(FUNCTIONS)
