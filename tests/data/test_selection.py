import itertools

import numpy as np
import pytest

from sagan_jax.data import open_source, sources
from sagan_jax.data.selection import choose_images
from support.archives import write_folder, write_zip
from support.assertions import refusal
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

LABELS = [0] * 6 + [1] * 2 + [2] * 9
PIXELS = [noise(4, 4, 3, seed=seed) for seed in range(len(LABELS))]
FILES = {f"c{label}/{seed:02}.png": encoded(PIXELS[seed]) for seed, label in enumerate(LABELS)}


def opened(path, most, **options):
    return open_source(str(path), **{"resolution": 4, "max_images": most, "notify": lambda line: None, **options})


@pytest.fixture(params=["folder", "zip", "npz", "npy", "parquet"])
def path(request, tmp_path):
    """The same images in each kind of source; an .npy file has no labels."""
    kind = request.param
    if kind == "folder":
        return write_folder(tmp_path / "x", FILES)
    if kind == "zip":
        return write_zip(tmp_path / "x.zip", FILES)
    if kind == "npz":
        np.savez(tmp_path / "x.npz", images=PIXELS, labels=LABELS)
    if kind == "npy":
        np.save(tmp_path / "x.npy", PIXELS)
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        table = pa.table({"image": list(FILES.values()), "label": LABELS})
        pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "x.parquet")
    return tmp_path / f"x.{kind}"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_chosen_images_keep_their_labels_and_their_order(path, large, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0 if large else 2**30)
    options = {"cache": str(tmp_path / "kept") if cached else ""}
    chosen = choose_images(17, None if path.suffix == ".npy" else np.array(LABELS), [], 7, "")
    labels = [0] * 7 if path.suffix == ".npy" else [LABELS[index] for index in chosen]
    for _ in range(2):  # the second time from the cache
        source = opened(path, 7, **options)
        assert contents(source) == ([PIXELS[index].tolist() for index in chosen], labels)
        assert ": 7 of 17 images, " in source.description
    assert len(opened(path, 17, **options)) == 17


def test_fingerprint_follows_the_choice_and_is_that_of_the_whole_set_without_one(path):
    whole = opened(path, 0).fingerprint
    assert opened(path, 17).fingerprint == opened(path, 99).fingerprint == whole
    assert opened(path, 99).description == opened(path, 0).description
    assert len({opened(path, most).fingerprint for most in (7, 8, 17)}) == 3


def test_fingerprint_follows_the_choice_of_images_without_labels(tmp_path):
    path = write_folder(tmp_path / "x", {name.replace("/", "-"): data for name, data in FILES.items()})
    fingerprints = {opened(path, most).fingerprint for most in (7, 8, 17)}
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    ("most", "counts"), [(3, [1, 1, 1]), (6, [2, 2, 2]), (9, [4, 2, 3]), (14, [6, 2, 6]), (17, [6, 2, 9])]
)
def test_classes_take_turns(most, counts):
    chosen = choose_images(17, np.array(LABELS), ["a", "b", "c"], most, "")
    assert np.bincount(np.array(LABELS)[chosen]).tolist() == counts
    assert np.array_equal(chosen, np.unique(chosen))


@pytest.mark.parametrize("labels", [None, np.array(LABELS * 20)])
def test_a_larger_choice_contains_a_smaller_one_and_is_not_the_start_of_the_set(labels):
    choices = [set(choose_images(340, labels, [], most, "").tolist()) for most in (3, 30, 31, 200)]
    assert all(small < large for small, large in itertools.pairwise(choices))
    assert max(choices[1]) > 200


def test_fewer_images_than_classes_are_refused(path):
    if path.suffix != ".npy":
        assert "has 3 classes, and each needs an image; got at most 2 images" in refusal(opened, path, 2)
    assert "max_images needs to be at least 0; got -1" in refusal(opened, path, -1)


def test_an_unreadable_image_that_is_not_chosen_is_not_read(tmp_path):
    chosen = choose_images(17, np.array(LABELS), [], 7, "")
    names = list(FILES)
    spoilt = {name: data if index in chosen else b"" for index, (name, data) in enumerate(FILES.items())}
    assert len(opened(write_folder(tmp_path / "x", spoilt), 7)) == 7
    spoilt[names[chosen[2]]] = b""
    assert f"'{names[chosen[2]]}'" in refusal(opened, write_folder(tmp_path / "x", spoilt), 7)


def test_a_synthetic_set_gives_its_first_images():
    few, named = opened("pairs:seed=3", 5, resolution=32), opened("pairs:seed=3,images=5", 0, resolution=32)
    assert contents(few) == contents(named)
    assert few.fingerprint == named.fingerprint
    assert len(opened("pairs:images=4", 5, resolution=32)) == 4
