import asyncio
import dataclasses
import errno
import functools
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.checkpoints import Checkpoints, read_sealed_meta, state_digest
from support.permissions import permission_bits_bind


@flax.struct.dataclass
class State:
    step: Any
    seed: Any
    params: Any
    average: Any
    unused: Any
    optimizer: Any


class Pair(NamedTuple):
    first: Any
    second: Any


def make_state(scale=1.0, width=5, average=None):
    numbers = np.random.default_rng(3)
    params = {
        "conv": {"kernel": jnp.asarray(scale * numbers.normal(size=(3, 4, width)), jnp.float32)},
        "gamma": jnp.float32(0.25),
    }
    return State(
        step=jnp.int32(7),
        seed=jnp.uint32(4_000_000_000),
        params=params,
        average={} if average is None else average,
        unused=None,
        optimizer=optax.adam(1e-3).init(params),
    )


def save_steps(directory, steps, keep=9):
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(float(step)), {"images": 10 * step})


def restore(directory, template=None):
    warnings = []
    with Checkpoints(directory, warn=warnings.append) as checkpoints:
        return checkpoints.restore(make_state() if template is None else template), warnings


def array_files(step_folder):
    return sorted((step_folder / "state").glob("**/d/*"), key=lambda path: path.stat().st_size)


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def delete_arrays(step_folder):
    shutil.rmtree(step_folder / "state")


def delete_array_files(step_folder):
    # Deletes all, because the largest may be one that is not read.
    for path in array_files(step_folder):
        path.unlink()


def empty_array_files(step_folder):
    for path in array_files(step_folder):
        path.write_bytes(b"")


def flip_array_bits(step_folder):
    for path in array_files(step_folder):
        flip_bit(path)


def delete_meta(step_folder):
    shutil.rmtree(step_folder / "meta")


def garble_meta(step_folder):
    (step_folder / "meta" / "metadata").write_text("{", encoding="utf-8")


def change_meta(step_folder):
    path = step_folder / "meta" / "metadata"
    text = path.read_text(encoding="utf-8")
    assert '"images": 50' in text
    path.write_text(text.replace('"images": 50', '"images": 51'), encoding="utf-8")


def put_a_pipe(step_folder):
    (step_folder / "meta" / "metadata").unlink()
    os.mkfifo(step_folder / "meta" / "metadata")


