import numpy as np
import pytest

from sagan_jax.data import open_source
from support.archives import write_folder
from support.assertions import refusal
from support.images import encoded, noise

pytestmark = pytest.mark.one_jax

PNG = encoded(noise(4, 4, 3))
CLASSES = {"cat/1.png": PNG, "dog/2.png": PNG}
FINISHED = ["config.json", "environment.json", "metrics.jsonl", "samples/step.png", "checkpoints/4/meta", "report.html"]


def run_in(folder, names=FINISHED):
    return {f"{folder}/{name}": PNG if name.endswith("png") else b"" for name in names}


def opened(path, **options):
    lines = []
    return open_source(str(path), **{"resolution": 4, "notify": lines.append, **options}), lines


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (run_in("runs/digits_32"), "'runs'"),
        (run_in("runs/digits_32", [".lock"]), "'runs'"),
        (run_in("runs/a") | run_in("runs/b") | {"runs/all.png": PNG, "runs/notes.txt": b""}, "'runs'"),
        (run_in("out"), "'out'"),
        (run_in("out", [".lock"]), "'out'"),
        (run_in("converted", ["config.json", "checkpoints/0/meta"]), "'converted'"),
        (run_in("a/b/run"), "'a'"),
        (run_in("cat/run") | run_in("runs/x"), "'cat/run', 'runs'"),
        (run_in("kept", ["0a.npy", "0a.ledger.npz", "0a.lock"]), "'kept'"),
    ],
)
def test_runs_and_caches_below_a_source_are_no_classes(tmp_path, files, said):
    plain, _ = opened(write_folder(tmp_path / "plain" / "x", CLASSES))
    path = write_folder(tmp_path / "x", CLASSES | files)
    source, lines = opened(path)
    assert source.class_names == ("cat", "dog")
    assert source.fingerprint == plain.fingerprint
    assert lines == [f"'{path}': ignored folders of runs and caches: {said}"]


def test_runs_beside_plain_images_or_a_single_folder_are_no_classes(tmp_path):
    source, _ = opened(write_folder(tmp_path / "flat", {"1.png": PNG, "2.png": PNG} | run_in("runs/x")))
    assert source.description == "flat: 2 images, unlabelled"
    wrapped = {f"all/{name}": data for name, data in CLASSES.items()}
    source, _ = opened(write_folder(tmp_path / "wrapped", wrapped | run_in("runs/x")))
    assert source.class_names == ("cat", "dog")


def test_a_source_that_is_a_workdir_too_has_no_classes_of_the_run(tmp_path):
    files = {name.removeprefix("x/"): data for name, data in run_in("x").items()}
    source, _ = opened(write_folder(tmp_path / "x", CLASSES | files | {"attention/a.png": PNG, ".lock": b""}))
    assert source.class_names == ("cat", "dog")


def test_a_source_inside_a_workdir_is_read(tmp_path):
    write_folder(tmp_path / "run", run_in("photos") | {"config.json": b"", "environment.json": b""})
    write_folder(tmp_path / "run" / "images", CLASSES)
    assert opened(tmp_path / "run" / "images")[0].class_names == ("cat", "dog")


@pytest.mark.parametrize("folder", [".cache", "__MACOSX", ".ipynb_checkpoints", ".git"])
def test_folders_of_other_programs_are_no_classes(tmp_path, folder):
    path = write_folder(tmp_path / "x", CLASSES | {f"{folder}/1.png": PNG, f"cat/{folder}/1.png": PNG})
    source, lines = opened(path)
    assert source.description == "x: 2 images, 2 classes"
    assert lines == []


def test_classes_named_like_folders_of_a_run_are_classes(tmp_path):
    files = {f"{name}/1.png": PNG for name in ("best", "samples", "runs", "checkpoints")}
    assert opened(write_folder(tmp_path / "x", files))[0].class_names == ("best", "checkpoints", "runs", "samples")


def test_an_empty_folder_is_still_named(tmp_path):
    (write_folder(tmp_path / "x", CLASSES) / "emu").mkdir()
    assert "'emu' has none" in refusal(opened, tmp_path / "x")


def test_a_cache_inside_the_source_is_used(tmp_path):
    path = write_folder(tmp_path / "x", CLASSES)
    for _ in range(2):
        source, _ = opened(path, cache=str(path / "kept"))
        assert np.array_equal(source.labels, [0, 1])
    assert list((path / "kept").glob("*.ledger.npz"))


def test_links_to_an_outer_folder_end(tmp_path):
    path = write_folder(tmp_path / "x", {"a/1.png": PNG, "a/b/2.png": PNG, "dataset.json": b'{"labels": null}'})
    (path / "a" / "b" / "up").symlink_to(path, target_is_directory=True)
    assert len(opened(path)[0]) == 2
