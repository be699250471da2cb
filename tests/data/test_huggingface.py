"""Folders that `save_to_disk` of Hugging Face datasets wrote."""

import sys

import numpy as np
import pytest

from sagan_jax.data import natural_resolution, open_source
from support.assertions import refusal
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

datasets = pytest.importorskip("datasets", reason="the extra `datasets` is not installed")

SIZE, NAMES = 5, ["ant", "bee", "cat"]
LABELS = [2, 0, 1, 2, 0]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()


def pixels(number):
    return noise(SIZE, SIZE, 3, seed=number)


def made(columns):
    """Returns a data set. `columns` maps each name to the values and the feature of the column."""
    features = datasets.Features({name: feature for name, (_, feature) in columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (values, _) in columns.items()}, features=features)


def images(numbers):
    return [{"bytes": encoded(pixels(number)), "path": None} for number in numbers], datasets.Image()


def classes(labels, names=NAMES):
    return labels, datasets.ClassLabel(names=names)


def opened(path, **options):
    lines = []
    return open_source(str(path), **{"resolution": SIZE, "cache": "", "notify": lines.append, **options}), lines


def refused(path, **options):
    return refusal(opened, path, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved data set in two files; read only."""
    folder = tmp_path_factory.mktemp("saved") / "insects"
    made({"picture": images(range(5)), "kind": classes(LABELS)}).save_to_disk(folder, num_shards=2)
    return folder


def test_rows_are_images_with_the_labels_and_names_of_the_feature(saved):
    source, lines = opened(saved)
    assert contents(source) == ([pixels(number).tolist() for number in range(5)], LABELS)
    assert source.class_names == tuple(NAMES)
    assert source.description == "insects: 5 images, 3 classes"
    assert natural_resolution(str(saved)) == SIZE
    assert lines == []


def test_split_train_of_several_is_read_and_said(tmp_path):
    parts = {
        name: made({"img": images(numbers), "label": classes([number % 3 for number in numbers])})
        for name, numbers in (("test", (7, 8)), ("train", (3, 4, 5)))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "all")
    source, lines = opened(tmp_path / "all")
    assert contents(source) == ([pixels(number).tolist() for number in (3, 4, 5)], [0, 1, 2])
    assert lines == [f"reading one of the 2 splits in '{tmp_path / 'all'}': 'train'"]
    assert source.description.startswith("all/train: 3 images")
    assert len(opened(tmp_path / "all" / "test")[0]) == 2
    del parts["train"]
    datasets.DatasetDict(parts | {"validation": parts["test"]}).save_to_disk(tmp_path / "no")
    assert "needs one split, or a split 'train'; it holds 'test', 'validation'" in refused(tmp_path / "no")


def test_columns_may_be_named_and_have_to_be_named_where_there_are_several(tmp_path):
    columns = {
        "left": images([0, 1, 2]),
        "right": images([5, 6, 7]),
        "family": classes([0, 1, 0], ["x", "y"]),
        "kind": classes([2, 1, 0]),
        "count": ([1, 0, 1], datasets.Value("int64")),
        "note": (["a", "b", "c"], datasets.Value("string")),
    }
    made(columns).save_to_disk(tmp_path / "x")
    source, _ = opened(tmp_path / "x", image_column="right", label_column="kind")
    assert contents(source) == ([pixels(number).tolist() for number in (5, 6, 7)], [2, 1, 0])
    assert opened(tmp_path / "x", image_column="left", label_column="count")[0].class_names == ("0", "1")
    both = refused(tmp_path / "x", image_column="left")
    assert "has several columns of classes, 'family', 'kind': give one with --label-column." in both
    assert "such columns are 'left', 'right'. Give one with --image-column." in refused(tmp_path / "x")
    assert "needs a column 'note' of the feature Image" in refused(tmp_path / "x", image_column="note")
    line = refused(tmp_path / "x", image_column="left", label_column="note")
    assert "needs a column 'note' of the feature ClassLabel, or of integers; such columns are 'family'" in line


def test_data_set_without_labels_or_images_says_so(tmp_path):
    made({"image": images([0, 1]), "text": (["a", "b"], datasets.Value("string"))}).save_to_disk(tmp_path / "a")
    source, lines = opened(tmp_path / "a")
    assert source.num_classes == 0
    assert lines == [f"'{tmp_path / 'a'}' is read without labels: none of its columns 'image', 'text' holds classes"]
    made({"text": (["a"], datasets.Value("string"))}).save_to_disk(tmp_path / "b")
    assert "such columns are none. Its columns are 'text'." in refused(tmp_path / "b")


def test_column_of_arrays_is_no_column_of_labels(tmp_path):
    masks = [np.zeros((2, 2), np.int32)] * 2, datasets.Array2D((2, 2), "int32")
    made({"image": images([0, 1]), "label": masks}).save_to_disk(tmp_path / "a")
    assert opened(tmp_path / "a")[0].num_classes == 0
    assert "such columns are none" in refused(tmp_path / "a", label_column="label")


def test_labels_of_a_hidden_split_and_rows_without_bytes_are_named(tmp_path):
    made({"image": images([0, 1]), "label": classes([-1, -1])}).save_to_disk(tmp_path / "a")
    assert "got -1 in row 0. Is it a split without labels?" in refused(tmp_path / "a")
    rows, feature = images([0, 1])
    made({"image": ([rows[0], None], feature)}).save_to_disk(tmp_path / "b")
    assert "Cannot read image 'row 1' of" in (line := refused(tmp_path / "b"))
    assert line.endswith("its row holds no bytes.")


def test_damaged_folder_is_named_in_one_line(saved, tmp_path):
    import shutil

    shutil.copytree(saved, tmp_path / "x")
    file = next((tmp_path / "x").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:400])
    assert refused(tmp_path / "x").startswith(f"Cannot read '{tmp_path / 'x'}' as a folder of datasets: ")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "dataset_dict.json").write_text("[")
    assert "dataset_dict.json" in refused(tmp_path / "y")


def test_fingerprint_follows_the_images(saved, tmp_path):
    made({"picture": images([0, 1, 2, 3, 9]), "kind": classes(LABELS)}).save_to_disk(tmp_path / "x", num_shards=2)
    assert opened(saved)[0].fingerprint != opened(tmp_path / "x")[0].fingerprint
    assert opened(saved)[0].fingerprint == opened(saved, resolution=3)[0].fingerprint


def test_each_column_of_images_has_a_cache_and_a_fingerprint_of_its_own(tmp_path):
    made({"image": images([0, 1]), "mask": images([5, 6])}).save_to_disk(tmp_path / "x")
    usual, named, mask = (
        opened(tmp_path / "x", image_column=name, cache=str(tmp_path / "kept"))[0] for name in ("", "image", "mask")
    )
    assert contents(mask)[0] == [pixels(number).tolist() for number in (5, 6)]
    assert usual.fingerprint == named.fingerprint != mask.fingerprint


def test_fingerprint_follows_the_images_where_datasets_would_load_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "IN_MEMORY_MAX_SIZE", 10**9)
    for name, numbers in (("a", (0, 1)), ("b", (0, 2))):
        made({"image": images(numbers)}).save_to_disk(tmp_path / name)
    assert opened(tmp_path / "a")[0].fingerprint != opened(tmp_path / "b")[0].fingerprint


def test_missing_package_is_named_with_its_extra(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'sagan-jax[datasets]'" in refused(saved)


def test_cached_images_are_those_of_the_folder(saved, tmp_path):
    first, second = (opened(saved, resolution=4, cache=str(tmp_path))[0] for _ in range(2))
    assert contents(first) == contents(second) == contents(opened(saved, resolution=4)[0])
    assert list(tmp_path.glob("*.npy"))
    assert np.array_equal(first.labels, LABELS)
