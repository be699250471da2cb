import numpy as np
import pytest

from sagan_jax.data import array_files, natural_resolution, open_source
from support.assertions import refusal
from support.images import noise

pytestmark = pytest.mark.one_jax

FIVE, TEST = noise(5, 4, 4, 3), noise(2, 4, 4, 3, seed=1)
LABELS = np.array([2, 0, 1, 1, 0])


def opened(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    lines = []
    return open_source(str(tmp_path / "x.npz"), resolution=4, notify=lines.append), lines


def refused(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return refusal(open_source, str(tmp_path / "x.npz"), resolution=4)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("x", "y"),
        ("X", "y"),
        ("data", "target"),
        ("data", "labels"),
        ("image", "label"),
        ("images", "y"),
        ("x_train", "y_train"),
        ("X_train", "Y_train"),
        ("train_images", "train_labels"),
        ("x_test", "y_test"),
        ("test_images", "test_labels"),
        ("x_train", "labels"),
        ("train_images", "y"),
    ],
)
def test_arrays_of_usual_names_are_read_and_said(tmp_path, images, labels):
    source, lines = opened(tmp_path, **{images: FIVE, labels: LABELS, "allow_me": np.zeros(3)})
    np.testing.assert_array_equal([source[i][0] for i in range(5)], FIVE)
    assert source.labels.tolist() == LABELS.tolist()
    said = "" if images == "images" and labels == "labels" else f" ({images}, {labels})"
    assert (source.description, lines) == (f"x.npz{said}: 5 images, 3 classes", [])


@pytest.mark.parametrize(
    ("train", "others"),
    [
        (("x_train", "y_train"), ("x_test", "y_test")),
        (("train_images", "train_labels"), ("test_images", "test_labels", "val_images", "val_labels")),
        (("images", "labels"), ("x_test", "y_test", "x_train", "y_train", "arr_0", "arr_1", "y")),
        (("arr_0", "arr_1"), ("x", "y")),
    ],
)
def test_the_training_split_and_the_names_of_numpy_come_first(tmp_path, train, others):
    arrays = dict(zip(train, (FIVE, LABELS), strict=True))
    arrays |= {name: TEST if name[0] in "xtva" and "label" not in name else np.arange(2) for name in others}
    source, _ = opened(tmp_path, **arrays)
    np.testing.assert_array_equal([source[i][0] for i in range(5)], FIVE)
    assert source.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("x", "data"), "one array of images; any of ['x', 'data'] may be it"),
        (("x", "X"), "one array of images; any of ['x', 'X'] may be it"),
        (("x_train", "train_images"), "one array of images; any of ['x_train', 'train_images'] may be it"),
        (("pixels",), "it holds ['pixels']"),
    ],
)
def test_ambiguous_or_unknown_arrays_of_images_are_named(tmp_path, names, said):
    assert said in refused(tmp_path, **dict.fromkeys(names, FIVE))


def test_ambiguous_labels_are_named(tmp_path):
    assert "any of ['target', 'y'] may be it" in refused(tmp_path, x=FIVE, target=LABELS, y=LABELS)


def test_arrays_without_known_labels_are_said(tmp_path):
    source, lines = opened(tmp_path, images=FIVE, breeds=LABELS)
    assert source.num_classes == 0
    assert lines == [
        f"'{tmp_path / 'x.npz'}' is read without labels: none of its arrays ['images', 'breeds'] is named as labels are"
    ]


def test_images_without_channels_are_grey(tmp_path):
    grey = noise(6, 5, 7)
    source, _ = opened(tmp_path, x_train=grey, y_train=np.array([[0], [1], [2], [2], [1], [0]], np.uint8))
    np.save(tmp_path / "x.npy", grey)
    expected = noise(6, 5, 7)[..., None]
    np.savez(tmp_path / "other.npz", images=expected)
    others = [open_source(str(tmp_path / name), resolution=4) for name in ("x.npy", "other.npz")]
    for other in others:
        np.testing.assert_array_equal([source[i][0] for i in range(6)], [other[i][0] for i in range(6)])
    assert source.labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert natural_resolution(str(tmp_path / "x.npy")) == 5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_image_is_not_taken_for_many_narrow_ones(tmp_path, channels):
    assert f"got uint8 [4, 5, {channels}]" in refused(tmp_path, images=noise(4, 5, channels))


def test_labels_of_several_columns_are_refused(tmp_path):
    assert "got int64 [5, 2]" in refused(tmp_path, x=FIVE, y=np.zeros((5, 2), int))
    assert "got float64 [5]" in refused(tmp_path, x=FIVE, y=LABELS[:, None] / 2)


def test_sparse_arrays_are_read_and_large_ones_have_a_way_out(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((50, 64, 64, 3), np.uint8))
    assert len(open_source(str(tmp_path / "x.npz"), resolution=4)) == 50
    monkeypatch.setattr(array_files, "FREE_BYTES", 2**19)
    message = refusal(open_source, str(tmp_path / "x.npz"), resolution=4)
    assert "to 614,528 bytes. Is it a decompression bomb? If not, save it with np.savez, without" in message
    np.savez(tmp_path / "x.npz", images=np.zeros((50, 64, 64, 3), np.uint8))
    assert len(open_source(str(tmp_path / "x.npz"), resolution=4)) == 50
