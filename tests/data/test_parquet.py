import json
import sys

import numpy as np
import pytest

from sagan_jax.data import open_source, parquet
from support.archives import write_folder
from support.assertions import refusal
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
pq = pytest.importorskip("pyarrow.parquet")

SIZE = 5


def pixels(number):
    return noise(SIZE, SIZE, 3, seed=number)


def png(number):
    return encoded(pixels(number))


def write(path, numbers, labels=None, *, image="image", label="label", names=None, plain=False, group=3, kind=None):
    """Writes the images `numbers` in the layout of published sets. `names` go into the metadata of Hugging Face."""
    files = [png(number) if isinstance(number, int) else number for number in numbers]
    columns = {image: files if plain else [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(files)]}
    if labels is not None:
        columns[label] = pa.array(labels, kind)
    table = pa.table(columns)
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def opened(path, **options):
    lines = []
    return open_source(str(path), **{"resolution": SIZE, "notify": lines.append, **options}), lines


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("image", ["image", "img"])
def test_parquet_rows_are_its_images_in_order(tmp_path, image, plain):
    source, _ = opened(write(tmp_path / "x.parquet", range(8), [0, 1, 2, 1, 0, 2, 0, 1], image=image, plain=plain))
    assert contents(source) == ([pixels(i).tolist() for i in range(8)], [0, 1, 2, 1, 0, 2, 0, 1])
    assert source.class_names == ("0", "1", "2")


def test_parquet_class_names_come_from_the_metadata_of_its_schema(tmp_path):
    source, _ = opened(write(tmp_path / "x.parquet", range(3), [2, 0, 1], names=["tench", "gold fish", "hén"]))
    assert source.class_names == ("tench", "gold fish", "hén")
    assert source.description == "x.parquet: 3 images, 3 classes"


def test_parquet_without_labels_is_unlabelled(tmp_path):
    source, _ = opened(write(tmp_path / "x.parquet", range(2)))
    assert (source.num_classes, source[1][1]) == (0, 0)


@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "class"])
def test_parquet_labels_may_be_in_a_column_of_each_usual_name(tmp_path, column):
    source, lines = opened(write(tmp_path / "x.parquet", range(2), [1, 0], label=column, names=["ant", "bee"]))
    assert ([source[i][1] for i in range(2)], source.class_names) == ([1, 0], ("ant", "bee"))
    assert lines == []


def test_first_label_column_of_integers_is_taken(tmp_path):
    files = [png(0), png(1), png(2)]
    columns = {"class": [0, 0, 1], "fine_label": [2, 0, 1], "label": ["c", "a", "b"], "image": files}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert contents(opened(tmp_path / "x.parquet")[0])[1] == [2, 0, 1]


@pytest.mark.parametrize(("column", "values"), [("target", [1, 0]), ("labels", [[1], [0, 1]]), ("class", ["a", "b"])])
def test_parquet_whose_columns_hold_no_labels_says_which_there_are(tmp_path, column, values):
    path = write(tmp_path / "x.parquet", range(2), values, label=column)
    source, lines = opened(path)
    assert source.num_classes == 0
    assert lines == [
        f"'{path}' is read without labels: of its columns 'image', '{column}', none holds integers and is named label, "
        f"labels, fine_label or class"
    ]


def test_parquet_shards_follow_each_other_in_the_order_of_their_names(tmp_path):
    for shard, numbers in ((2, range(7, 9)), (0, range(4)), (1, range(4, 7))):
        write(tmp_path / f"train-{shard:05}-of-00003.parquet", numbers, [n % 3 for n in numbers])
    source, lines = opened(tmp_path)
    assert contents(source) == ([pixels(i).tolist() for i in range(9)], [n % 3 for n in range(9)])
    assert lines == []


def test_published_layout_gives_its_train_split_and_says_so(tmp_path):
    names = ["cat", "dog"]
    write(tmp_path / "plain_text" / "train-00000-of-00001.parquet", range(4), [0, 1, 0, 1], image="img", names=names)
    write(tmp_path / "plain_text" / "test-00000-of-00001.parquet", range(4, 7), [0, 1, 1], image="img", names=names)
    (tmp_path / "README.md").write_text("# CIFAR")
    (tmp_path / ".cache").mkdir()
    source, lines = opened(tmp_path)
    assert len(source) == 4
    assert lines == [f"reading 1 of the 2 parquet files in '{tmp_path}': those of the split 'train'"]


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("default/train/0000", "default/test/0000", "train/"),
        ("default/partial-train/0000", "default/partial-validation/0000", "partial-train/"),
        ("train/0000", "test/0000", "train/"),
        ("train/part-0", "val/part-0", "train/"),
        ("data/train-0000", "data/test-0000", "train"),
        ("train-0000", "validation-0000", "train"),
        ("plain_text/1.0.0/train-0", "plain_text/1.0.0/test-0", "train"),
    ],
)
def test_layouts_of_the_hub_give_their_train_split(tmp_path, train, test, split):
    write(tmp_path / f"{train}.parquet", range(3), [0, 1, 0], names=["cat", "dog"])
    write(tmp_path / f"{train}1.parquet", range(3, 5), [1, 1], names=["cat", "dog"])
    write(tmp_path / f"{test}.parquet", range(5, 7), [0, 1], names=["cat", "dog"])
    source, lines = opened(tmp_path)
    assert contents(source) == ([pixels(i).tolist() for i in range(5)], [0, 1, 0, 1, 1])
    assert lines == [f"reading 2 of the 3 parquet files in '{tmp_path}': those of the split '{split.rstrip('/')}'"]
    assert source.description == f"{tmp_path.name}/{split}*.parquet: 5 images, 2 classes"


