"""Folders of results: earlier files are known, replaced when asked, and nothing else is touched."""

import json

import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.manifest import MANIFEST, check_results, finish_results, read_manifest, start_results

pytestmark = pytest.mark.one_jax


def write(folder, result, *files):
    start_results(folder, {result: files})
    for file in files:
        (folder / file).write_text(result)
    finish_results(folder, {result: files})


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


def test_later_result_replaces_the_files_of_the_earlier_one(tmp_path):
    write(tmp_path, "a", "a1", "a2", "a3")
    write(tmp_path, "a", "a2", "a4")
    assert names(tmp_path) == ["a2", "a4"]
    assert read_manifest(tmp_path) == {"a": ["a2", "a4"]}


def test_results_of_other_names_and_other_files_stay(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    write(tmp_path, "a", "a1")
    write(tmp_path, "b", "b1", "b2")
    write(tmp_path, "b", "b2")
    assert names(tmp_path) == ["a1", "b2", "mine.txt"]


def test_earlier_file_that_would_stay_is_refused_unless_it_may_be_removed(tmp_path):
    write(tmp_path, "photo", "photo.png", "photo-1.png")
    with pytest.raises(InvalidInputError, match=r"holds 1 files of an earlier call, such as 'photo-1\.png'"):
        check_results(tmp_path, {"other": ["photo-1.png"], "photo": ["photo.png"]}, overwrite=False)
    check_results(tmp_path, {"photo": ["photo.png"]}, overwrite=True)
    check_results(tmp_path, {"other": ["photo.png"]}, overwrite=False)


def test_earlier_result_that_is_replaced_whole_is_not_in_the_way(tmp_path):
    write(tmp_path, "photo", "photo.png", "photo-1.png")
    check_results(tmp_path, {"photo": ["photo-2.png", "photo-1.png", "photo.png"]}, overwrite=False)


def test_result_whose_files_are_gone_is_not_in_the_way(tmp_path):
    write(tmp_path, "a", "a1")
    (tmp_path / "a1").unlink()
    check_results(tmp_path, {"a": []}, overwrite=False)


def test_files_of_a_call_that_was_killed_are_known(tmp_path):
    write(tmp_path, "a", "a1")
    start_results(tmp_path, {"a": ["a2"]})
    (tmp_path / "a2").write_text("half")
    assert read_manifest(tmp_path) == {"a": ["a1", "a2"]}
    write(tmp_path, "a", "a3")
    assert names(tmp_path) == ["a3"]


@pytest.mark.parametrize("file", ["../outside", "/outside", "..", "", ".", "sub/inside", MANIFEST, "a\0b", 7])
def test_manifest_removes_nothing_but_plain_files_of_the_folder(tmp_path, file):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "outside", folder / "sub" / "inside"):
        path.write_text("kept")
    (folder / MANIFEST).write_text(json.dumps({"a": [file, "a1"]}))
    (folder / "a1").write_text("old")
    assert read_manifest(folder) == {"a": ["a1"]}
    write(folder, "a", "a2")
    assert names(folder) == ["a2", "sub"]
    assert (tmp_path / "outside").exists()
    assert (folder / "sub" / "inside").exists()


@pytest.mark.parametrize("content", ["", "[", "[]", "3", '{"a": 3}', "[" * 100_000, "\udcff"])
def test_manifest_that_cannot_be_read_lists_nothing(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content, errors="surrogateescape")
    assert read_manifest(tmp_path) == {}