def contents(folder):
    """The paths below a folder, with the bytes of the regular files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def test_restore_returns_the_bits_that_were_saved(tmp_path):
    state = make_state(2.0)
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(7, state, {})
    (_, restored, _), _ = restore(tmp_path / "c")
    for saved, found in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        assert isinstance(found, np.ndarray)
        assert found.dtype == saved.dtype
        np.testing.assert_array_equal(found, np.asarray(saved))


def test_restore_returns_the_structure_of_the_template(tmp_path):
    save_steps(tmp_path / "c", [7])
    (_, restored, _), _ = restore(tmp_path / "c")
    assert jax.tree.structure(restored) == jax.tree.structure(make_state())


def test_restore_returns_the_step_and_the_meta(tmp_path):
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(7, make_state(), {"images": 640, "loss": float("inf"), "sizes": (3, 4)})
    (step, _, meta), _ = restore(tmp_path / "c")
    assert (step, meta) == (7, {"images": 640, "loss": float("inf"), "sizes": [3, 4]})


def test_restore_takes_shapes_in_place_of_arrays(tmp_path):
    save_steps(tmp_path / "c", [7])
    (_, restored, _), _ = restore(tmp_path / "c", jax.eval_shape(make_state))
    assert state_digest(restored) == state_digest(make_state(7.0))


def test_restore_keeps_an_average_that_is_there(tmp_path):
    state = make_state(average={"kernel": jnp.arange(6.0).reshape(2, 3)})
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(7, state, {})
    (_, restored, _), _ = restore(tmp_path / "c", state)
    np.testing.assert_array_equal(restored.average["kernel"], [[0, 1, 2], [3, 4, 5]])


def test_restore_brings_back_every_dtype_and_an_empty_array(tmp_path):
    state = Pair([jnp.array([1.5, -2.0], jnp.bfloat16), np.array([True, False, True])], np.zeros((0, 4), np.float32))
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(1, state, {})
    (_, restored, _), _ = restore(tmp_path / "c", state)
    assert jax.tree.map(lambda leaf: (leaf.tolist(), leaf.dtype.name), restored) == Pair(
        [([1.5, -2.0], "bfloat16"), ([True, False, True], "bool")], ([], "float32")
    )


def test_restore_finds_nothing_where_nothing_was_saved(tmp_path):
    found, warnings = restore(tmp_path / "absent")
    assert found is None
    assert not warnings
    assert not (tmp_path / "absent").exists()


def test_save_may_be_followed_by_donation(tmp_path):
    state = {"kernel": jnp.arange(300_000.0), "host": np.arange(200_000.0)}
    add = functools.partial(jax.jit, donate_argnums=0)(lambda kernel: kernel * 0 - 1)
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(1, state, {})
        add(state["kernel"]).block_until_ready()
        state["host"][:] = -1
    (_, restored, _), warnings = restore(
        tmp_path / "c", {"kernel": np.zeros(300_000, np.float32), "host": state["host"]}
    )
    assert not warnings
    np.testing.assert_array_equal(restored["kernel"], np.arange(300_000, dtype=np.float32))
    np.testing.assert_array_equal(restored["host"], np.arange(200_000.0))


def test_checkpoints_take_a_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_steps("c", [4])
    assert restore("c")[0][0] == 4


def test_save_keeps_both_of_two_damaged_checkpoints_of_a_step(tmp_path):
    save_steps(tmp_path / "c", [2])
    for _ in range(2):
        save_steps(tmp_path / "c", [5])
        garble_meta(tmp_path / "c" / "5")
        with Checkpoints(tmp_path / "c", keep=3, warn=lambda message: None) as checkpoints:
            checkpoints.restore(make_state())
            checkpoints.save(3, make_state(), {})
        shutil.rmtree(tmp_path / "c" / "3")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "5.damaged", "5.damaged2"]


def test_save_keeps_the_newest_steps(tmp_path):
    save_steps(tmp_path / "c", [1, 3, 6, 10], keep=2)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["10", "6"]


def test_save_keeps_multiples_for_good_besides_the_newest_steps(tmp_path):
    with Checkpoints(tmp_path / "run", keep=2, keep_every=4) as checkpoints:
        for step in (2, 4, 5, 6, 8, 10, 11, 12, 13):
            checkpoints.save(step, make_state(float(step)), {})
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps == [13, 12, 8, 4]
    # A run that goes on with another `keep_every` applies it to the steps that it finds, too.
    with Checkpoints(tmp_path / "run", keep=1, keep_every=8) as checkpoints:
        checkpoints.save(14, make_state(14.0), {})
        assert checkpoints.restore(make_state())[0] == 14
        assert checkpoints.steps == [14, 8]


def test_damaged_step_that_was_kept_for_good_is_renamed_and_kept(tmp_path):
    with Checkpoints(tmp_path / "run", keep=1, keep_every=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, make_state(float(step)), {})
    flip_array_bits(tmp_path / "run" / "4")
    with Checkpoints(tmp_path / "run", keep=1, keep_every=2, warn=lambda line: None) as checkpoints:
        assert checkpoints.restore(make_state())[0] == 2
        checkpoints.save(3, make_state(3.0), {})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["2", "3", "4.damaged"]


def test_restore_takes_the_step_that_is_asked_for_and_no_other(tmp_path):
    save_steps(tmp_path / "run", (2, 4, 6))
    with Checkpoints(tmp_path / "run") as checkpoints:
        step, state, meta = checkpoints.restore(make_state(), 4)
        assert (step, meta) == (4, {"images": 40})
        assert state_digest(state) == state_digest(make_state(4.0))
        assert checkpoints.restore(make_state(), 5) is None
        flip_array_bits(tmp_path / "run" / "4")
        with pytest.raises(InvalidInputError, match=r"Checkpoint 4 .* is damaged"):
            checkpoints.restore(make_state(), 4)
        assert checkpoints.restore(make_state(), 2)[0] == 2


def test_save_is_finished_when_the_block_is_left_by_an_error(tmp_path):
    def fail():
        with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
            checkpoints.save(4, make_state(4.0), {})
            raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        fail()
    assert restore(tmp_path / "c")[0][0] == 4


def test_save_refuses_a_step_that_is_not_above_the_others(tmp_path):
    save_steps(tmp_path / "c", [5])
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints, pytest.raises(StorageError, match="got 3 after 5"):
        checkpoints.save(3, make_state(), {})


def test_save_says_in_one_line_that_the_directory_is_a_file(tmp_path):
    (tmp_path / "c").write_text("in the way", encoding="utf-8")
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(StorageError, match=r"/c: FileExists") as raised:
        checkpoints.save(3, make_state(), {})
    assert "\n" not in str(raised.value)


# tensorstore before 0.1.86 gives only the number.
TOO_LARGE = rf"(File too large|os_error_code='{errno.EFBIG}')"


@pytest.fixture
def small_disk():
    """Files of more than 100 kB are refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_leaving_the_block_says_in_one_line_that_the_last_save_failed(tmp_path, small_disk, capfd, caplog):
    state = {"kernel": np.random.default_rng(0).normal(size=100_000)}
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, {"kernel": np.zeros(2)}, {})
    small_disk()
    with pytest.raises(StorageError, match=rf"^Checkpoint 2 could .*{TOO_LARGE}") as raised, checkpoints:
        checkpoints.save(2, state, {})
    assert "\n" not in str(raised.value)
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_save_names_the_step_whose_save_in_the_background_failed(tmp_path, small_disk):
    state = {"kernel": np.random.default_rng(0).normal(size=100_000)}
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        checkpoints.save(1, {"kernel": np.zeros(2)}, {})
        small_disk()
        checkpoints.save(5, state, {})
        with pytest.raises(StorageError, match=rf"^Checkpoint 5 could not be saved in .*{TOO_LARGE}"):
            checkpoints.save(10, state, {})


