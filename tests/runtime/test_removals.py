"""A program notices when its files are removed while it writes."""

import pytest

from sagan_jax.runtime.removals import RemovalWatch

pytestmark = pytest.mark.one_jax


def test_what_is_removed_is_told_once_and_again_when_it_came_back(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").touch()
    watch = RemovalWatch(tmp_path, ("b", "a", "later"))
    assert watch.removed() == []
    (tmp_path / "a").rmdir()
    (tmp_path / "b").unlink()
    assert watch.removed() == ["b", "a"]
    assert watch.removed() == []
    (tmp_path / "later").touch()
    assert watch.removed() == []
    (tmp_path / "later").unlink()
    assert watch.removed() == ["later"]
