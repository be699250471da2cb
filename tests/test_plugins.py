"""The tests run beside the usual plugins of pytest, whether these are installed or not."""

import subprocess
import warnings

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.one_jax


class PytestBenchmarkWarning(pytest.PytestWarning):
    """A stand-in for the warning that pytest-benchmark gives before any test runs."""


def test_warning_of_a_benchmark_plugin_beside_xdist_is_no_error():
    message = "Benchmarks are automatically disabled because xdist plugin is active.Benchmarks cannot be performed"
    warnings.warn(PytestBenchmarkWarning(message), stacklevel=1)


def test_other_warnings_of_plugins_are_errors():
    with pytest.raises(PytestBenchmarkWarning):
        warnings.warn(PytestBenchmarkWarning("Something else"), stacklevel=1)


def test_filters_name_no_class_that_a_plugin_would_have_to_bring(pytestconfig):
    categories = [entry.split(":")[2] for entry in pytestconfig.getini("filterwarnings") if entry.count(":") >= 2]
    assert categories
    assert all("." not in category for category in categories)


@pytest.mark.parametrize("name", [".coverage", ".coverage.host.1", "htmlcov", ".benchmarks"])
def test_what_plugins_write_into_the_checkout_is_ignored(name):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: this copy of the sources has no .git")
    # A pattern for a folder also matches the paths in it.
    call = ["git", "-C", str(ROOT), "check-ignore", "--quiet", f"{name}/x"]
    assert subprocess.run(call, check=False).returncode == 0