@pytest.mark.parametrize(
    "damage",
    [
        delete_arrays,
        delete_array_files,
        empty_array_files,
        flip_array_bits,
        delete_meta,
        garble_meta,
        change_meta,
        put_a_pipe,
    ],
)
def test_restore_goes_one_step_back_from_damage(tmp_path, damage, capfd):
    save_steps(tmp_path / "c", [2, 5])
    damage(tmp_path / "c" / "5")
    (step, restored, meta), warnings = restore(tmp_path / "c")
    assert (step, meta, state_digest(restored)) == (2, {"images": 20}, state_digest(make_state(2.0)))
    assert len(warnings) == 1
    assert "Checkpoint 5" in warnings[0]
    assert "\n" not in warnings[0]
    assert capfd.readouterr().err == ""


def assert_nothing_is_skipped(directory, words):
    before, warnings = contents(directory), []
    with (
        Checkpoints(directory, warn=warnings.append) as checkpoints,
        pytest.raises(StorageError, match=rf"Checkpoint 5 in .* could not be read \({words}") as raised,
    ):
        checkpoints.restore(make_state())
    assert raised.value.exit_code == 6
    assert "\n" not in str(raised.value)
    assert not warnings
    assert contents(directory) == before


@pytest.mark.parametrize("name", ["meta/metadata", "state/_METADATA", "state/manifest.ocdbt", "commit_success.txt"])
def test_restore_stops_at_a_file_that_the_disk_does_not_give(tmp_path, name):
    save_steps(tmp_path / "c", [2, 5])
    path = tmp_path / "c" / "5" / name
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a regular file; reading it is an input/output error, for root too
    assert_nothing_is_skipped(tmp_path / "c", "OSError: .*Input/output error")


@pytest.mark.parametrize("folder", ["5", "meta", "d"])
def test_restore_stops_at_a_folder_that_may_not_be_read(tmp_path, folder, monkeypatch):
    # The error is planted, because root may read every folder. Orbax takes such a folder for an absent one.
    save_steps(tmp_path / "c", [2, 5])
    scandir = os.scandir

    def refuse(path="."):
        if Path(path).name == folder and "/c/5" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(StorageError, match=r"read \(PermissionError: .*/5"):
        checkpoints.restore(make_state())
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "5"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        RuntimeError("Unable to initialize backend 'cuda'"),
        AssertionError(),
        # As TensorStore says it.
        ValueError("PERMISSION_DENIED: Error reading \"k/0\": Failed to open: Permission denied [os_error_code='13']"),
        ValueError("UNKNOWN: Error reading \"k/0\": Failed to read: Input/output error [os_error_code='5']"),
        ValueError("OUT_OF_RANGE: Error reading \"k/0\": Value too large [os_error_code='75']"),
        ValueError('RESOURCE_EXHAUSTED: Error reading "k/0": Too many open files'),
    ],
    ids=lambda error: repr(error)[:40],
)
def test_restore_stops_at_an_error_that_is_no_damage(tmp_path, error, monkeypatch):
    save_steps(tmp_path / "c", [2, 5])

    def fail(*given, **options):
        raise error

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", fail)
    assert_nothing_is_skipped(tmp_path / "c", type(error).__name__)


