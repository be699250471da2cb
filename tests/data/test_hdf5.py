"""HDF5 files as StudioGAN writes them, and others of their kind."""

import sys

import numpy as np
import pytest

from sagan_jax.data import natural_resolution, open_source, sources
from support.assertions import refusal
from support.images import noise

pytestmark = pytest.mark.one_jax

h5py = pytest.importorskip("h5py", reason="the extra `hdf5` is not installed")

IMAGES, LABELS = noise(7, 6, 5, 3, seed=1), np.array([0, 1, 2, 0, 1, 2, 0])


def written(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return path


def opened(path, **options):
    return open_source(str(path), **{"resolution": 5, "notify": lambda line: None, **options})


def refused(path, **options):
    return refusal(opened, path, **options)


def test_file_of_studiogan_has_channels_first_and_chunks(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("imgs", (4, 3, 6, 5), "uint8", maxshape=(7, 3, 6, 5), chunks=(2, 3, 6, 5))
        images[...] = IMAGES[:4].transpose(0, 3, 1, 2)
        images.resize(7, axis=0)
        images[-3:] = IMAGES[4:].transpose(0, 3, 1, 2)
        file.create_dataset("labels", data=LABELS, maxshape=(7,), chunks=(2,))
    source = opened(path)
    np.testing.assert_array_equal([source[index][0] for index in range(7)], IMAGES[:, :5])
    assert source.labels.tolist() == LABELS.tolist()
    assert source.description == "x.hdf5: 7 images, 3 classes"
    assert natural_resolution(str(path)) == 5


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("channels", ["last", "none"])
def test_channels_may_be_last_or_absent_and_a_large_file_is_read_when_needed(channels, large, tmp_path, monkeypatch):
    if large:
        monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 100)
    images = IMAGES if channels == "last" else IMAGES[..., 0]
    source = opened(written(tmp_path / "x.h5", images=images), image_channels=3 if channels == "last" else 1)
    expected = images[:, :5] if channels == "last" else images[:, :5, :, None]
    np.testing.assert_array_equal([source[index][0] for index in range(7)], expected)
    assert source.num_classes == 0


def test_arrays_may_be_named(tmp_path):
    path = written(tmp_path / "x.h5", faces=IMAGES, imgs=IMAGES[::-1], kind=LABELS[::-1])
    source = opened(path, image_column="faces", label_column="kind")
    np.testing.assert_array_equal(source[2][0], IMAGES[2, :5])
    assert source.labels.tolist() == LABELS[::-1].tolist()
    assert "has no labels 'age'; it holds 'faces', 'imgs', 'kind'." in refused(path, label_column="age")


def test_fingerprint_is_that_of_the_file(tmp_path):
    first, same, other = (
        opened(written(tmp_path / name / "x.h5", imgs=images), resolution=size).fingerprint
        for name, images, size in (("a", IMAGES, 5), ("b", IMAGES, 3), ("c", IMAGES[::-1], 5))
        if not (tmp_path / name).mkdir()
    )
    assert first == same
    assert first != other


def test_each_array_of_images_has_a_fingerprint_of_its_own(tmp_path):
    path = written(tmp_path / "x.h5", faces=IMAGES, imgs=IMAGES[::-1])
    usual, named, faces = (opened(path, image_column=name).fingerprint for name in ("", "imgs", "faces"))
    assert usual == named != faces


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": IMAGES}, "needs images, called imgs or images, or named by --image-column; it holds 'pictures'."),
        ({"imgs": IMAGES / 255}, "imgs needs images uint8 [N, C, H, W] or [N, H, W, C] with C 1 or 3"),
        ({"imgs": IMAGES[..., :2]}, "got uint8 [7, 6, 5, 2]."),
        ({"imgs": IMAGES[:0]}, "got uint8 [0, 6, 5, 3]."),
        (
            {"imgs": IMAGES, "labels": np.eye(7)},
            "labels needs integer labels [7], one for each image; got float64 [7, 7]",
        ),
        ({"imgs": IMAGES, "labels": LABELS + 1}, "class 0 has none. Do the labels start at 0?"),
    ],
)
def test_other_arrays_are_refused(arrays, said, tmp_path):
    assert said in refused(written(tmp_path / "x.h5", **arrays))


def test_damaged_labels_and_names_without_an_array_are_named(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["imgs"] = IMAGES
        file.create_dataset("labels", data=LABELS, chunks=LABELS.shape, compression="gzip")
        chunk = file["labels"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[chunk : chunk + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert refused(path).startswith(f"Cannot read 'labels' in '{path}': ")
    assert "got uint8 []." in refused(written(tmp_path / "a.h5", imgs=h5py.Empty("u1")))
    assert "got int32 []." in refused(written(tmp_path / "b.h5", imgs=IMAGES, labels=h5py.Empty("i4")))


def test_damaged_file_and_missing_package_are_named(tmp_path, monkeypatch):
    path = written(tmp_path / "x.h5", imgs=IMAGES)
    short = tmp_path / "short.h5"
    short.write_bytes(path.read_bytes()[:900])
    assert refused(short).startswith(f"Cannot read '{short}' as HDF5: ")
    assert "A CSV file of labels" in refused(path, labels="x.csv")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'sagan-jax[hdf5]'" in refused(path)
