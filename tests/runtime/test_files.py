"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from sagan_jax.errors import StorageError
from sagan_jax.runtime.files import write_atomically, write_files_atomically


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
