"""Published rows, run again: what is trained, what is refused, and what is said of the numbers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagan_jax.config import Data, to_dict
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.runs import reproduce as module
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.reproduce import (
    BASELINE,
    CIFAR10_SUMS,
    REPRODUCTIONS,
    Setting,
    check_original_cifar10,
    experiments_of,
    order_verdict,
    reproduce,
    summary,
)
from sagan_jax.runtime.devices import ParallelStep, StepMemory
from support.archives import write_zip
from support.commands import command, error_line
from support.images import encoded, noise
from support.programs import EXPERIMENTS

pytestmark = pytest.mark.one_jax

EQUAL, TWO = "imagenet_128_sn_equal_rates", "imagenet_128_no_attention"
REHEARSAL = ["--base-channels", 8, "--batch-size", 4, "--cache", "", "--dry-run"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty current folder; the weights of the FID network are absent, and no step is compiled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "find_weights", lambda path: None)
    monkeypatch.setattr(ParallelStep, "memory", lambda self, state, batch: StepMemory(2_000_000, 1_500_000_000))
    return tmp_path


def write_images(path, count, size, classes):
    np.savez(path, images=noise(count, size, size, 3), labels=np.arange(count) % classes)
    return {path}


@pytest.mark.slow
def test_dry_run_of_figure4_names_its_three_runs_and_writes_nothing(home, capsys):
    written = write_images(home / "synthetic.npz", 1000, 3, 1000)
    assert command("reproduce", "figure4", "--source", "synthetic.npz", *REHEARSAL) == 0
    said = capsys.readouterr().out
    names = [BASELINE, EQUAL, TWO]
    assert re.findall(r"steps 0 to 10000, into runs/figure4/(\w+)", said) == names
    assert re.findall(r"(?m)^(\w+): synthetic.npz.*1,000 images, 1,000 classes$", said) == names
    assert said.count("memory of a step on each device, as compiled: 1.50 GB") == 3
    assert "sagan-jax fetch-weights" in said.splitlines()[-1]
    assert set(home.iterdir()) == written


def test_dry_run_of_cifar10_takes_any_images_as_a_rehearsal(home, capsys):
    written = write_images(home / "synthetic.npz", 30, 32, 10)
    assert command("reproduce", "cifar10", "--source", "synthetic.npz", *REHEARSAL) == 0
    assert "steps 0 to 100000, into runs/cifar10/cifar10_32_studiogan" in capsys.readouterr().out
    assert set(home.iterdir()) == written


def test_run_of_another_batch_size_is_not_taken_for_the_published_setting(home, capsys):
    write_images(home / "synthetic.npz", 30, 32, 10)
    name = "cifar10_32_studiogan"
    experiment = load_experiment(name)
    rehearsed = replace(experiment, training=replace(experiment.training, batch_size=4))
    (home / "runs" / "cifar10" / name).mkdir(parents=True)
    (home / "runs" / "cifar10" / name / "config.json").write_text(json.dumps(to_dict(rehearsed)))
    assert command("reproduce", "cifar10", "--source", "synthetic.npz", "--base-channels", 8, "--dry-run") == 2
    wanted = experiment.training.batch_size
    assert f"has batch size 4, and this reproduction needs {wanted}: give --batch-size 4" in error_line(capsys)


def test_cifar10_refuses_jpeg_copies_in_one_line(home, capsys):
    write_zip(home / "copies.zip", {f"{i % 10}/{i}.jpg": encoded(noise(32, 32, 3, seed=i), "JPEG") for i in range(20)})
    for flags in ([], ["--dry-run"]):
        module.find_weights = lambda path: Path("weights")  # the fixture puts the function back
        assert command("reproduce", "cifar10", "--source", "copies.zip", "--cache", "", *flags) == 2
        assert "bit for bit, not JPEG copies" in (line := error_line(capsys))
        assert "got copies.zip: 20 images, 10 classes" in line
    assert {path.name for path in home.iterdir()} == {"copies.zip"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["figure4"], "figure4 needs the weights of the FID network"),
        (["figure5"], "figure4"),
        (["cifar10", "--batch-size", -1], "--batch-size needs to be at least 0; got -1"),
        (["figure4", "--dry-run"], "needs images: give --source"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(words, said, home, capsys):
    assert command("reproduce", *words) == 2
    assert said in error_line(capsys)
    assert not list(home.iterdir())


class OriginalSums:
    """50,000 images whose channels have the sums of the original ones; `extra` is added to one pixel."""

    description = "images"

    def __init__(self, extra=0, labels=None):
        self.extra, self.labels = extra, np.arange(50_000) % 10 if labels is None else labels
        self.level, rest = np.divmod(np.array(CIFAR10_SUMS), 50_000 * 1024)
        self.brighter, self.images_with_one_more = np.divmod(rest, 50_000)

    def __len__(self):
        return 50_000

    def __getitem__(self, index):
        image = np.tile(self.level, (1024, 1))
        for channel in range(3):
            count = self.brighter[channel] + (index < self.images_with_one_more[channel])
            image[:count, channel] += 1
        if index == 4_321:
            image[7, 1] += self.extra
        return image.astype(np.uint8).reshape(32, 32, 3), 0


@pytest.mark.slow
def test_original_cifar10_is_known_by_its_sums_to_the_last_grey_level():
    check_original_cifar10(OriginalSums())
    with pytest.raises(InvalidInputError, match="with different pixels"):
        check_original_cifar10(OriginalSums(extra=1))
    uneven = np.arange(50_000) % 10
    uneven[0] = 1
    with pytest.raises(InvalidInputError, match="5,000 in each of 10 classes"):
        check_original_cifar10(OriginalSums(labels=uneven))


def test_sums_are_the_means_that_public_code_states():
    means = [total / (50_000 * 1024) for total in CIFAR10_SUMS]
    assert means == [125.306918046875, 122.950394140625, 113.86538318359375]


@pytest.mark.parametrize(
    ("fids", "holds"),
    [
        ((181.84, 93.52, 99.04), True),
        ((140.0, 100.0, 99.9), True),
        ((140.0, 100.1, 90.0), False),
        ((140.0, 90.0, 100.1), False),
        ((90.0, 180.0, 180.0), False),
    ],
)
def test_verdict_asks_for_the_baseline_to_be_worse_than_both_others_by_forty(fids, holds):
    verdict = order_verdict(dict(zip((BASELINE, EQUAL, TWO), fids, strict=True)))
    assert verdict.holds == holds
    assert verdict.by == pytest.approx({EQUAL: fids[0] - fids[1], TWO: fids[0] - fids[2]})


def scores(baseline, equal, two):
    rows = zip((BASELINE, EQUAL, TWO), (baseline, equal, two), strict=True)
    return {name: {2_000: {"fid50k_train": 300.0}, 10_000: {"fid50k_train": value}} for name, value in rows}


def test_summary_stars_what_was_not_verified_and_judges_the_order_alone():
    *lines, starred, verdict = summary("figure4", Setting(Data()), scores(150.0, 95.0, 100.0))
    assert lines == [
        f"{BASELINE}, fid50k_train: 300.00 at 2,000, 150.00 at 10,000; published 181.84*, difference -31.84",
        f"{EQUAL}, fid50k_train: 300.00 at 2,000, 95.00 at 10,000; published 93.52*, difference +1.48",
        f"{TWO}, fid50k_train: 300.00 at 2,000, 100.00 at 10,000; published 99.04*, difference +0.96",
    ]
    assert starred.startswith("* from memory of the paper, not verified")
    assert verdict.startswith("the published order holds")
    assert verdict.endswith(f"above them by 55.0 ({EQUAL}) and 50.0 ({TWO})")
    assert "does not hold" in summary("figure4", Setting(Data()), scores(130.0, 95.0, 85.0))[-1]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (Setting(Data(), base_channels=8), "--base-channels 8"),
        (Setting(Data(), batch_size=4), "--batch-size 4"),
        (Setting(Data(max_images=70)), "--max-images 70"),
        (Setting(Data(sampling="balanced")), "--sampling balanced"),
        (Setting(Data(decoding="fast")), "--decoding fast"),
    ],
)
def test_rehearsal_has_no_verdict(setting, words):
    assert summary("figure4", setting, scores(150.0, 95.0, 100.0))[-1].endswith(f"a rehearsal, with {words}")
    assert module._verdict("figure4", setting, scores(150.0, 95.0, 100.0)) is None


def test_published_numbers_and_stars_are_those_of_the_ledger():
    rows = json.loads((EXPERIMENTS / "ledger.json").read_text("utf-8"))
    protocols = rows["protocols"]
    for reproduction in REPRODUCTIONS.values():
        for name, published in reproduction.rows.items():
            found = {
                protocols[row["protocol"]]["ours"].get(row["score"]): (float(row["value"]), row["mark"] != "mem")
                for row in rows["rows"]
                if row.get("experiment") == name and row.get("steps") == reproduction.total_steps
            }
            assert published.items() <= found.items()


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_runs_are_those_of_the_experiment_files_but_for_their_length(name):
    for experiment in experiments_of(name, Setting(Data(source="images"), seed=3)):
        ours, file = to_dict(experiment), to_dict(load_experiment(experiment.name))
        steps = {"total_steps": REPRODUCTIONS[name].total_steps, "seed": 3}
        assert ours["networks"] == file["networks"]
        assert ours["training"] == file["training"] | steps
        kept = ours["recording"]["keep_every_steps"]
        assert all(step % kept == 0 for step in REPRODUCTIONS[name].steps)
        assert kept % ours["recording"]["save_every_steps"] == 0


def test_row_that_diverges_leaves_the_others_their_scores_and_no_verdict(tmp_path, monkeypatch):
    def train(experiment, workdir):
        assert workdir == tmp_path / experiment.name
        if experiment.name == BASELINE:
            raise NonFiniteError("diverged at step 7")

    def score(workdir, *names, steps, **given):
        assert (names, steps) == (("fid50k_train",), (2_000, 5_000, 10_000))
        return {10_000: {"fid50k_train": 95.0}}

    monkeypatch.setattr(module, "find_weights", lambda path: Path("weights"))
    monkeypatch.setattr(module, "_check_images", lambda *given: None)
    monkeypatch.setattr(module, "train_to_the_end", train)
    monkeypatch.setattr(module, "score_every_checkpoint", score)
    lines = []
    found = reproduce("figure4", Setting(Data(source="images")), tmp_path, notify=lines.append)
    assert found == {name: {10_000: {"fid50k_train": 95.0}} for name in (EQUAL, TWO)}
    assert lines[0] == f"{BASELINE} has no scores: diverged at step 7"
    assert lines[-1].startswith("no verdict: it needs fid50k_train of all rows")
    assert json.loads((tmp_path / "reproduction.json").read_text())["verdict"] is None
    assert json.loads((tmp_path / TWO / "row.json").read_text())["values"] == {"fid50k_train": 95.0}