def test_restore_takes_the_newest_beside_an_older_step_that_may_not_be_read(tmp_path, monkeypatch):
    save_steps(tmp_path / "c", [2, 5])
    iterdir = Path.iterdir

    def refuse(path):
        if path.name == "2":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    (step, _, _), warnings = restore(tmp_path / "c")
    assert (step, warnings) == (5, [])


def test_restore_takes_the_next_step_when_another_process_removes_the_one_that_is_read(tmp_path, monkeypatch):
    save_steps(tmp_path / "c", [2])
    read_document = Checkpoints._read_document

    def train_on(checkpoints, step):
        if step == 2:
            save_steps(tmp_path / "c", [3], keep=1)
        return read_document(checkpoints, step)

    monkeypatch.setattr(Checkpoints, "_read_document", train_on)
    (step, restored, _), warnings = restore(tmp_path / "c")
    assert (step, warnings) == (3, [])
    assert state_digest(restored) == state_digest(make_state(3.0))


def test_restore_needs_a_backend_before_it_reads(tmp_path, monkeypatch):
    save_steps(tmp_path / "c", [5])
    garble_meta(tmp_path / "c" / "5")

    def fail():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(InvalidInputError, match=r"no '.*cpu' backend here"):
        restore(tmp_path / "c")


def test_restore_notices_a_flipped_bit_that_orbax_does_not(tmp_path):
    state = {"kernel": np.random.default_rng(0).integers(0, 256, 5000, np.uint8)}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(2, state, {})
    # Noise is stored uncompressed. So the middle of the file lies inside the array, which has no checksum of its own.
    flip_bit(array_files(tmp_path / "c" / "2")[-1])
    with pytest.raises(InvalidInputError, match="its arrays differ from those that were saved"):
        restore(tmp_path / "c", state)


def test_restore_notices_a_renamed_step(tmp_path):
    save_steps(tmp_path / "c", [2])
    (tmp_path / "c" / "2").rename(tmp_path / "c" / "8")
    with pytest.raises(InvalidInputError, match="8: ValueError"):
        restore(tmp_path / "c")


def test_restore_names_every_step_when_all_are_damaged(tmp_path):
    save_steps(tmp_path / "c", [2, 5])
    garble_meta(tmp_path / "c" / "2")
    flip_array_bits(tmp_path / "c" / "5")
    with pytest.raises(InvalidInputError, match=r"Every checkpoint in .*5: .*2: "):
        restore(tmp_path / "c")


def test_restore_prints_its_warnings_by_default(tmp_path, capsys):
    save_steps(tmp_path / "c", [2, 5])
    garble_meta(tmp_path / "c" / "5")
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.restore(make_state())
    assert capsys.readouterr().err.startswith("warning: Checkpoint 5")


@pytest.mark.parametrize("name", ["99", "99.orbax-checkpoint-tmp", "best", "0099", "٩٩"])
def test_restore_passes_by_what_is_no_finished_step(tmp_path, name):
    save_steps(tmp_path / "c", [2])
    (tmp_path / "c" / name).mkdir()
    if name != "99":
        (tmp_path / "c" / name / "file").touch()
    (step, _, _), warnings = restore(tmp_path / "c")
    assert (step, warnings) == (2, [])


def test_latest_step_is_the_newest_that_was_finished(tmp_path):
    save_steps(tmp_path / "c", [9, 10])
    (tmp_path / "c" / "99").mkdir()
    assert Checkpoints(tmp_path / "c").latest_step == 10


def test_latest_step_is_none_where_nothing_was_saved(tmp_path):
    assert Checkpoints(tmp_path / "absent").latest_step is None


def test_save_goes_on_below_a_damaged_and_an_empty_step(tmp_path):
    save_steps(tmp_path / "c", [2, 8])
    garble_meta(tmp_path / "c" / "8")
    (tmp_path / "c" / "99").mkdir()
    with Checkpoints(tmp_path / "c", keep=3, warn=lambda message: None) as checkpoints:
        checkpoints.restore(make_state())
        checkpoints.save(5, make_state(5.0), {})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "5", "8.damaged"]


def test_restore_leaves_the_save_of_another_process_alone(tmp_path):
    save_steps(tmp_path / "c", [2])
    (tmp_path / "c" / "3.orbax-checkpoint-tmp").mkdir()
    restore(tmp_path / "c")
    assert (tmp_path / "c" / "3.orbax-checkpoint-tmp").exists()


