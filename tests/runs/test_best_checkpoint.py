"""The best checkpoint when a run is resumed: it is kept, or it is dropped or set aside with a message."""

import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.best_checkpoint import BestCheckpoint
from sagan_jax.runs.resume import remove_run
from sagan_jax.runtime.checkpoints import Checkpoints

STATE = {"weight": np.arange(3.0), "half": np.zeros((2, 5), np.float16)}


def best_of(workdir, score="fd20"):
    return BestCheckpoint(workdir / "best", score, higher_is_better=False)


@pytest.fixture
def workdir(tmp_path):
    best_of(tmp_path).offer(10, 3.5, STATE, {"data": "x"})
    return tmp_path


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flip_bit_of_meta(step_folder):
    flip_bit(step_folder / "meta" / "metadata")


def flip_bits_of_arrays(step_folder):
    for path in (step_folder / "state").glob("**/d/*"):
        flip_bit(path)


def refuse_reading(step_folder):
    path = step_folder / "meta" / "metadata"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a regular file; reading it is an input/output error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_best_of_an_earlier_step_is_taken_up_without_a_word(workdir, capsys):
    best = best_of(workdir)
    best.resume_from(10)
    assert best.value == 3.5
    assert names(workdir) == ["best"]
    assert capsys.readouterr().err == ""


def test_run_without_a_best_starts_without_one(tmp_path, capsys):
    best = best_of(tmp_path)
    best.resume_from(10)
    assert best.value is None
    assert names(tmp_path) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spoil", "aside", "words"),
    [
        (flip_bit_of_meta, "best.damaged", "Checkpoint 10 in .* is damaged"),
        (flip_bits_of_arrays, "best.damaged", "Checkpoint 10 in .* is damaged"),
        (refuse_reading, "best.unreadable", "Checkpoint 10 in .* could not be read .*Input/output error"),
    ],
)
def test_best_that_is_not_whole_is_renamed_and_said(workdir, spoil, aside, words, capsys):
    spoil(workdir / "best" / "10")
    best = best_of(workdir)
    best.resume_from(20)
    assert best.value is None
    assert names(workdir) == [aside]
    assert names(workdir / aside) == ["10"]
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert re.match(f"warning: {words}", line)
    assert f"renamed to {aside}" in line


def test_best_of_another_score_is_renamed_and_said(workdir, capsys):
    best = best_of(workdir, "kd20/mean")
    best.resume_from(5)
    assert best.value is None
    assert names(workdir) == ["best.other-score"]
    assert "was chosen by fd20, not by kd20/mean" in capsys.readouterr().err


def test_best_of_a_later_step_is_dropped_and_said(workdir, capsys):
    best = best_of(workdir)
    best.resume_from(9)
    assert best.value is None
    assert names(workdir) == []
    line = capsys.readouterr().err
    assert "of step 10; the run goes on from step 9" in line
    assert "removed" in line


def test_best_that_is_set_aside_replaces_no_earlier_one(workdir):
    for _ in range(2):
        flip_bit_of_meta(workdir / "best" / "10")
        best_of(workdir).resume_from(20)
        best_of(workdir).offer(10, 3.5, STATE, {})
    assert names(workdir) == ["best", "best.damaged", "best.damaged2"]


def test_best_is_chosen_anew_after_one_was_set_aside(workdir):
    flip_bit_of_meta(workdir / "best" / "10")
    best = best_of(workdir)
    best.resume_from(8)
    best.offer(9, 77.0, STATE, {})
    assert Checkpoints(workdir / "best").latest_meta() == (9, {"score": "fd20", "value": 77.0, "reference": ""})


def test_what_a_killed_save_left_beside_the_best_is_removed(workdir):
    shutil.copytree(workdir / "best" / "10", workdir / "best" / "5")  # the former best, not removed yet
    (workdir / "best" / "15.orbax-checkpoint-tmp").mkdir()
    best = best_of(workdir)
    best.resume_from(20)
    assert best.value == 3.5
    assert names(workdir / "best") == ["10"]


def test_best_that_is_removed_during_a_run_is_said_and_chosen_anew(workdir, capsys):
    best = best_of(workdir)
    best.resume_from(10)
    shutil.rmtree(workdir / "best")
    best.offer(20, 77.0, STATE, {})
    assert names(workdir / "best") == ["20"]
    assert "best was removed while the run used it" in capsys.readouterr().err


def test_first_score_that_is_no_number_gives_way_to_one_that_is(tmp_path):
    best = best_of(tmp_path)
    best.offer(1, float("nan"), STATE, {})
    best.offer(2, float("nan"), STATE, {})
    assert names(tmp_path / "best") == ["1"]
    best.offer(3, 8.0, STATE, {})
    assert names(tmp_path / "best") == ["3"]


ONE_OF_TWO = """
import sys
from pathlib import Path
from sagan_jax.errors import StorageError
from sagan_jax.runs.best_checkpoint import BestCheckpoint
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.processes import initialize_distributed

def refuse(checkpoints):
    raise StorageError("Checkpoint 10 could not be read.")

folder, address, process, refused = sys.argv[1:]
initialize_distributed(address, 2, int(process))
if process == refused:
    Checkpoints.latest_meta = refuse
best = BestCheckpoint(Path(folder), "fd20", higher_is_better=False)
best.resume_from(20)
print("value", best.value)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("refused", "value", "left"), [(1, "3.5", ["best"]), (0, "None", ["best.unreadable"])])
def test_processes_agree_on_the_best_when_one_of_them_cannot_read_it(refused, value, left, workdir):
    address = f"127.0.0.1:{free_port()}"
    given = [sys.executable, "-c", ONE_OF_TWO, workdir / "best", address]
    processes = [
        subprocess.Popen([*given, str(number), str(refused)], stdout=subprocess.PIPE, text=True) for number in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [text.splitlines()[-1] for text in said] == [f"value {value}"] * 2
    assert names(workdir) == left


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_starting_over_removes_what_was_set_aside_and_nothing_else(workdir):
    flip_bit_of_meta(workdir / "best" / "10")
    best_of(workdir).resume_from(20)
    (workdir / "best.pictures").mkdir()
    remove_run(workdir)
    assert names(workdir) == ["best.pictures"]


def of_images(workdir, reference):
    return BestCheckpoint(workdir / "best", "fd20", higher_is_better=False, reference=reference)


def test_best_by_a_comparison_with_other_images_is_refused_and_kept(tmp_path):
    of_images(tmp_path, "one").offer(10, 3.5, STATE, {})
    best = of_images(tmp_path, "one")
    best.resume_from(10)
    assert best.value == 3.5
    with pytest.raises(InvalidInputError, match=r"fd20 compared with other images when [^\n]* \(--held-out\)[^\n]*$"):
        of_images(tmp_path, "other").resume_from(10)
    assert names(tmp_path) == ["best"]


def test_best_of_a_version_that_did_not_record_the_images_is_taken_up(tmp_path):
    with Checkpoints(tmp_path / "best") as checkpoints:
        checkpoints.save(10, STATE, {"score": "fd20", "value": 3.5})
    best = of_images(tmp_path, "one")
    best.resume_from(10)
    assert best.value == 3.5
