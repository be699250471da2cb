import errno
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from sagan_jax.data import ImageSource, cache, decoding, open_source, sources
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.cache_folders import cache_folder
from support.archives import write_folder, write_zip
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

SIZE, COUNT = 4, 10
IMAGE_BYTES = SIZE * SIZE * 3


def png(number):
    return encoded(noise(SIZE + 3, SIZE + 2, 3, seed=number))


FILES = {f"{number % 2}/{number}.png": png(number) for number in range(COUNT)}


@pytest.fixture
def data(tmp_path):
    return write_zip(tmp_path / "x.zip", FILES)


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept"


@pytest.fixture(params=["loaded", "mapped"])
def mode(request, monkeypatch):
    if request.param == "mapped":
        monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    return request.param


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of the files that were decoded, in order of decoding."""
    sizes = []
    real = decoding.decode
    monkeypatch.setattr(
        "sagan_jax.data.encoded.decode", lambda data, *size: sizes.append(len(data)) or real(data, *size)
    )
    return sizes


def opened(path, kept, **options):
    lines = []
    return open_source(str(path), **{"resolution": SIZE, "cache": str(kept), "notify": lines.append, **options}), lines


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_set_is_decoded_once_and_then_read(data, kept, mode, decoded):
    expected = contents(opened(data, "")[0])
    first, _ = opened(data, kept)
    assert contents(first) == expected
    decoded.clear()
    second, lines = opened(data, kept)
    assert contents(second) == expected
    assert (first.class_names, first.fingerprint) == (second.class_names, second.fingerprint)
    assert (decoded, lines) == ([], [])


def test_cached_file_is_a_plain_array_of_the_images(data, kept):
    source, _ = opened(data, kept)
    np.testing.assert_array_equal(np.load(only(kept, "*.npy")), [source[index][0] for index in range(COUNT)])


def test_cached_image_cannot_be_written_to(data, kept, mode):
    opened(data, kept)
    image = opened(data, kept)[0][0][0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_large_set_says_what_it_decodes_where_to_and_how_big(data, kept, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    _, lines = opened(data, kept)
    assert lines == [f"decoding the 10 images of '{data}' into the cache '{only(kept, '*.npy')}' (0.0 GB)"]


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 5},
        {"image_channels": 1},
        {"skip_unreadable": 1},
        {"rules": 99},
        {"pillow": "0"},
    ],
)
def test_key_follows_what_the_pixels_depend_on(data, kept, change, monkeypatch):
    opened(data, kept)
    monkeypatch.setattr(cache, "DECODING_VERSION", change.pop("rules", decoding.DECODING_VERSION))
    monkeypatch.setattr("PIL.__version__", change.pop("pillow", PIL.__version__))
    opened(data, kept, **change)
    assert len(list(kept.glob("*.npy"))) == 2


@pytest.mark.parametrize("write", [write_zip, write_folder])
@pytest.mark.parametrize(
    ("name", "value"), [("0/0.png", png(99)), ("0/00.png", FILES["0/0.png"]), ("2/0.png", FILES["0/0.png"])]
)
def test_key_and_fingerprint_follow_names_and_bytes(tmp_path, kept, write, name, value):
    first, _ = opened(write(tmp_path / "a", FILES) if write is write_folder else write(tmp_path / "a.zip", FILES), kept)
    other = {kept: data for kept, data in FILES.items() if kept != "0/0.png"} | {name: value}
    second, _ = opened(
        write(tmp_path / "b", other) if write is write_folder else write(tmp_path / "b.zip", other), kept
    )
    assert first.fingerprint != second.fingerprint
    assert len(list(kept.glob("*.npy"))) == 2


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_fingerprint_follows_neither_place_nor_resolution_nor_cache(tmp_path, kept, write):
    (tmp_path / "there").mkdir()
    places = [write(folder / "x.zip", FILES) for folder in (tmp_path, tmp_path / "there")]
    prints = {
        opened(place, cached, resolution=size)[0].fingerprint
        for place in places
        for cached in ("", kept)
        for size in (4, 5)
    }
    assert len(prints) == 1
    assert len(prints.pop()) == 64


def test_fingerprint_follows_what_is_skipped(tmp_path):
    one = opened(write_zip(tmp_path / "a.zip", FILES | {"0/z.png": b""}), "", skip_unreadable=1)[0]
    assert one.fingerprint != opened(write_zip(tmp_path / "b.zip", FILES), "")[0].fingerprint


def test_fingerprint_follows_content_labels_and_class_names():
    facts = {"content": lambda: "a", "labels": np.array([0, 1]), "class_names": ["ant", "bee"]}
    changes = [{}, {"content": lambda: "b"}, {"labels": np.array([1, 0])}, {"class_names": ["ant", "cow"]}]
    prints = {ImageSource(np.zeros((2, 4, 4, 3)), name="x", **(facts | change)).fingerprint for change in changes}
    assert len(prints) == 4


def test_fingerprint_of_arrays_follows_their_labels(tmp_path):
    for name, labels in (("a", [0, 1]), ("b", [0, 1]), ("c", [1, 0])):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.array(labels))
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.npz").rename(tmp_path / name / "x.npz")
    a, b, c = (opened(tmp_path / name / "x.npz", "")[0].fingerprint for name in "abc")
    assert a == b != c


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "short":
        del content[-1]
    elif how == "empty":
        content.clear()
    elif how == "flipped":
        content[-IMAGE_BYTES * 3] ^= 1
    elif how == "header":
        content = content.replace(b"(10, 4, 4, 3)", b"(99, 4, 4, 3)")
    path.write_bytes(content)


DAMAGES = [(file, how) for file in ("*.npy", "*.npz") for how in ("short", "empty", "flipped")]


@pytest.mark.parametrize(("file", "how"), [*DAMAGES, ("*.npy", "header")])
def test_damaged_cache_is_said_and_built_again(data, kept, file, how, decoded):
    expected = contents(opened(data, kept)[0])
    damaged(only(kept, file), how)
    decoded.clear()
    source, lines = opened(data, kept)
    assert contents(source) == expected
    assert len(decoded) == COUNT
    assert len(lines) == 1
    assert "is damaged" in lines[0]
    assert opened(data, kept)[1] == []


def test_damaged_image_of_a_mapped_cache_is_decoded_again_when_it_is_read(data, kept, monkeypatch, decoded):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    expected = contents(opened(data, kept)[0])
    damaged(only(kept, "*.npy"), "flipped")
    decoded.clear()
    source, lines = opened(data, kept)
    assert decoded == []
    assert contents(source) == expected
    assert len(decoded) == 1
    assert lines == [
        f"warning: '{only(kept, '*.npy')}' is damaged (image 7 differs from the one that was stored); its images are "
        f"decoded again"
    ]
    assert not list(kept.glob("*.npz"))


def test_array_without_its_ledger_does_not_count(data, kept, decoded):
    opened(data, kept)
    only(kept, "*.npz").unlink()
    decoded.clear()
    opened(data, kept)
    assert len(decoded) == COUNT


def test_checksums_of_another_set_are_rejected(tmp_path, kept, data):
    opened(data, kept)
    ledger = only(kept, "*.npz")
    renamed = {name.replace("1/", "2/"): data for name, data in FILES.items()}
    expected = contents(opened(write_zip(tmp_path / "y.zip", renamed), kept)[0])
    (other,) = set(kept.glob("*.npz")) - {ledger}
    shutil.copy(ledger, other)
    source, lines = opened(tmp_path / "y.zip", kept)
    assert contents(source) == expected
    assert "it holds another data set" in lines[0]


def test_build_that_was_killed_leaves_nothing_that_counts(data, kept, decoded):
    program = (
        "import os, sagan_jax.data.sources as s, sagan_jax.data.cache as c\n"
        "real = os.fsync\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        f"s.open_source({str(data)!r}, resolution={SIZE}, cache={str(kept)!r})"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert [path.suffix for path in sorted(kept.iterdir())] == [".lock", ".tmp"]
    opened(data, kept)
    assert len(decoded) == COUNT
    assert not list(kept.glob("*.tmp"))


def test_two_that_build_at_once_decode_once(data, kept, monkeypatch):
    built = []
    real = sources.decode_all
    monkeypatch.setattr(sources, "decode_all", lambda *a, **k: built.append(time.sleep(0.3)) or real(*a, **k))
    found = {}

    def build(name):
        found[name] = opened(data, kept)

    threads = [threading.Thread(target=build, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert contents(found[0][0]) == contents(found[1][0])
    assert [line.split(" that")[0] for _, lines in found.values() for line in lines] == ["waiting for another process"]


@pytest.mark.parametrize("large", [False, True])
def test_full_disk_gives_a_warning_and_no_cache(data, kept, large, monkeypatch):
    expected = contents(opened(data, "")[0])
    if large:
        monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    Usage = namedtuple("Usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - 2**28, 2**28))
    source, lines = opened(data, kept)
    assert contents(source) == expected
    assert len(lines) == 1
    assert "the decoded images need 0.0 GB, and the disk has 0.3 GB free" in lines[0]
    assert not list(kept.glob("*.np*"))


def test_disk_that_fills_up_is_said_and_done_without(data, kept, mode, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = contents(opened(data, "")[0])
    monkeypatch.setattr(os, "pwrite", full)
    source, lines = opened(data, kept)
    assert contents(source) == expected
    assert "No space left on device" in lines[-1]
    assert [path.suffix for path in kept.iterdir()] == [".lock"]


def test_cache_that_is_a_file_is_said_and_done_without(data, kept, mode):
    kept.write_text("in the way")
    source, lines = opened(data, kept)
    assert len(contents(source)[0]) == COUNT
    assert len(lines) == 1
    assert f"cannot be cached in '{kept}'; continuing without a cache" in lines[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_cache_is_read_and_a_missing_set_done_without(data, kept, tmp_path):
    opened(data, kept)
    kept.chmod(0o555)
    try:
        assert opened(data, kept)[1] == []
        assert "continuing without a cache" in opened(data, kept, resolution=5)[1][0]
    finally:
        kept.chmod(0o755)


def test_cached_set_needs_no_lock(data, kept, monkeypatch):
    expected = contents(opened(data, kept)[0])
    monkeypatch.setattr(cache.DecodedCache, "locked", None)  # taking the lock would fail
    assert contents(opened(data, kept)[0]) == expected


def test_unreadable_image_leaves_no_cache(tmp_path, kept, mode):
    with pytest.raises(InvalidInputError, match=r"image '0/3\.png'"):
        opened(write_zip(tmp_path / "x.zip", FILES | {"0/3.png": b""}), kept)
    assert [path.suffix for path in kept.iterdir()] == [".lock"]


def test_arrays_are_read_as_they_are_and_not_cached(tmp_path, kept, data):
    images = noise(2, SIZE, SIZE, 3)
    np.savez(tmp_path / "x.npz", images=images)
    source, lines = opened(tmp_path / "x.npz", kept)
    assert contents(source) == (images.tolist(), [0, 0])
    assert lines == []
    assert not kept.exists()
    opened(data, kept)  # files are cached
    assert only(kept, "*.npy").is_file()


# unreadable images that may be skipped

BROKEN = FILES | {"0/3.png": png(3)[:-30], "1/zz.png": b"<html>"}


def test_unreadable_images_up_to_the_number_are_left_out(tmp_path, mode):
    expected, _ = contents(opened(write_zip(tmp_path / "y.zip", FILES), "")[0])
    source, lines = opened(write_zip(tmp_path / "x.zip", BROKEN), "", skip_unreadable=2)
    assert contents(source) == (expected, [0] * 5 + [1] * 5)
    assert source.description == "x.zip: 10 images, 2 classes, 2 skipped"
    assert lines[-1].endswith("x.zip' as unreadable: '0/3.png', '1/zz.png'")
    assert "skipped 2 of 12 images" in lines[-1]


def test_one_unreadable_image_too_many_is_the_first_one_named(tmp_path, mode):
    with pytest.raises(InvalidInputError, match=r"than the 1 that may be skipped. The first: .*'0/3\.png'"):
        opened(write_zip(tmp_path / "x.zip", BROKEN), "", skip_unreadable=1)


def test_skipped_images_are_remembered_by_the_cache(tmp_path, kept, mode, decoded):
    path = write_zip(tmp_path / "x.zip", BROKEN)
    first, said = opened(path, kept, skip_unreadable=3)
    decoded.clear()
    second, lines = opened(path, kept, skip_unreadable=3)
    assert decoded == []
    assert contents(first) == contents(second)
    assert (first.skipped, first.fingerprint) == (second.skipped, second.fingerprint)
    assert lines == said[-1:]


def test_class_with_nothing_but_unreadable_images_is_named(tmp_path):
    path = write_zip(tmp_path / "x.zip", FILES | {"2/a.png": b"", "2/b.png": b""})
    with pytest.raises(InvalidInputError, match="'2' has none"):
        opened(path, "", skip_unreadable=2)


def test_set_of_nothing_but_unreadable_images_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="none of its images can be read"):
        opened(write_zip(tmp_path / "x.zip", {"a.png": b"", "b.png": b""}), "", skip_unreadable=7)


def test_long_list_of_skipped_images_is_cut(tmp_path):
    bad = {f"0/bad{number:02}.png": b"" for number in range(23)}
    source, lines = opened(write_zip(tmp_path / "x.zip", FILES | bad), "", skip_unreadable=23)
    assert len(source.skipped) == 23
    assert lines[0].endswith("'0/bad19.png' and 3 more")


def test_machine_without_memory_does_not_make_an_image_unreadable(data, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("sagan_jax.data.encoded.decode", fail)
    with pytest.raises(MemoryError):
        opened(data, "", skip_unreadable=COUNT)


def test_negative_number_to_skip_is_refused(data):
    with pytest.raises(InvalidInputError, match="got -1"):
        opened(data, "", skip_unreadable=-1)


def test_cmyk_images_are_said_again_by_the_cache(tmp_path, kept, mode):
    buffer = io.BytesIO()
    Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)).save(buffer, "JPEG")
    path = write_zip(tmp_path / "x.zip", FILES | {"0/c1.jpg": buffer.getvalue(), "0/c2.jpg": buffer.getvalue()})
    said = [opened(path, kept)[1][-1] for _ in range(2)]
    assert said[0] == said[1]
    assert "has 2 of 12 images in CMYK, such as '0/c1.jpg'" in said[0]


# the folder of the cache

FOLDERS = [
    ("auto", {"SAGAN_JAX_CACHE": "/a", "XDG_CACHE_HOME": "/x"}, Path("/a")),
    ("auto", {"XDG_CACHE_HOME": "/x"}, Path("/x/sagan_jax/images")),
    ("auto", {}, Path("/home/me/.cache/sagan_jax/images")),
    ("auto", {"SAGAN_JAX_CACHE": ""}, None),
    ("", {"SAGAN_JAX_CACHE": "/a"}, None),
    ("~/b", {"SAGAN_JAX_CACHE": "/a"}, Path("/home/me/b")),
]


@pytest.mark.parametrize(("name", "environment", "expected"), FOLDERS)
def test_cache_folder_is_the_named_one_or_that_of_the_environment(name, environment, expected, monkeypatch):
    for variable in ("SAGAN_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(variable, value)
    assert cache_folder(name) == expected
