"""`sagan-jax evaluate` of a run that completes images."""

import json

import numpy as np
import pytest

import sagan_jax
from sagan_jax.evaluation import lite0
from support.commands import command, error_line
from support.images import smooth_images
from support.metrics import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.one_jax]

SIZE, COUNT = 64, 7


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs") / "photographs.npy"
    np.save(path, smooth_images(COUNT, SIZE))
    return path


@pytest.fixture(scope="module")
def trained(path, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--total-steps", "2", "--save-every-steps", "2", "--sample-every-steps", "1", "--log-every-steps", "1"]
    flags += ["--batch-size", "4", "--base-channels", "1", "--latent-size", "5", "--cache", ""]
    words = ["train", "faces_completion_64", "--source", path, "--held-out", path, *flags]
    assert command(*words, "--workdir", workdir) == 0
    return workdir


def test_run_records_the_quality_on_images_that_it_was_not_trained_on(trained):
    lines = read_metrics(trained)
    found = {line["step"]: line["held_out/psnr"] for line in lines if "held_out/psnr" in line}
    assert set(found) == {1, 2}
    assert all(5 < value < 40 for value in found.values())


def test_evaluate_prints_and_writes_each_kind_of_hole_and_protocol(trained, capsys):
    protocols = ["fd5_test_random", "fd5_test_random_raw"]
    flags = ["--holes", "centre", "area_10_20", "--protocol", *protocols, "--samples", "2", "--cache", ""]
    assert command("evaluate", "--workdir", trained, *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["centre", "area_10_20", *protocols]
    result = json.loads((trained / "scores" / "holes_centre-00000002.json").read_text())
    assert f"psnr {result['values']['centre/psnr']:.2f} dB" in lines[0]
    assert result["images"] == COUNT
    distance = json.loads((trained / "scores" / "fd5_test_random-00000002.json").read_text())
    assert distance["holes"] == ["centre", "area_10_20"]
    assert distance["values"]["fd5_test_random"] > 0
    of_raw_weights = json.loads((trained / "scores" / "fd5_test_random_raw-00000002.json").read_text())
    assert (distance["weights"], of_raw_weights["weights"]) == ("moving average", "as trained")


def test_evaluate_in_python_returns_values_by_name(trained, tmp_path):
    found = sagan_jax.evaluate(trained, holes=["half_top"], samples=0, out=tmp_path, cache="")
    names = ["psnr", "l1", "ssim", "psnr_image", "l1_image", "ssim_image"] + ["lite0_image"] * lite0.is_installed()
    assert set(found) == {f"half_top/{name}" for name in names}
    assert [path.name for path in tmp_path.iterdir()] == ["holes_half_top.json"]


def test_evaluate_scores_holes_and_protocols_of_every_checkpoint_once(trained, tmp_path, capsys):
    flags = ["--holes", "centre", "--protocol", "fd5_test_random", "classifier_accuracy", "--samples", "0"]
    words = ["--workdir", trained, "--every-checkpoint", *flags, "--cache", "", "--out", tmp_path]
    assert command("evaluate", *words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("left out: classifier_accuracy needs classes")
    steps = sorted(int(path.name) for path in (trained / "checkpoints").iterdir() if path.name.isdecimal())
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[0] for row in rows] == ["step", *map(str, steps)]
    assert rows[0][1] == "centre/psnr"
    assert rows[0][-1] == "fd5_test_random"
    assert command("evaluate", *words) == 2
    again = capsys.readouterr()
    assert again.out == said.out
    assert "step " not in again.err
    # The training images stay the reference of _train, but the photographs are others.
    np.save(tmp_path / "other.npy", smooth_images(COUNT, SIZE, seed=1))
    words = [*words[:3], "--holes", "centre", "--protocol", "fd5_train_random", "--samples", "0", *words[-4:]]
    values = []
    for held_out in ([], ["--held-out", tmp_path / "other.npy"]):
        assert command("evaluate", *words, *held_out) == 0
        values.append(capsys.readouterr().out.split()[-1])
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--holes", "middle"], "--holes needs to be one of centre"),
        (["--holes", "center"], "Perhaps you meant centre."),
        (["--checkpoint", "best"], "this one has no best"),
        (["--workdir", "nowhere", "--holes", "centre"], "There is no run in 'nowhere'"),
        (["--protocol", "fd5_test_random_batch"], "this network has no batch norm"),
        (["--protocol", "classifier_accuracy"], "needs classes"),
        (["--held-out", "nowhere.zip"], "'nowhere.zip' does not exist"),
        (["--samples", "-1"], "--samples needs to be at least 0"),
    ],
)
def test_evaluate_refuses_invalid_flags_in_one_line(trained, flags, words, capsys):
    assert command("evaluate", "--workdir", trained, *flags) == 2
    assert words in error_line(capsys)