def test_one_split_in_its_folder_is_read_without_a_word(tmp_path):
    write(tmp_path / "default" / "test" / "0000.parquet", range(2), [0, 1])
    assert (len(opened(tmp_path)[0]), opened(tmp_path)[1]) == (2, [])
    assert len(opened(tmp_path / "default" / "test")[0]) == 2


def test_several_data_sets_in_a_folder_are_named(tmp_path):
    for name in ("fine", "coarse"):
        write(tmp_path / name / "train" / "0000.parquet", range(2), [0, 1])
    assert "its folders 'coarse', 'fine' each hold some. Give the path of one" in refusal(opened, tmp_path)


def test_class_folders_of_images_are_no_parquet_layout(tmp_path):
    for name in ("train", "test"):
        write_folder(tmp_path / name, {"1.png": png(1)})
    assert opened(tmp_path)[0].class_names == ("test", "train")


def test_label_column_is_the_one_that_was_named(tmp_path):
    columns = {"label": [0, 0, 1], "coarse": [2, 0, 1], "image": [png(0), png(1), png(2)], "text": ["a", "b", "c"]}
    table = pa.table(columns)
    features = {"coarse": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "x.parquet")
    usual, _ = opened(tmp_path / "x.parquet", cache=str(tmp_path / "kept"))
    source, _ = opened(tmp_path / "x.parquet", label_column="coarse", cache=str(tmp_path / "kept"))
    assert (contents(source)[1], source.class_names) == ([2, 0, 1], ("ant", "bee", "cow"))
    assert contents(usual)[1] == [0, 0, 1]
    assert usual.fingerprint != source.fingerprint
    listed = "'label', 'coarse', 'image', 'text'"
    path = tmp_path / "x.parquet"
    assert f"has no column 'Label'; its columns are {listed}" in refusal(opened, path, label_column="Label")
    message = refusal(opened, path, label_column="text")
    assert f"it holds string. Its columns are {listed}. Integers are in 'label', 'coarse'" in message
    assert "it holds binary" in refusal(opened, path, label_column="image")


def test_label_column_of_another_kind_of_source_is_refused(tmp_path):
    folder = write_folder(tmp_path / "x", {"1.png": png(1)})
    for source in (folder, "digits", "pairs"):
        assert "A label column is for parquet files" in refusal(opened, source, label_column="label", resolution=32)
    path = write(tmp_path / "x.parquet", range(2), [0, 1])
    assert "is for images in a folder or a zip" in refusal(opened, path, labels="labels.csv")


def test_several_splits_without_train_are_refused(tmp_path):
    for split in ("test", "validation"):
        write(tmp_path / f"{split}-00000-of-00001.parquet", range(2), [0, 1])
    assert "it holds ['test', 'validation']" in refusal(opened, tmp_path)


def test_missing_shard_is_said(tmp_path):
    for shard in (0, 2):
        write(tmp_path / f"train-{shard:05}-of-00003.parquet", range(2), [0, 1])
    assert "holds 2 of 3 parquet files" in opened(tmp_path)[1][0]


def test_large_parquet_is_read_by_row_group_and_gives_what_a_small_one_gives(tmp_path, monkeypatch):
    for shard in range(2):
        write(tmp_path / f"{shard}.parquet", range(shard * 10, shard * 10 + 10), [0, 1] * 5, group=4)
    expected, _ = opened(tmp_path)
    monkeypatch.setattr("sagan_jax.data.sources.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(parquet, "_CACHED_BYTES", 1)  # keeps one row group
    source, _ = opened(tmp_path)
    read = []
    kept = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(a[1]) or kept(*a, **k))
    for index in (17, 16, 0, 19, 3, 9, 4):
        np.testing.assert_array_equal(source[index][0], expected[index][0])
    assert read == [1, 0, 2, 0, 2, 1]
    np.testing.assert_array_equal(source[-1][0], expected[19][0])


def test_unreadable_parquet_row_is_named(tmp_path):
    write(tmp_path / "0.parquet", range(2), [0, 1])
    write(tmp_path / "1.parquet", [2, 3, b"<html>", 4], [0, 1, 0, 1])
    assert "image '1.parquet row 2'" in refusal(opened, tmp_path)


def test_parquet_row_without_bytes_is_named(tmp_path):
    message = refusal(opened, write(tmp_path / "x.parquet", [0, None], [0, 1]))
    assert "'x.parquet row 1' of" in message
    assert "its row holds no bytes" in message


