"""`sagan-jax info` tells what a bug report needs, and does not end when something is broken."""

import os
import subprocess
import sys

import jax
import pytest

import sagan_jax
from sagan_jax.runs import info

pytestmark = pytest.mark.one_jax


def told():
    """Returns the text of each entry by its name."""
    found, name = {}, ""
    for line in info.info_lines():
        name = line[:20].strip() or name
        found.setdefault(name, []).append(line[20:])
    return found


def test_info_tells_versions_devices_settings_caches_and_weights(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "inception.safetensors").write_bytes(bytes(2_000_000))
    (tmp_path / "a.npy").write_bytes(bytes(1_000_000))
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path))
    found = told()
    assert found["sagan_jax"][0].startswith(sagan_jax.__version__)
    assert f"jax {jax.__version__}" in found["packages"]
    assert found["devices"] == ["4 x cpu (cpu)"]
    assert f"SAGAN_JAX_CACHE={tmp_path}" in found["settings"]
    assert found["decoded images"] == [f"{tmp_path}, 2 files, 3.0 MB"]
    assert found["statistics"] == [f"{tmp_path / 'references'}, which does not exist yet"]
    assert found["weights"] == [f"{tmp_path / 'weights' / 'inception.safetensors'}, 2.0 MB"]


def test_info_shows_what_is_broken_and_goes_on(monkeypatch):
    def fail():
        raise OSError("the disk\nis gone")

    monkeypatch.setitem(info._DESCRIPTIONS, "machine", fail)
    found = told()
    assert found["machine"] == ["failed: OSError: the disk is gone"]
    assert found["weights"]


def test_info_names_packages_that_are_absent(monkeypatch):
    monkeypatch.setattr(info, "_PACKAGES", ("jax", "no-such-package-here"))
    assert "no-such-package-here is not installed" in told()["packages"]


@pytest.mark.parametrize("home", ["", "/nowhere"])
def test_info_of_a_broken_backend_succeeds(home):
    environment = {**os.environ, "JAX_PLATFORMS": "cuda", "HOME": home}
    command = [sys.executable, "-m", "sagan_jax.cli.main", "info"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "no 'cuda' backend here" in done.stdout
    assert done.stdout.count("failed: InvalidInputError") == 1


def test_info_tells_where_compiled_programs_are_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path))
    assert told()["compiled programs"] == [f"{tmp_path / 'compiled'}, which does not exist yet"]
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    assert told()["compiled programs"][0].startswith(jax.config.jax_compilation_cache_dir)