def test_save_clears_what_an_interrupted_save_left(tmp_path):
    save_steps(tmp_path / "c", [2])
    (tmp_path / "c" / "3.orbax-checkpoint-tmp").mkdir()
    save_steps(tmp_path / "c", [4])
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "4"]


def test_save_says_nothing_about_a_step_without_the_notes_of_orbax(tmp_path, capfd, caplog):
    save_steps(tmp_path / "c", [2])
    (tmp_path / "c" / "2" / "_CHECKPOINT_METADATA").unlink()
    save_steps(tmp_path / "c", [4])
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_save_names_the_older_checkpoint_that_could_not_be_removed(tmp_path, monkeypatch, capfd, caplog):
    save_steps(tmp_path / "c", [2])

    def refuse(path, *given, **options):
        raise PermissionError(errno.EACCES, "Permission denied", "d")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    words = r"^Checkpoint 5 was saved in .*, but the older 2 could not be removed: PermissionError: .*Permission denied"
    with pytest.raises(StorageError, match=words):
        save_steps(tmp_path / "c", [5], keep=1)
    assert restore(tmp_path / "c")[0][0] == 5
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_save_says_nothing_about_an_older_step_that_somebody_removed(tmp_path, capfd, caplog):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(2, make_state(), {})
        checkpoints._wait()
        shutil.rmtree(tmp_path / "c")
        checkpoints.save(4, make_state(), {})
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["4"]
    assert not caplog.records
    assert capfd.readouterr().err == ""