def test_parquet_rows_that_cannot_be_read_are_skipped(tmp_path):
    path = write(tmp_path / "x.parquet", [0, b"", 2, 3], [0, 1, 2, 1])
    source, _ = opened(path, skip_unreadable=1)
    assert contents(source) == ([pixels(i).tolist() for i in (0, 2, 3)], [0, 2, 1])
    assert source.skipped == ("x.parquet row 1",)


def test_classes_of_the_metadata_without_an_image_are_said(tmp_path):
    source, lines = opened(write(tmp_path / "x.parquet", range(2), [0, 2], names=["ant", "bee", "cow"]))
    assert source.num_classes == 3
    assert "1 of 3 classes" in lines[0]
    assert "'bee'" in lines[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": [0, 1, 2], "names": ["ant", "bee"]}, "from 0 to 1, because it names 2 classes; got 2 in row 2"),
        ({"labels": [0, -1, -1], "names": ["ant", "bee"]}, "got -1 in row 1. Is it a split without labels?"),
        ({"labels": [0, -1, 1]}, "got -1 for image 1"),
        ({"labels": [0, 1, 3]}, "class 2 has none"),
        ({"labels": [0.0, 1.0, 0.5]}, "integer labels in its column 'label'; it holds double"),
        ({"labels": ["a", "b", "c"]}, "it holds string. Its columns are 'image', 'label'."),
        ({"labels": [0, 1, None], "kind": pa.int64()}, "row 2 has none"),
        (
            {"labels": [0, 1, 2], "image": "picture"},
            "needs a column `image` or `img`; its columns are 'picture', 'label'",
        ),
    ],
)
def test_parquet_with_wrong_columns_is_refused(tmp_path, options, said):
    assert said in refusal(opened, write(tmp_path / "x.parquet", range(3), **options))


@pytest.mark.parametrize("column", [["a.png", "b.png"], [{"path": "a.png"}, {"path": "b.png"}]])
def test_parquet_of_paths_is_refused(tmp_path, column):
    pq.write_table(pa.table({"image": column}), tmp_path / "x.parquet")
    assert "needs the bytes of image files in its column 'image'" in refusal(opened, tmp_path / "x.parquet")


@pytest.mark.parametrize("twice", ["image", "label"])
def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path, twice):
    path = write(tmp_path / "train.parquet", [0, 1, 2], [0, 1, 1], plain=True)
    table = pq.read_table(path)
    pq.write_table(table.append_column(twice, table.column(twice)), path)
    assert f"needs one column '{twice}'; it has 2." in refusal(opened, path)


def test_columns_that_are_not_read_may_have_one_name(tmp_path):
    path = write(tmp_path / "train.parquet", [0, 1, 2], [0, 1, 1], plain=True)
    numbers = pa.array([5, 6, 7])
    pq.write_table(pq.read_table(path).append_column("class", numbers).append_column("class", numbers), path)
    source, _ = opened(path)
    assert source.labels.tolist() == [0, 1, 1]


def test_parquet_shards_of_two_kinds_are_refused(tmp_path):
    write(tmp_path / "0.parquet", range(2), [0, 1], names=["ant", "bee"])
    write(tmp_path / "1.parquet", range(2), [0, 1], names=["bee", "ant"])
    assert "needs files with the same columns; '1.parquet' has" in refusal(opened, tmp_path)


@pytest.mark.parametrize("metadata", [b"{", b"[1]", b'{"info": null}', b"[" * 100_000, b"\xff"])
def test_parquet_with_strange_metadata_has_numbers_for_class_names(tmp_path, metadata):
    table = pa.table({"image": [png(0), png(1)], "label": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    assert opened(tmp_path / "x.parquet")[0].class_names == ("0", "1")


def test_truncated_parquet_is_refused(tmp_path):
    path = write(tmp_path / "x.parquet", range(4), [0, 1, 0, 1])
    path.write_bytes(path.read_bytes()[:-40])
    assert "x.parquet' as parquet" in refusal(opened, path)


def test_parquet_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "x.parquet")
    assert "have no rows" in refusal(opened, tmp_path / "x.parquet")


def test_parquet_without_pyarrow_names_the_extra_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", range(2))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'sagan-jax[parquet]'" in refusal(opened, path)


def test_parquet_fingerprint_follows_its_bytes(tmp_path):
    prints = {
        opened(write(tmp_path / "x.parquet", numbers, [0, 1]))[0].fingerprint for numbers in ([0, 1], [0, 1], [0, 2])
    }
    assert len(prints) == 2


@pytest.mark.parametrize("plain", [False, True])
def test_each_column_of_images_has_a_cache_and_a_fingerprint_of_its_own(tmp_path, plain):
    columns = {
        name: [png(number) if plain else {"bytes": png(number), "path": ""} for number in numbers]
        for name, numbers in (("mask", (5, 6)), ("img", (0, 1)))
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    usual, named, mask = (
        opened(tmp_path / "x.parquet", image_column=name, cache=str(tmp_path / "kept"))[0]
        for name in ("", "img", "mask")
    )
    assert contents(mask)[0] == [pixels(number).tolist() for number in (5, 6)]
    assert usual.fingerprint == named.fingerprint != mask.fingerprint
