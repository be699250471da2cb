"""LMDB environments of image files, as LSUN is published."""

import sys

import pytest

from sagan_jax.data import natural_resolution, open_source, sources
from support.assertions import refusal
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

lmdb = pytest.importorskip("lmdb", reason="the extra `lmdb` is not installed")

SIZE = 6


def pixels(number):
    return noise(SIZE, SIZE, 3, seed=number)


def written(path, entries, *, subdir=True):
    with lmdb.open(str(path), map_size=2**20, subdir=subdir) as environment, environment.begin(write=True) as write:
        for key, value in entries.items():
            write.put(key, value)
    return path


def opened(path, **options):
    return open_source(str(path), **{"resolution": SIZE, "cache": "", "notify": lambda line: None, **options})


def refused(path, **options):
    return refusal(opened, path, **options)


@pytest.fixture
def church(tmp_path):
    """Three images, written in another order than that of their keys."""
    return written(
        tmp_path / "church_lmdb", {b"c": encoded(pixels(3)), b"a": encoded(pixels(1)), b"b": encoded(pixels(2))}
    )


def test_values_are_images_in_the_order_of_their_keys(church):
    assert contents(opened(church)) == ([pixels(number).tolist() for number in (1, 2, 3)], [0, 0, 0])
    assert opened(church).description == "church_lmdb: 3 images, unlabelled"
    assert natural_resolution(str(church)) == SIZE


def test_environment_may_be_one_file_and_images_of_other_formats(tmp_path):
    path = written(tmp_path / "x.mdb", {b"a": encoded(pixels(1), "WEBP", lossless=True)}, subdir=False)
    assert contents(opened(path))[0] == [pixels(1).tolist()]


def test_reading_writes_nothing_into_the_folder(church):
    (church / "lock.mdb").unlink()
    church.chmod(0o555)
    opened(church).fingerprint  # noqa: B018
    church.chmod(0o755)
    assert [path.name for path in church.iterdir()] == ["data.mdb"]


def test_environment_is_opened_twice_in_a_process_and_read_from_both(church, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 10)
    first, second = opened(church), opened(church, resolution=3)
    assert contents(first)[0] == [pixels(number).tolist() for number in (1, 2, 3)]
    assert second[2][0].shape == (3, 3, 3)
    assert contents(first)[0][0] == pixels(1).tolist()


def test_unreadable_value_is_named_by_its_key_and_can_be_skipped(tmp_path):
    path = written(tmp_path / "x", {b"a": encoded(pixels(1)), b"label-\xff": b"17"})
    assert f"Cannot read image 'label-\\\\xff' of '{path}'" in refused(path)
    assert len(opened(path, skip_unreadable=1)) == 1


def test_damaged_and_empty_environments_are_refused(church, tmp_path):
    data = church / "data.mdb"
    data.write_bytes(data.read_bytes()[:-4096])
    assert "was it copied whole?" in refused(church)
    data.write_bytes(b"x" * 9000)
    assert refused(church).startswith(f"Cannot read '{church}' as LMDB: ")
    nothing = tmp_path / "nothing.mdb"
    nothing.write_bytes(b"")
    assert refused(nothing) == f"Cannot read '{nothing}' as LMDB: 'nothing.mdb' is empty."
    assert "it has no entries." in refused(written(tmp_path / "empty", {}))


def test_labels_are_refused_and_the_missing_package_is_named(church, monkeypatch):
    assert "A label column is for parquet files" in refused(church, label_column="x")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert "pip install 'sagan-jax[lmdb]'" in refused(church)
