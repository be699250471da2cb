"""A run that is killed between a save and what follows it. The same command does what is missing, and no more."""

import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import sagan_jax
from support import killed_run
from support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.one_jax]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    labels = np.arange(60) % 2
    drawn = np.random.default_rng(0).integers(0, 100, (60, 32, 32, 3)) + 75 * labels[:, None, None, None]
    path = tmp_path_factory.mktemp("images") / "train.npz"
    np.savez(path, images=drawn.astype(np.uint8), labels=labels)
    return path


def start(action, workdir, images, *writes):
    """Runs `killed_run.py`, which kills itself or copies its workdir at the writes. Returns the ended process."""
    command = [sys.executable, killed_run.__file__, action, workdir, images, *writes]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def left_by(workdir):
    """Returns all that a run left but for times: names, contents of pictures, values of scores, and the metrics."""
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if "tensorboard" not in path.parts}
    names = {name for name in names if name.count("/") < 2}
    pictures = {str(path.relative_to(workdir)): path.read_bytes() for path in workdir.rglob("*.png")}
    scores = {path.name: json.loads(path.read_text())["values"] for path in (workdir / "scores").iterdir()}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
        line.pop("input_wait", None)
        line.pop("score/seconds", None)
    status = "step 4 of 4 · finished" in (workdir / "report.html").read_text(encoding="utf-8")
    return {"names": names, "pictures": pictures, "scores": scores, "metrics": lines, "finished": status}


WRITES = {
    "before the last picture and all that follows": "after checkpoints 4",
    "between the last scores and their line": "after fd20_train_random-00000004.json",
    "before the last report": "before report.html",
    "between the first save and its picture": "after checkpoints 2",
    "while a figure is written": "before discriminator.png",
    "between two lines of statistics": "after line 2 generator/attention_gamma_16",
    "while the picture is written": "before samples-00000002.png",
    "before the line of the scores": "before line 2 score/fd20_train_random",
    "between that line and the best checkpoint": "after line 2 score/fd20_train_random",
}
IN_CI = (
    "before the last picture and all that follows",
    "between the first save and its picture",
    "before the line of the scores",
    "between that line and the best checkpoint",
)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """The workdir of a run that was never killed, with copies of it as it was at each of the writes."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = start("copy", workdir, images, *WRITES.values())
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def unbroken(whole):
    """What that run leaves."""
    return left_by(whole)


def contents(workdir):
    """Returns the names of all files of a run, the contents of those without times, and the number of metric lines.

    The number of the process in a name is replaced by N.
    """
    files = [path for path in workdir.rglob("*") if path.is_file() and "tensorboard" not in path.parts]
    names = {re.sub(r"\.\d+\.tmp$", ".N.tmp", str(path.relative_to(workdir))): path for path in files}
    kept = {name: path for name, path in names.items() if path.suffix in (".png", ".tmp") and "report" not in name}
    lines = (workdir / "metrics.jsonl").read_text().count("\n")
    return {name for name in names if name.count("/") < 2}, {name: kept[name].read_bytes() for name in kept}, lines


@pytest.mark.parametrize("write", ["after checkpoints 4", "before discriminator.png"])
def test_killed_run_leaves_what_the_copies_have(write, whole, images, tmp_path):
    killed = start("kill", tmp_path / "run", images, write)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert contents(tmp_path / "run") == contents(killed_run.copy_at(whole, write))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(write, id=when, marks=[] if when in IN_CI else pytest.mark.release)
        for when, write in WRITES.items()
    ],
)
def test_run_that_is_killed_and_started_again_leaves_what_an_unbroken_one_does(
    write, whole, unbroken, images, tmp_path, capsys
):
    # This process goes on with the copy. A new process for each run would mostly import and compile.
    shutil.copytree(killed_run.copy_at(whole, write), tmp_path / "run")
    sagan_jax.train(killed_run.experiment_on(str(images)), tmp_path / "run")
    left = left_by(tmp_path / "run")
    for what, value in unbroken.items():
        assert left[what] == value, what
    capsys.readouterr()
    sagan_jax.train(killed_run.experiment_on(str(images)), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "already at step 4 of 4" in printed
    assert "nothing to do" in printed
    assert left_by(tmp_path / "run") == left
