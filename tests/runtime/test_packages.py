"""Whether an optional package is installed."""

import importlib.util

import pytest

from sagan_jax.runtime.packages import is_installed

pytestmark = pytest.mark.one_jax


def test_folder_beside_the_program_is_no_package(monkeypatch, tmp_path):
    """For example, wandb writes a folder `wandb`."""
    (tmp_path / "written_by_a_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("written_by_a_package")
    assert not is_installed("written_by_a_package")


def test_package_is_installed_and_a_name_of_nothing_is_not():
    assert is_installed("numpy")
    assert not is_installed("no_such_package")
