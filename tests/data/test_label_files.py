import json

import numpy as np
import pytest

from sagan_jax.data import label_files, open_source
from support.archives import write_folder, write_zip
from support.assertions import refusal
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

NAMES = ["00000/img0.png", "00000/img1.png", "00000/img2.png", "00001/img3.png", "00001/img4.png"]
CLASSES = [2, 0, 1, 1, 0]
FILES = {name: encoded(noise(4, 4, 3, seed=seed)) for seed, name in enumerate(NAMES)}
PIXELS = [noise(4, 4, 3, seed=seed).tolist() for seed in range(5)]
LABELS = json.dumps({"labels": [[name, label] for name, label in zip(NAMES, CLASSES, strict=True)][::-1]}).encode()


@pytest.fixture(params=["folder", "zip"])
def pack(request, tmp_path):
    """Writes files as a folder or as a zip."""
    kind = {"folder": write_folder, "zip": write_zip}[request.param]
    return lambda files, name="x.zip": kind(tmp_path / name, files)


def opened(path, **options):
    lines = []
    return open_source(str(path), **{"resolution": 4, "notify": lines.append, **options}), lines


def test_labels_of_dataset_json_are_those_of_its_names(pack):
    path = pack(FILES | {"dataset.json": LABELS})
    source, lines = opened(path)
    assert contents(source) == (PIXELS, CLASSES)
    assert source.class_names == ("0", "1", "2")
    assert lines == [f"'{path}': the labels are those in 'dataset.json', not the folders"]


@pytest.mark.parametrize("inside", [True, False])
def test_labels_of_dataset_json_in_or_beside_a_single_folder_are_read(pack, inside):
    labels = LABELS if inside else LABELS.replace(b'"0', b'"all/0')
    files = {f"all/{name}": data for name, data in FILES.items()}
    source, _ = opened(pack(files | {"all/dataset.json" if inside else "dataset.json": labels}))
    assert contents(source) == (PIXELS, CLASSES)


def test_labels_of_dataset_json_cover_images_at_the_top(pack):
    files = {name.partition("/")[2]: data for name, data in FILES.items()}
    labels = LABELS.replace(b"00000/", b"").replace(b"00001/", b"")
    assert contents(opened(pack(files | {"dataset.json": labels}))[0]) == (PIXELS, CLASSES)


def test_null_in_dataset_json_means_no_labels(pack):
    path = pack(FILES | {"dataset.json": b'{"labels": null}'})
    source, lines = opened(path)
    assert (source.num_classes, contents(source)) == (0, (PIXELS, [0] * 5))
    assert lines == [f"'{path}' has no labels, according to its 'dataset.json'"]


def test_labels_of_images_that_are_not_there_are_ignored(pack):
    kept = {name: data for name, data in FILES.items() if name != NAMES[4]}
    assert contents(opened(pack(kept | {"dataset.json": LABELS}))[0])[1] == CLASSES[:4]


@pytest.mark.parametrize("other", [b"[]", b'{"name": "birds"}', b"3"])
def test_dataset_json_of_another_kind_is_no_label_file(pack, other):
    path = pack(FILES | {"dataset.json": other})
    source, lines = opened(path)
    assert source.class_names == ("00000", "00001")
    assert lines == [f"'{path}': ignored 1 file that is not read as an image: 1 .json"]


def labels_of(*entries):
    return json.dumps({"labels": entries}).encode()


WHOLE = list(zip(NAMES, CLASSES, strict=True))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (labels_of(*WHOLE[1:]), "1 of 5 have none, such as '00000/img0.png'"),
        (labels_of(*WHOLE[:3]), "2 of 5 have none, such as '00001/img3.png'"),
        (labels_of(*((name, label + 1) for name, label in WHOLE)), "class 0 has none. Do the labels start at 0?"),
        (labels_of((NAMES[0], [0.5, 0.5]), *WHOLE[1:]), 'it holds ["00000/img0.png", [0.5, 0.5]]'),
        (labels_of((NAMES[0], True), *WHOLE[1:]), 'it holds ["00000/img0.png", true]'),
        (labels_of((NAMES[0], -1), *WHOLE[1:]), 'it holds ["00000/img0.png", -1]'),
        (labels_of((NAMES[0], 10**400), *WHOLE[1:]), "it holds ["),
        (labels_of((NAMES[0], "cat"), *WHOLE[1:]), 'it holds ["00000/img0.png", "cat"]'),
        (labels_of(NAMES[0]), 'it holds "00000/img0.png"'),
        (labels_of(*WHOLE, (NAMES[0], 0)), "'00000/img0.png' has two"),
        (b'{"labels": {"a": 1}}', 'as a list of [name, class]; it holds {"a": 1}'),
        (b'{"labels": ', "Cannot read the labels 'dataset.json'"),
        (b"[" * 100_000, "Cannot read the labels 'dataset.json'"),
        (b"\xff\xfe", "Cannot read the labels 'dataset.json'"),
        (b'{"labels": [["x", ' + b"9" * 5000 + b"]]}", "Cannot read the labels 'dataset.json'"),
    ],
)
def test_wrong_dataset_json_is_refused(pack, labels, said):
    path = pack(FILES | {"dataset.json": labels})
    message = refusal(opened, path)
    assert said in message
    assert f"'dataset.json' of '{path}'" in message


def test_huge_dataset_json_is_refused(pack, monkeypatch):
    monkeypatch.setattr(label_files, "MAX_LABEL_FILE_BYTES", len(LABELS) - 1)
    assert f"it has more than {len(LABELS) - 1:,} bytes" in refusal(opened, pack(FILES | {"dataset.json": LABELS}))


def test_dataset_json_without_images_is_said(pack):
    assert "it holds 'dataset.json' and no images" in refusal(opened, pack({"dataset.json": LABELS}))


def test_fingerprint_and_cache_follow_the_labels(pack, tmp_path):
    kept = str(tmp_path / "kept")
    first, _ = opened(pack(FILES | {"dataset.json": LABELS}), cache=kept)
    changed = LABELS.replace(b'img0.png", 2', b'img0.png", 1').replace(b'img1.png", 0', b'img1.png", 2')
    second, lines = opened(pack(FILES | {"dataset.json": changed}), cache=kept)
    assert contents(second) == (PIXELS, [1, 2, 1, 1, 0])
    assert first.fingerprint != second.fingerprint
    assert not any("damaged" in line for line in lines)
    assert np.array_equal(first.labels, CLASSES)
