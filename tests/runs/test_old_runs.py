"""Workdirs of earlier versions: each is resumed, sampled, scored, explored and exported as before.

They were made by the project at 78fd236, one for each task and family; `old-runs/README.md` of the shared data has the
commands.
"""

import json
import tarfile
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from PIL import Image

from sagan_jax.runs.load import load_completer, load_run
from sagan_jax.runtime.checkpoints import Checkpoints
from support.array_files import arrays_of
from support.commands import command
from support.explorer_pages import decoded, embedded

FLAGS = {
    "sagan": "digits_32 --base-channels 2 --latent-size 8",
    "unconditional": "pairs_32 --source pairs:images=64 --protocols --base-channels 2 --latent-size 8",
    "dcgan": "dcgan_cifar10_32 --source digits --held-out= --base-channels 2 --latent-size 8",
    "biggan": "biggan_cifar10_32 --source digits --held-out= --base-channels 2",
    "completion": "faces_completion_64 --source mirror:images=64 --held-out= --base-channels 2 --latent-size 8",
}
FLAGS_OF_ALL = "--save-every-steps 2 --batch-size 8 --sample-every-steps 4 --log-every-steps 2"
BATCH = 20  # of all commands that draw, so each network is compiled once
GENERATING = ["sagan", "unconditional", "dcgan", "biggan"]


@pytest.fixture
def old_run(shared, tmp_path):
    """Returns a function that unpacks the workdir of a name."""

    def unpack(name: str) -> Path:
        with tarfile.open(shared / "old-runs" / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path / name

    return unpack


def run(*words: object) -> None:
    assert command(*words) == 0


def assert_same_images(images: np.ndarray, expected: np.ndarray) -> None:
    """Checks that the images are the same; another compiler may round a value to the next level."""
    assert images.shape == expected.shape
    assert abs(images.astype(int) - expected).max() <= 1
    assert (images == expected).mean() > 0.99


@pytest.mark.parametrize("name", GENERATING)
def test_old_run_draws_the_images_that_it_drew(name, old_run, shared, tmp_path):
    words = "--num-images", 4, "--seed", 3, "--batch-size", BATCH, "--out", tmp_path / "samples.npz"
    run("sample", "--workdir", old_run(name), *words)
    drawn, expected = arrays_of(tmp_path / "samples.npz"), arrays_of(shared / "old-runs" / f"{name}-samples.npz")
    assert_same_images(drawn["arr_0"], expected["arr_0"])
    assert drawn["arr_1"].tolist() == expected["arr_1"].tolist()


def test_old_run_completes_as_it_did(old_run, shared, tmp_path):
    folder = shared / "old-runs"
    words = folder / "photo.png", "--workdir", old_run("completion"), "--mask", folder / "mask.png"
    run("complete", *words, "--out", tmp_path / "completed")
    drawn, expected = (
        np.asarray(Image.open(path / "photo-1.png")) for path in (tmp_path / "completed", folder / "completed")
    )
    assert_same_images(drawn, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAGS)
def test_old_run_is_resumed(name, old_run, capsys, monkeypatch, tmp_path):
    workdir = old_run(name)
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    metrics = (workdir / "metrics.jsonl").read_text()
    run("train", *FLAGS[name].split(), *FLAGS_OF_ALL.split(), "--total-steps", 6, "--workdir", workdir)
    assert "going on from step 4 of 6" in capsys.readouterr().out
    assert (load_completer(workdir) if name == "completion" else load_run(workdir)).step == 6
    written = (workdir / "metrics.jsonl").read_text()
    assert written.startswith(metrics)
    assert {json.loads(line)["step"] for line in written[len(metrics) :].splitlines()} == {6}
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest_step == 6


# Measured by the version that made the runs. How a run is scored does not depend on its family, only on having classes.
DISTANCES = {"sagan": 356.469, "unconditional": 330.7}
QUALITY = {"psnr": 14.93, "l1": 0.1482, "ssim": 0.1736, "diversity": 0.0024, "psnr_image": 20.95, "ssim_image": 0.6828}


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("name", DISTANCES)
def test_old_run_has_the_score_that_it_had(name, old_run, monkeypatch, tmp_path):
    workdir = old_run(name)
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    run("evaluate", "--workdir", workdir, "--protocol", "fd20_train_random", "--batch-size", BATCH)
    values = json.loads((workdir / "scores" / "fd20_train_random-00000004.json").read_text())["values"]
    assert values == {"fd20_train_random": pytest.approx(DISTANCES[name], rel=1e-3)}


@pytest.mark.slow
@pytest.mark.one_jax
def test_old_completion_has_the_scores_that_it_had(old_run, monkeypatch, tmp_path):
    workdir = old_run("completion")
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    run("evaluate", "--workdir", workdir, "--held-out", "mirror:images=6,seed=2", "--holes", "centre", "--samples", 2)
    values = json.loads((workdir / "scores" / "holes_centre-00000004.json").read_text())["values"]
    found = {name: values[f"centre/{name}"] for name in QUALITY}
    assert found == {name: pytest.approx(value, rel=1e-2, abs=1e-4) for name, value in QUALITY.items()}


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("name", ["sagan", "unconditional", "biggan"])  # dcgan has no attention layer
def test_old_run_is_explored(name, old_run, tmp_path):
    workdir = old_run(name)
    run("explore", "--workdir", workdir, "--num-samples", 2, "--steps", 2, "--out", tmp_path / "page.html")
    samples = embedded((tmp_path / "page.html").read_text())["samples"]
    labels, generator = [line["label"] for line in samples], load_run(workdir)
    assert labels == ([None, None] if name == "unconditional" else [0, 1])
    drawn = generator.generate(1, labels=None if name == "unconditional" else [0], seed=0, batch_size=BATCH).images
    assert_same_images(decoded(samples[0]["frames"][0]["image"])[None], drawn)


@pytest.mark.parametrize("name", GENERATING)
def test_exported_function_of_an_old_run_draws_the_images_that_it_drew(name, old_run, shared, tmp_path):
    workdir = old_run(name)
    run("export", "--workdir", workdir, "--out", tmp_path / "export")
    exported = jax.export.deserialize(bytearray((tmp_path / "export" / "generator.jax_export").read_bytes()))
    expected = arrays_of(shared / "old-runs" / f"{name}-samples.npz")
    latents = load_run(workdir).latents(jax.random.key(3), np.arange(4))
    images = np.asarray(exported.call(np.asarray(latents), expected["arr_1"].astype(np.int32)))
    assert_same_images(np.rint((images + 1) * 127.5).clip(0, 255).astype(np.uint8), expected["arr_0"])
