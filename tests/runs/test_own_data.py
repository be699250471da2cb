"""A data set of a user's own in an experiment file: a run of it, and a run that goes on in other batches."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sagan_jax
from sagan_jax.config import (
    CompletionExperiment,
    Data,
    Evaluation,
    Experiment,
    Networks,
    from_dict,
    holds_objects,
    to_dict,
    user_data,
)
from sagan_jax.data.synthetic import SYNTHETIC_SETS
from sagan_jax.import_paths import find_object
from sagan_jax.runs.build import balanced_by, open_images
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.generation import GenerationJob
from sagan_jax.runs.own_objects import with_current_paths
from sagan_jax.runs.resume import images_read
from sagan_jax.runs.saved_config import differences
from sagan_jax.runtime.checkpoints import read_sealed_meta
from support.assertions import refusal
from support.commands import command, error_line
from support.own_runs import moved_copy, trained

pytestmark = pytest.mark.one_jax

SOURCE = """
import flax.linen as nn
import numpy as np

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


class Stripes:
    class_names = ("wide", "narrow")

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = int(index % 5 == 0)
        row = np.random.default_rng(index).integers(0, 256, 34 // (1 + label))
        return np.resize(row, (32, 34, 3)).astype(np.uint8), label


class Generator(nn.Module):
    @nn.compact
    def __call__(self, latents, labels, *, train):
        return nn.tanh(nn.Dense(32 * 32 * 3)(latents)).reshape(-1, 32, 32, 3)


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, images, labels, *, train):
        return nn.Dense(1)(images.mean((1, 2)) + nn.Embed(2, 3)(labels))[:, 0]


TRAIN, TEST = Stripes(15), Stripes(12)


def experiment():
    return Experiment(
        name="stripes",
        data=Data(TRAIN, TEST, cache="", sampling="balanced"),
        networks=Networks(
            modules=(Generator, Discriminator), resolution=32, num_classes=2, latent_size=3, spectral_norm="none"
        ),
        training=Training(total_steps=2, batch_size=8),
        recording=Recording(log_every_steps=1, save_every_steps=1, sample_every_steps=2),
    )
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own_data") / "stripes.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def finished(file) -> Path:
    """The workdir of a run of two steps; read only."""
    return trained(file)


@pytest.fixture
def run(finished, file, tmp_path) -> tuple[Path, Path]:
    """A copy of that run and its file, which a test may change. The file is in another folder now."""
    return moved_copy(finished, file, tmp_path)


def test_config_of_a_run_names_the_data_sets_and_digests_of_their_source(finished, file):
    saved = json.loads((finished / "config.json").read_text())
    assert (saved["data"]["source"], saved["data"]["held_out"]) == (f"{file}:TRAIN", f"{file}:TEST")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert saved["sources"][f"{file}:TRAIN"] == saved["sources"][f"{file}:TEST"] == digest


def test_run_takes_images_and_names_of_classes_from_the_data_sets(finished):
    run = sagan_jax.open_run(finished)
    assert (len(run.images()), len(run.images(held_out=True))) == (15, 12)
    assert run.images().class_names == ("wide", "narrow")
    assert run.images()[3][0].shape == (32, 32, 3)
    other = sagan_jax.open_run(finished, source=find_object(run.experiment.data.held_out))
    assert len(other.images()) == 12


def test_images_are_scored_against_a_data_set_by_its_name(file, tmp_path, capsys):
    words = ("evaluate", "--images", f"{file}:TEST", "--reference", f"{file}:TRAIN", "--protocol", "fd10_train_random")
    assert command(*words, "--cache", tmp_path / "cache", "--resolution", 32) == 0
    assert "fd10_train_random" in capsys.readouterr().out


def test_trained_networks_are_opened_where_the_data_set_is_gone(run, tmp_path):
    workdir, _ = run
    saved = json.loads((workdir / "config.json").read_text())
    saved["data"] |= {"source": f"{tmp_path}/gone/stripes.py:TRAIN", "held_out": f"{tmp_path}/gone/stripes.py:TEST"}
    (workdir / "config.json").write_text(json.dumps(saved))
    opened = sagan_jax.open_run(workdir)
    assert opened.generator().generate(2, seed=0).images.shape == (2, 32, 32, 3)
    assert f"there is no file '{tmp_path}/gone/stripes.py'" in refusal(opened.images)


def test_run_goes_on_with_changed_source_of_its_data_and_says_so(run, capsys):
    workdir, moved = run
    moved.write_text(f"{SOURCE}# changed")
    assert command("train", moved, "--workdir", workdir, "--total-steps", 3) == 0
    said = capsys.readouterr().out
    assert "not bit for bit the run that was stopped: the source of" in said
    assert f"{moved}:TRAIN" in said


