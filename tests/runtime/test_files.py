"""Files are written whole or not at all, and read only where they are regular and of bounded size."""

import os
import subprocess
from pathlib import Path

import pytest

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.files import (
    check_can_write,
    read_json,
    read_regular,
    sweep_temporaries,
    system_error,
    write_atomically,
    write_files_atomically,
)

pytestmark = pytest.mark.one_jax


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


def test_path_that_cannot_be_written_is_refused_before_and_nothing_is_made(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"")
    check_can_write(tmp_path / "a")
    check_can_write(tmp_path / "new" / "newer" / "b")
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "a" / "c" / "b", "a' is a file, not a folder")):
        with pytest.raises(InvalidInputError, match=words):
            check_can_write(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=f"no write permission for '{tmp_path}'"):
        check_can_write(tmp_path / "new" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


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


def test_file_is_read_up_to_its_largest_size_and_not_beyond(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(InvalidInputError, match="needs to have at most 4 bytes; it is larger"):
        read_regular(tmp_path / "a", 4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "b", 4)


def test_size_that_the_system_states_is_not_believed():
    with pytest.raises(InvalidInputError, match="at most 4 bytes"):
        read_regular("/proc/self/status", 4)  # states a size of 0


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_file_that_is_not_regular_is_refused(kind, tmp_path):
    path = {"pipe": tmp_path / "pipe", "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InvalidInputError, match="needs to be a regular file; it is a folder, a pipe or a device"):
        read_regular(path, 10)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"1" * 5000, b"{} {}"])
def test_what_is_not_json_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InvalidInputError, match="/a' cannot be read as JSON: ") as caught:
        read_json(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_errors_of_a_path_are_said_and_others_are_not(tmp_path):
    def error_of(path):
        with pytest.raises(OSError, match="Errno") as caught:
            path.stat()
        return system_error(caught.value)

    assert str(error_of(Path("a" * 300))) == f"'{'a' * 300}' could not be used: File name too long."
    assert error_of(tmp_path / "absent") is None
    assert system_error(ValueError("other")) is None
    assert system_error(PermissionError(13, "Permission denied")) is None
