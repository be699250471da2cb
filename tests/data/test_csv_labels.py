import numpy as np
import pytest

from sagan_jax.data import csv_labels, open_source
from support.archives import write_folder, write_zip
from support.assertions import refusal
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

NAMES = ["a.png", "b,1.png", "c.png", "d.png", "é.png"]
CLASSES = [1, 0, 2, 2, 0]
FILES = {name: encoded(noise(4, 4, 3, seed=seed)) for seed, name in enumerate(NAMES)}
PIXELS = [noise(4, 4, 3, seed=seed).tolist() for seed in range(5)]
ROWS = 'a.png,1\n"b,1.png",0\nc.png,2\nd.png,2\né.png,0\n'


@pytest.fixture(params=["folder", "zip"])
def pack(request, tmp_path):
    """Writes files as a folder or as a zip."""
    kind = {"folder": write_folder, "zip": write_zip}[request.param]
    return lambda files, name="x.zip": kind(tmp_path / name, files)


@pytest.fixture
def opened(tmp_path):
    """Returns a function that opens a source with the labels of a CSV file outside it, and gives its messages too."""

    def opened(path, text, **options):
        data = text if isinstance(text, bytes) else text.encode()
        csv = write_folder(tmp_path / "elsewhere", {"labels.csv": data}) / "labels.csv"
        lines = []
        options = {"resolution": 4, "labels": str(csv), "notify": lines.append} | options
        return open_source(str(path), **options), lines

    return opened


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "file,class\n" + ROWS,
        "Image Name,Label\n" + ROWS,
        "\ufeff" + ROWS,
        "\ufefffile,class\n" + ROWS,
        ROWS.replace("\n", "\r\n"),
        ROWS.replace("\n", "\r"),
        ROWS.rstrip("\n"),
        ROWS.replace("\n", "\n\n , \n"),
        ROWS.replace(",", ", ").replace("b, 1", "b,1"),
        "".join(f'"{name}","{label}"\r\n' for name, label in zip(NAMES, CLASSES, strict=True)),
        "\n".join(ROWS.splitlines()[::-1]),
        "class,width,file\n" + "".join(f'{c},7,"{name}"\n' for name, c in zip(NAMES, CLASSES, strict=True)),
        ROWS + ROWS,
        ",filename,label\n" + "".join(f'{i},"{name}",{CLASSES[i]}\n' for i, name in enumerate(NAMES)),
        "file;class\n" + "".join(f'"{name}";{label}\n' for name, label in zip(NAMES, CLASSES, strict=True)),
        "".join(f'"{name}"\t{label}\n' for name, label in zip(NAMES, CLASSES, strict=True)),
        ROWS.replace("a.png", "./a.png"),
        "".join(f'"{name}",{label}.0\n' for name, label in zip(NAMES, CLASSES, strict=True)),
    ],
)
def test_csv_gives_each_image_its_class(pack, opened, text):
    source, lines = opened(pack(FILES), text)
    assert contents(source) == (PIXELS, CLASSES)
    assert source.class_names == ("0", "1", "2")
    assert len(lines) == 1
    assert lines[0].endswith("labels.csv'")


def test_class_names_in_a_csv_are_sorted_by_their_bytes(pack, opened):
    names = ["owl", "Éon", "Zebra 2", "Zebra 2", "Éon"]
    text = "".join(f'"{name}","{one}"\n' for name, one in zip(NAMES, names, strict=True))
    source, _ = opened(pack(FILES), text)
    assert source.class_names == ("Zebra 2", "owl", "Éon")
    assert source.labels.tolist() == [1, 2, 0, 0, 2]


def test_numbers_beside_a_name_are_names(pack, opened):
    source, _ = opened(pack(FILES), ROWS.replace(",2", ",owl"))
    assert source.class_names == ("0", "1", "owl")


def test_csv_replaces_the_labels_of_folders_and_of_dataset_json(pack, opened):
    files = {f"{number % 2}/{name}": FILES[name] for number, name in enumerate(NAMES)}
    files["dataset.json"] = b'{"labels": [["0/a.png", 0]]}'
    text = "".join(f'"{number % 2}/{name}",{CLASSES[number]}\n' for number, name in enumerate(NAMES))
    source, _ = opened(pack(files), text)
    assert source.labels.tolist() == [1, 2, 0, 0, 2]


@pytest.mark.parametrize("folder", ["all/", "all/deep/er/", "all\\"])
def test_names_in_a_csv_may_be_relative_to_the_folder_of_all_images(pack, opened, folder):
    files = {f"{folder.replace(chr(92), '/')}{name}": data for name, data in FILES.items()}
    for prefix in ("", folder):
        text = "".join(f'"{prefix}{name}",{label}\n' for name, label in zip(NAMES, CLASSES, strict=True))
        source, _ = opened(pack(files), text)
        assert contents(source) == (PIXELS, CLASSES)


