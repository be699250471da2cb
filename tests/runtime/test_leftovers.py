"""What is removed when a signal ends the process at once."""

import pytest

from sagan_jax.runtime.leftovers import remove_leftovers, removed_at_a_signal

pytestmark = pytest.mark.one_jax


def test_leftovers_of_open_blocks_are_removed_the_newest_first(tmp_path):
    folder = tmp_path / "folder"
    with removed_at_a_signal([folder]), removed_at_a_signal([folder / "file", folder / "absent"]):
        folder.mkdir()
        (folder / "file").touch()
        remove_leftovers()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_leave_a_folder_that_others_use_and_what_was_finished(tmp_path):
    folder = tmp_path / "folder"
    with removed_at_a_signal([folder]):
        with removed_at_a_signal([folder / "finished"]):
            folder.mkdir()
            (folder / "finished").touch()
        remove_leftovers()
    remove_leftovers()
    assert [path.name for path in folder.iterdir()] == ["finished"]
