"""What is recorded of the machine, the packages and the checkout."""

import datetime
import json
import platform
import subprocess
from pathlib import Path

import jax
import pytest

from sagan_jax.runtime import environment
from sagan_jax.runtime.environment import write_run_files


def test_run_files_hold_the_config(tmp_path):
    config = {"name": "digits", "training": {"seed": 3, "sizes": [32]}}
    write_run_files(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8")) == config


def test_run_files_hold_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "2")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr("sys.argv", ["sagan-jax", "train"])
    write_run_files(tmp_path, {})
    environment = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert environment["versions"]["python"] == platform.python_version()
    assert environment["versions"]["jax"] == jax.__version__
    assert None not in environment["versions"].values()
    assert environment["device_count"] == jax.device_count()
    assert environment["argv"] == ["sagan-jax", "train"]
    assert environment["folder"] == str(Path.cwd())
    assert (environment["threads"], environment["XLA_FLAGS"]) == ("2", None)


def started(workdir):
    return json.loads((workdir / "environment.json").read_text(encoding="utf-8"))["started"]


def test_run_files_say_when_the_run_started(tmp_path):
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    write_run_files(tmp_path, {})
    assert before <= datetime.datetime.fromisoformat(started(tmp_path)) <= datetime.datetime.now(datetime.UTC)


def test_run_that_is_resumed_keeps_its_start_and_one_that_starts_over_does_not(tmp_path):
    write_run_files(tmp_path, {})
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "2001-02-03T04:05:06+00:00"}))
    write_run_files(tmp_path, {}, resumed=True)
    assert started(tmp_path) == "2001-02-03T04:05:06+00:00"
    write_run_files(tmp_path, {})
    assert started(tmp_path) > "2026"


@pytest.mark.parametrize("content", [None, "{}", "[]", "{", '{"started": 7}', "[" * 100_000])
def test_run_whose_start_was_not_recorded_goes_on_without(tmp_path, content):
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    write_run_files(tmp_path, {}, resumed=True)
    assert started(tmp_path) is None


@pytest.fixture
def checkout(tmp_path):
    """A package in a git checkout with one commit."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(package.parent), *command], check=True)
    return package


def test_revision_is_the_commit_of_the_checkout(checkout):
    head = (checkout.parent / ".git" / "HEAD").read_text(encoding="utf-8").strip().removeprefix("ref: ")
    commit = (checkout.parent / ".git" / head).read_text(encoding="utf-8").strip()
    assert environment.git_revision(checkout) == {"git_revision": commit, "git_dirty": False}


def test_revision_is_dirty_when_the_package_was_changed(checkout):
    (checkout / "__init__.py").write_text("changed = True", encoding="utf-8")
    assert environment.git_revision(checkout)["git_dirty"] is True


def test_revision_is_not_dirty_for_the_results_of_runs(checkout):
    (checkout.parent / "runs").mkdir()
    (checkout.parent / "runs" / "metrics.jsonl").touch()
    assert environment.git_revision(checkout)["git_dirty"] is False


def test_revision_is_null_for_a_package_in_the_checkout_of_somebody_else(checkout):
    package = checkout.parent / "site-packages"
    package.mkdir()
    (package / "__init__.py").touch()
    assert environment.git_revision(package) == {"git_revision": None, "git_dirty": None}


def test_revision_is_null_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.git_revision(checkout) == {"git_revision": None, "git_dirty": None}