def test_run_does_not_go_on_with_other_images(run, capsys):
    workdir, moved = run
    moved.write_text(SOURCE.replace("default_rng(index)", "default_rng(index + 1)"))
    assert command("train", moved, "--workdir", workdir, "--total-steps", 3) == 2
    assert "was trained on other images than --source holds now" in error_line(capsys)


@pytest.mark.slow
def test_run_goes_on_in_other_batches_where_the_order_of_its_images_is(run, capsys, monkeypatch):
    workdir, moved = run
    read = []
    monkeypatch.setattr("sagan_jax.runs.generation.training_batches", recording(read))
    words = ("train", moved, "--workdir", workdir, "--total-steps")
    assert command(*words, 4, "--batch-size", 16, "--accumulation-steps", 2) == 0
    said = capsys.readouterr().out
    assert "from now on 16 images a batch, not 8 and 2 accumulation steps, not 1; " in said
    assert "the order of images continues after the 16 that were read" in said
    assert read_sealed_meta(workdir / "checkpoints")[1]["images_read"] == 2 * 8 + 2 * 16
    assert command(*words, 5) == 0
    assert "images a batch, not" not in capsys.readouterr().out
    assert [(options["first_image"], options["batch_size"]) for options in read] == [(16, 16), (48, 16)]
    assert read[0]["balanced_by"].tolist() == [1, 0, 0, 0, 0] * 3


def recording(read):
    """Returns `training_batches` that also appends the options of each call to `read`."""
    from sagan_jax.data import training_batches

    def batches(source, **options):
        read.append(options)
        return training_batches(source, **options)

    return batches


def test_number_of_images_read_is_that_of_the_checkpoint():
    training = {"batch_size": 6, "discriminator_steps": 2}
    assert images_read(5, {"images_read": 77, "experiment": {"training": training}}, 99) == 77
    assert images_read(5, {"experiment": {"training": training}}, 99) == 60
    assert images_read(5, {"experiment": {"training": {"batch_size": 6}}}, 99) == 30
    assert images_read(5, {}, 7) == 35


def test_moved_file_of_a_data_set_is_no_change_and_other_paths_are(file, tmp_path):
    shutil.copy(file, tmp_path / file.name)
    saved, moved = (load_experiment(str(folder / file.name)) for folder in (file.parent, tmp_path))
    assert saved.data.source != moved.data.source
    assert differences(to_dict(saved), to_dict(moved)) == []
    assert with_current_paths(saved, moved) == moved
    plain = [to_dict(Experiment(data=Data(path))) for path in ("/a/x.zip", "/b/x.zip", "/b/x:y/z.zip")]
    assert differences(plain[0], plain[1]) == ["data.source: /a/x.zip -> /b/x.zip"]
    assert differences(plain[1], plain[2]) == ["data.source: /b/x.zip -> /b/x:y/z.zip"]


@pytest.mark.parametrize("name", ["digits", "", "faces.zip", *SYNTHETIC_SETS, *(f"{x}:blobs" for x in SYNTHETIC_SETS)])
def test_sources_that_are_no_object_keep_their_names(name):
    assert Data(name).source == name
    assert not holds_objects("source", name)


def test_config_with_data_sets_survives_its_json(file):
    experiment = load_experiment(str(file))
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment
    assert user_data(experiment) == [f"{file}:TEST", f"{file}:TRAIN"]


def test_data_set_without_a_name_is_refused():
    assert "has no name by which a saved run could find it again" in refusal(Data, [np.zeros((4, 4, 3), np.uint8)])


def test_balanced_classes_need_labels(file):
    experiment = load_experiment(str(file))
    assert balanced_by(experiment, open_images(experiment)).tolist() == [1, 0, 0, 0, 0] * 3
    drawn = replace(experiment, data=Data("pairs", sampling="balanced"))
    line = refusal(balanced_by, drawn, open_images(drawn))
    assert (
        line
        == "--sampling balanced needs images of at least 2 classes; 'pairs' has no labels. Give --sampling uniform."
    )


GONE = [
    (GenerationJob, (), "--held-out /"),
    (GenerationJob, ("fid1k_validation",), "The held-out images cannot be opened: "),
    (CompletionJob, (), "The held-out images cannot be opened: "),
]


@pytest.mark.parametrize(("job", "protocols", "said"), GONE)
def test_held_out_data_set_that_is_gone_is_named_with_its_flag(job, protocols, said, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Data(f"{file}:TRAIN", "gone.py:TEST", cache="")
    if job is CompletionJob:
        wrong = CompletionExperiment(data=data)
    else:
        networks = Networks(resolution=32, num_classes=2)
        wrong = Experiment(data=data, networks=networks, evaluation=Evaluation(protocols))
    line = refusal(job, wrong, tmp_path)
    assert line.startswith(said)
    assert "--held-out" in line
