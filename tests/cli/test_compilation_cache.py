"""What a command compiles: few programs, none of them twice, and the same numbers with and without the cache."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module

import jax
import numpy as np
import pytest

import sagan_jax
from sagan_jax.cli.main import COMMANDS
from support.paths import ROOT

TINY = ["--family=dcgan", "--final-norm-decay=0.9999", "--base-channels=1"]
TINY += ["--batch-size=4", "--total-steps=2", "--save-every-steps=2"]
MAX_PROGRAMS = 20
"""Of a run with its checkpoint, its picture of samples and the figures of attention of both networks."""


def test_every_command_that_compiles_takes_the_flag():
    with_flag = {
        name
        for name, module in COMMANDS.items()
        if hasattr(import_module(f"sagan_jax.cli.{module}").Arguments, "compilation_cache")
    }
    assert set(COMMANDS) - with_flag == {"report", "fetch-weights", "info", "completion", "plan", "animate"}


def train(home, workdir, *flags):
    """Trains a tiny run as a user does, and returns the names of the programs that jax was asked to compile.

    The programs are compiled without optimisation. This changes neither which programs jax is asked for nor which it
    keeps. With all flags of the tests, jax 0.10.2 gave NaN in the second step on a CPU with AVX-512.
    """
    environment = {"PATH": os.environ["PATH"], "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment |= {"PYTHONPATH": str(ROOT), "HOME": str(home), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "sagan_jax.cli.main", "train", "digits_32", *TINY, "--workdir", str(workdir)]
    done = subprocess.run(
        [*command, *flags], env=environment | {"JAX_LOG_COMPILES": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warning" not in re.sub(r"(?m)^WARNING:.*jax.*$", "", done.stderr).lower()
    return re.findall(r"Compiling (jit\(\w+\))", done.stderr)


def results(workdir):
    """Returns the metrics that do not depend on the clock, and the bytes of the sample grid and of each array."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if name not in ("images_per_second", "time")} for row in rows]
    return kept, (workdir / "samples" / "samples-00000002.png").read_bytes(), weights(workdir)


def weights(workdir):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(sagan_jax.open_run(workdir).state)]


@pytest.mark.slow
def test_run_asks_for_few_programs_and_is_bitwise_the_same_with_them_compiled_read_or_not_kept(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    programs = train(home, tmp_path / "compiled")
    assert 3 <= len(programs) <= MAX_PROGRAMS, programs
    stored = {path: path.stat().st_mtime_ns for path in home.rglob("*-cache")}
    assert len(stored) == len(programs)
    train(home, tmp_path / "read")
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*-cache")} == stored
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    train(other, tmp_path / "not_kept", "--no-compilation-cache")
    assert not [*other.rglob("*-cache")]
    compiled, read, not_kept = (results(tmp_path / name) for name in ("compiled", "read", "not_kept"))
    assert compiled == read == not_kept