KILLED_SAVE = """
import os, shutil, signal, sys
import numpy as np
import orbax.checkpoint as ocp
from sagan_jax.runtime.checkpoints import Checkpoints

def kill(*given, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def begin_to_remove(path, *given, **options):
    os.unlink(f"{path}/_CHECKPOINT_METADATA")
    kill()

def save(checkpoints, step):
    checkpoints.save(step, {f"kernel{number}": np.ones((30, 40)) for number in range(9)}, {})
    checkpoints._wait()

folder, when = sys.argv[1:]
with Checkpoints(folder, keep=2) as checkpoints:
    save(checkpoints, 2)
    save(checkpoints, 4)
    if when == "before its end":
        ocp.StandardCheckpointHandler.finalize = kill
    elif when == "after its end":
        ocp.CheckpointManager._finalize_checkpoint = kill
    else:
        shutil.rmtree = begin_to_remove
    save(checkpoints, 6)
"""
RESUMED = """
import sys
import numpy as np
from sagan_jax.runtime.checkpoints import Checkpoints

state = {f"kernel{number}": np.zeros((30, 40)) for number in range(9)}
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    step, state, _ = checkpoints.restore(state)
    checkpoints.save(step + 2, state, {})
print(step)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "step"), [("before its end", 4), ("after its end", 6), ("while the oldest is removed", 6)]
)
def test_start_after_a_killed_save_is_silent_and_clears_what_it_left(tmp_path, when, step):
    killed = subprocess.run([sys.executable, "-c", KILLED_SAVE, tmp_path / "c", when], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = subprocess.run([sys.executable, "-c", RESUMED, tmp_path / "c"], capture_output=True, text=True)
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, f"{step}\n", "")
    assert sorted(int(path.name) for path in (tmp_path / "c").iterdir()) == [step, step + 2]


async def leave_alone(error):
    """Drops a future whose error is never retrieved. asyncio logs the error when the future is collected."""
    asyncio.get_running_loop().create_future().set_exception(error)
    gc.collect()


def test_errors_of_further_leaves_are_not_dumped(tmp_path, caplog):
    Checkpoints(tmp_path / "c")
    theirs = 'DATA_LOSS: Error reading "k9/.zarray" in OCDBT database at local file "c/4/state/": CRC-32C\n[source]'
    asyncio.run(leave_alone(ValueError(theirs)))
    assert not caplog.records


def test_errors_of_other_tasks_are_still_logged(tmp_path, caplog):
    Checkpoints(tmp_path / "c")
    asyncio.run(leave_alone(ValueError("DATA_LOSS: of somebody else")))
    assert ["never retrieved" in record.getMessage() for record in caplog.records] == [True]


def test_latest_meta_is_that_of_the_newest_step(tmp_path):
    assert Checkpoints(tmp_path / "c").latest_meta() is None
    state = Pair([jnp.array([1.5, -2.0], jnp.bfloat16), np.array(True)], np.zeros((0, 4), np.float32))
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        checkpoints.save(2, state, {"score": "first"})
        checkpoints.save(5, state, {"score": "second"})
    assert Checkpoints(tmp_path / "c").latest_meta() == (5, {"score": "second"})


def test_latest_meta_takes_a_state_whose_leaves_are_not_in_the_order_of_their_names(tmp_path):
    state = make_state()
    assert [field.name for field in dataclasses.fields(state)] != sorted(
        field.name for field in dataclasses.fields(state)
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(5, state, {"value": 2.5})
    assert Checkpoints(tmp_path / "c").latest_meta() == (5, {"value": 2.5})


@pytest.mark.parametrize("damage", [garble_meta, change_meta, flip_array_bits])
def test_latest_meta_of_a_damaged_step_is_refused(tmp_path, damage):
    save_steps(tmp_path / "c", [2, 5])
    damage(tmp_path / "c" / "5")
    with pytest.raises(InvalidInputError, match=r"Checkpoint 5 in .* is damaged \("):
        Checkpoints(tmp_path / "c").latest_meta()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            make_state(width=6),
            r"'params/conv/kernel' needs float32 \[3, 4, 6\]; got float32 \[3, 4, 5\].*network config",
        ),
        (make_state().replace(step=np.float32(7)), r"'step' needs float32 \[\]; got int32 \[\]"),
        (make_state(average={"kernel": np.zeros(2)}), r"'average/kernel' needs float64 \[2\]; got nothing"),
        (make_state().replace(seed=None), r"'seed' needs to be absent; got uint32 \[\]"),
    ],
)
def test_restore_names_the_first_leaf_that_does_not_fit(tmp_path, template, words):
    save_steps(tmp_path / "c", [2, 5])
    with pytest.raises(InvalidInputError, match=words):
        restore(tmp_path / "c", template)


def test_checkpoints_cannot_keep_every_negative_step():
    with pytest.raises(InvalidInputError, match="keep_every >= 0"):
        Checkpoints("run", keep_every=-1)


def test_checkpoints_need_to_keep_one():
    with pytest.raises(InvalidInputError, match="keep >= 1"):
        Checkpoints("c", keep=0)


def test_state_digest_is_that_of_the_bits_wherever_they_live():
    assert state_digest(make_state()) == state_digest(jax.device_get(make_state()))


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.array([0.0, 2.0], np.float32)},
        {"a": np.array([-0.0, 1.0], np.float32)},
        {"a": np.array([0.0, 1.0], np.float64)},
        {"a": np.array([[0.0, 1.0]], np.float32)},
        {"b": np.array([0.0, 1.0], np.float32)},
        {"a": np.array([0.0, 1.0], np.float32).view(np.int32)},
    ],
    ids=["value", "sign of zero", "dtype", "shape", "path", "kind"],
)
def test_state_digest_differs_with(other):
    assert state_digest(other) != state_digest({"a": np.array([0.0, 1.0], np.float32)})


@pytest.mark.parametrize("part", ["2", "2/state"])
def test_older_step_that_may_not_be_read_does_not_hinder(part, tmp_path, capsys):
    save_steps(tmp_path, [2, 4])
    (tmp_path / part).chmod(0)
    with permission_bits_bind():
        assert restore(tmp_path)[0][0] == 4
        assert capsys.readouterr().err == ""
        save_steps(tmp_path, [6], keep=1)
        assert restore(tmp_path)[0][0] == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is unreadable and was renamed to 2.unreadable")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.unreadable", "6"]
    (tmp_path / "2.unreadable" / part.partition("/")[2]).chmod(0o755)


def test_sealed_meta_is_that_of_the_newest_step_whose_meta_is_whole(tmp_path):
    assert read_sealed_meta(tmp_path / "nowhere") is None
    save_steps(tmp_path, [2, 4, 6])
    (tmp_path / "abc").mkdir()
    (tmp_path / ("9" * 200)).mkdir()
    (tmp_path / "8").mkdir()
    assert read_sealed_meta(tmp_path) == (6, {"images": 60})
    metadata = tmp_path / "6" / "meta" / "metadata"
    metadata.write_text(metadata.read_text().replace("60", "61"))
    (tmp_path / "4" / "meta" / "metadata").write_text("[" * 100_000)
    assert read_sealed_meta(tmp_path) == (2, {"images": 20})
