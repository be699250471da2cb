"""Files are written whole or not at all."""

import os
import subprocess
from pathlib import Path

import pytest

from sagan_jax.errors import StorageError
from sagan_jax.runtime.files import sweep_temporaries, write_atomically, write_files_atomically


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(StorageError, match="/a could not be written: No space left on device"):
        write_atomically(tmp_path / "a", b"new!")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_write_files_atomically_writes_every_file(tmp_path):
    write_files_atomically(tmp_path / "new" / "folder", {"a": b"one", "b": b"other"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "new/folder").iterdir()} == {
        "a": b"one",
        "b": b"other",
    }


def test_write_files_atomically_leaves_all_old_files_when_one_fails(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    write_bytes = Path.write_bytes

    def refuse_b(path, content):
        if path.name.startswith(".b."):
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse_b)
    with pytest.raises(StorageError, match="/a, b could not be written: No space left on device"):
        write_files_atomically(tmp_path, {"a": b"new!", "b": b"new!"})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def finished_process():
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_sweep_removes_what_killed_processes_left_and_nothing_else(tmp_path):
    ended, running = finished_process(), os.getppid()
    left = [f".a.png.{ended}.tmp", f".b.{os.getpid()}.tmp", f".old.json.{running}.tmp"]
    kept = [f".new.json.{running}.tmp", "a.png", f"a.{ended}.tmp", ".hidden", ".a.png.tmp", f".a.{ended}.tmp.png"]
    for name in left + kept:
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / left[-1], (0, 0))
    (tmp_path / f".folder.{ended}.tmp").mkdir()
    sweep_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, f".folder.{ended}.tmp"}


def test_sweep_finds_what_an_interrupted_write_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda path, target: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.b", b"new")
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    sweep_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sweep_of_an_absent_folder_does_nothing(tmp_path):
    sweep_temporaries(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