def test_images_at_several_levels_get_labels(pack, opened):
    files = {"x.png": FILES["a.png"], "m/n/o/y.png": FILES["c.png"], "m/z.png": FILES["d.png"]}
    source, _ = opened(pack(files), "x.png,cat\nm/n/o/y.png,dog\nm/z.png,cat\n")
    assert contents(source) == ([PIXELS[2], PIXELS[3], PIXELS[0]], [1, 0, 0])


def test_csv_inside_the_source_is_found_there_and_not_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "photos", FILES | {"labels.csv": ROWS.encode()})
    lines = []
    source = open_source(str(folder), resolution=4, labels="labels.csv", notify=lines.append)
    assert source.labels.tolist() == CLASSES
    assert lines == [f"'{folder}': the labels are those in '{folder / 'labels.csv'}'"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file,class\na.png,0\nd.png,1\nz.png,1\n",
            "3 of 5 images, such as 'b,1.png', have no row, and 1 of 3 rows, such as 'z.png', name no image",
        ),
        (ROWS + "z.png,0\n", "0 of 5 images have no row, and 1 of 6 rows, such as 'z.png', name no image"),
        (ROWS.replace("c.png,2\n", ""), "1 of 5 images, such as 'c.png', have no row, and 0 of 4 rows name no image"),
        (ROWS + "a.png,2\n", "'a.png' has two"),
        (ROWS + "./a.png,2\n", "'a.png' has two"),
        (ROWS.replace(",2", ",3"), "class 2 has none"),
        (ROWS.replace(",2", ",-1"), "labels of at least 0; got -1"),
        (ROWS.replace("c.png,2", "c.png,"), "line 3 holds 'c.png,'"),
        (ROWS.replace("\n", "\n\n").replace("c.png,2", ",2"), "line 5 holds ',2'"),
        (ROWS.replace("c.png,2", "c.png"), "line 3 has 1: 'c.png'"),
        (ROWS.replace("c.png,2", "c.png,2,7"), "line 3 has 3: 'c.png,2,7'"),
        (ROWS.replace(",", "|"), "Are they separated by commas?"),
        ("file,class\n", "it has none"),
        ("", "it has none"),
        (ROWS.encode("utf-16"), "as a CSV file in UTF-8"),
        (ROWS.encode("latin-1"), "as a CSV file in UTF-8"),
        (b"\0" * 100, "line 1 has 1"),
        ('"' + ROWS.replace('"', ""), "has 1: 'a.png,1"),
        ("a.png," + "x" * 200_000, "as a CSV file in UTF-8"),
    ],
)
def test_wrong_csv_is_refused_in_one_line(pack, opened, text, said):
    message = refusal(opened, pack(FILES), text)
    assert said in message
    assert "labels.csv'" in message


def test_huge_csv_is_refused(pack, opened, monkeypatch):
    monkeypatch.setattr(csv_labels, "MAX_CSV_BYTES", len(ROWS.encode()) - 1)
    assert f"it has more than {len(ROWS.encode()) - 1:,} bytes" in refusal(opened, pack(FILES), ROWS)


def test_csv_that_is_not_there_or_no_file_is_refused(pack, opened, tmp_path):
    assert "'no.csv' is neither in" in refusal(opened, pack(FILES), ROWS, labels="no.csv")
    assert "is not a regular file" in refusal(opened, pack(FILES), ROWS, labels=str(tmp_path))


def test_csv_for_a_source_with_its_own_labels_is_refused(opened, tmp_path):
    np.savez(tmp_path / "x.npz", images=noise(3, 4, 4, 3))
    for source in (str(tmp_path / "x.npz"), "digits", "pairs"):
        assert "is for images in a folder or a zip" in refusal(opened, source, ROWS)


def test_fingerprint_and_cache_follow_the_csv(pack, opened, tmp_path):
    path, kept = pack(FILES), str(tmp_path / "kept")
    first, _ = opened(path, ROWS, cache=kept)
    second, lines = opened(path, ROWS.replace("a.png,1", "a.png,2").replace("c.png,2", "c.png,1"), cache=kept)
    assert contents(second) == (PIXELS, [2, 0, 1, 2, 0])
    assert first.fingerprint != second.fingerprint
    assert len(lines) == 1
    again, _ = opened(path, "file,class\r\n" + ROWS, cache=kept)
    assert (contents(again), again.fingerprint) == ((PIXELS, CLASSES), first.fingerprint)
