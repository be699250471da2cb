import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagan_jax.config import (
    CompletionExperiment,
    CompletionNetworks,
    CompletionTraining,
    Data,
    Experiment,
    Networks,
    Training,
    from_dict,
    to_dict,
)
from sagan_jax.runs.build import (
    build_adversarial_task,
    build_completion_task,
    class_lines,
    open_images,
    open_labelled_images,
)
from sagan_jax.runs.resume import check_same_run
from sagan_jax.runs.validate import check_config
from sagan_jax.runtime.lock import WorkdirLock
from support.archives import write_folder, write_zip
from support.assertions import refusal
from support.images import encoded, noise

PNG = encoded(noise(32, 32, 3))
_PARQUET = ("pyarrow", "pyarrow.parquet")


def experiment(num_classes=2, **data):
    networks = Networks(resolution=32, num_classes=num_classes)
    return Experiment("a_run", Data(cache="", **{name: str(value) for name, value in data.items()}), networks)


def test_equal_configs_have_equal_tasks_and_others_do_not():
    """Equal tasks share the programs that jax has compiled."""
    fast = replace(Experiment(), training=Training(generator_learning_rate=0.3))
    tasks = [build_adversarial_task(of) for of in (Experiment(), replace(Experiment(), name="other"), fast)]
    assert tasks[0] == tasks[1] != tasks[2]
    muon, adam = CompletionExperiment(), replace(CompletionExperiment(), training=CompletionTraining(optimizer="adam"))
    against = replace(muon, training=CompletionTraining(adversarial_weight=0.1))
    for of in (muon, adam, against):
        assert build_completion_task(of) == build_completion_task(replace(of, name="other"))
    assert len({build_completion_task(of) for of in (muon, adam, against)}) == 3


@pytest.mark.parametrize(
    ("moves", "shares"),
    [
        ({"warmup_steps": 2, "schedule": "linear"}, [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ({"warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1]),
        ({"schedule": "linear"}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ({}, [1] * 6),
    ],
)
def test_rates_of_both_networks_follow_the_schedule_step_by_step(moves, shares):
    """With a constant gradient, Adam moves a number by its rate in each update of the network."""
    training = Training(total_steps=6, discriminator_steps=3, generator_learning_rate=0.5, **moves)
    task = build_adversarial_task(replace(Experiment(), training=training))
    for optimizer, rate, updates in ((task.optimizers.generator, 0.5, 1), (task.optimizers.discriminator, 4e-4, 3)):
        state, found = optimizer.init(np.float32(0)), []
        for _ in range(6 * updates):
            moved, state = optimizer.update(np.float32(7), state)
            found.append(-float(moved))
        np.testing.assert_allclose(found, np.repeat(shares, updates) * rate, rtol=1e-5, atol=1e-9)


def test_a_run_whose_rates_fall_may_go_on_longer_but_not_end_earlier(tmp_path):
    ours = Experiment(training=Training(total_steps=20, schedule="linear"))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(ours)))
    for steps, fits in ((20, True), (30, True), (10, False)):
        other = replace(ours, training=replace(ours.training, total_steps=steps))
        if fits:
            check_same_run(tmp_path, other)
        else:
            assert "training.total_steps: 20 -> 10" in refusal(check_same_run, tmp_path, other)
    constant = replace(ours, training=replace(ours.training, schedule="constant"))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(constant)))
    check_same_run(tmp_path, replace(constant, training=replace(constant.training, total_steps=10)))


def test_a_warm_up_of_the_whole_run_leaves_nothing_to_fall():
    wrong = Experiment(training=Training(total_steps=9, warmup_steps=9, schedule="linear"))
    assert "--schedule linear needs --warmup-steps below --total-steps, 9; got 9" in refusal(check_config, wrong)


def test_the_fields_of_labels_reach_the_source(tmp_path):
    files = {f"{number}.png": PNG for number in range(6)}
    csv = {"labels.csv": "".join(f"{number}.png,{number % 2}\n" for number in range(6)).encode()}
    folder = write_folder(tmp_path / "photos", files)
    write_folder(tmp_path, csv)
    data = Data(str(folder), str(folder), cache="", labels=str(tmp_path / "labels.csv"), max_images=4)
    of_run = replace(experiment(), data=data)
    assert sorted(open_labelled_images(of_run).labels) == [0, 0, 1, 1]
    assert open_images(of_run, held_out=True).num_classes == 0
    held_out = replace(of_run, data=replace(data, held_out_labels=data.labels))
    assert open_labelled_images(held_out, held_out=True).labels.tolist() == [0, 1] * 3  # all of them


def test_a_config_without_the_fields_of_labels_has_their_defaults():
    saved = to_dict(experiment())
    for name in ("labels", "held_out_labels", "label_column", "max_images"):
        del saved["data"][name]
    assert from_dict(saved) == experiment()


def test_a_negative_number_of_images_is_refused():
    wrong = replace(experiment(), data=Data("digits", max_images=-1))
    assert "--max-images needs to be at least 0; got -1" in refusal(check_config, wrong)


@pytest.mark.parametrize("workdir", ["runs/a_run", "out", "."])
def test_a_run_may_lie_inside_its_source(tmp_path, workdir, monkeypatch):
    monkeypatch.chdir(write_folder(tmp_path, {"cat/1.png": PNG, "dog/2.png": PNG}))
    plain = open_labelled_images(experiment(source=".")).fingerprint
    with WorkdirLock(workdir):
        source = open_labelled_images(experiment(source="."))
        assert (source.class_names, source.fingerprint) == (("cat", "dog"), plain)


@pytest.mark.parametrize("kind", [Experiment, CompletionExperiment])
def test_missing_held_out_images_name_their_flag(tmp_path, kind):
    networks = Networks(resolution=32, num_classes=0) if kind is Experiment else CompletionNetworks()
    folder = write_folder(tmp_path / "x", {"1.png": PNG})
    of_run = kind(networks=networks, data=Data(str(folder), "no/such.zip", cache=""))
    assert len(open_images(of_run)) == 1
    message = refusal(open_images, of_run, held_out=True)
    assert message.startswith("The held-out images cannot be opened: ")
    assert message.endswith("Give others with --held-out, or --held-out= for none.")


OWN = """
import numpy as np

TEST = [np.zeros((32, 32, 3), np.uint8)] * 3
"""


@pytest.mark.parametrize("kind", ["own", "zip", "digits"])
def test_options_of_the_source_do_not_refuse_held_out_images_of_another_kind(kind, tmp_path):
    write_zip(tmp_path / "x.zip", {"1.png": PNG})
    (tmp_path / "mine.py").write_text(OWN)
    held_out = {"own": f"{tmp_path}/mine.py:TEST", "zip": tmp_path / "x.zip", "digits": "digits"}[kind]
    of_run = experiment(held_out=held_out, label_column="kind", image_column="face")
    of_run = replace(of_run, data=replace(of_run.data, skip_unreadable=2))
    assert len(open_images(of_run, held_out=True)) == {"own": 3, "zip": 1, "digits": 5000}[kind]


def test_options_of_the_source_are_those_of_held_out_images_that_can_take_them(tmp_path):
    pa, pq = (pytest.importorskip(name, reason="the extra `parquet` is not installed") for name in _PARQUET)
    broken = {"face": [PNG, b"broken", PNG], "kind": [1, 0, 0]}
    pq.write_table(pa.table(broken), tmp_path / "x.parquet")
    of_run = experiment(held_out=tmp_path / "x.parquet", label_column="kind", image_column="face")
    assert "Cannot read image 'x.parquet row 1'" in refusal(open_images, of_run, held_out=True)
    of_run = replace(of_run, data=replace(of_run.data, skip_unreadable=2))
    assert open_images(of_run, held_out=True).labels.tolist() == [1, 0]
    assert "needs a column" in refusal(open_images, experiment(held_out=tmp_path / "x.parquet"), held_out=True)


@pytest.mark.parametrize("files", [{"only/1.png": PNG, "only/2.png": PNG}, {"1.png": PNG, "2.png": PNG}])
def test_images_without_labels_are_one_class_if_that_is_asked_for(tmp_path, files):
    folder = write_folder(tmp_path / "x", files)
    plain = open_labelled_images(experiment(0, source=folder))
    fingerprint = plain.fingerprint
    source = open_labelled_images(experiment(1, source=folder))
    assert (source.class_names, source.labels.tolist(), source[1][1]) == (("0",), [0, 0], 0)
    assert source.description == "x: 2 images, 1 class"
    assert source.fingerprint == plain.as_one_class().fingerprint != fingerprint == plain.fingerprint
    assert np.array_equal(source[1][0], plain[1][0])
    assert "has no labels" in refusal(open_labelled_images, experiment(2, source=folder))


@pytest.fixture(params=["folder", "zip"])
def splits(request, tmp_path):
    """A source whose folders of plain images are named like splits."""
    files = {"train/1.png": PNG, "test/2.png": PNG}
    return write_folder(tmp_path / "x", files) if request.param == "folder" else write_zip(tmp_path / "x.zip", files)


def test_folders_named_like_splits_are_said_where_they_are_taken_for_classes(splits):
    is_folder = splits.is_dir()
    way_out = f"give --source {splits / 'train'} and --held-out {splits / 'test'}." if is_folder else "pack each into"
    message = refusal(open_labelled_images, experiment(10, source=splits))
    assert f"has 2 classes (test, train): give --num-classes 2. Or: the folders test and train of '{splits}'" in message
    assert way_out in message
    source = open_images(experiment(2, source=splits))
    names, warning = class_lines(source, str(splits), 2)
    assert names == "classes: test, train"
    assert warning.startswith("warning: the folders test and train of ")
    assert way_out in warning
    assert list(class_lines(source, str(splits), 0)) == [warning]


def test_other_classes_are_named_without_a_warning(tmp_path):
    names = [f"bird {number:02}" for number in range(12)]
    folder = write_folder(tmp_path / "x", {f"{name}/1.png": PNG for name in names})
    (line,) = class_lines(open_images(experiment(source=folder)), str(folder), 12)
    assert line == f"classes: {', '.join(names[:10])}, .."
    assert list(class_lines(open_images(experiment(source="digits")), "digits", 10)) == []


def test_class_folders_in_splits_are_said(tmp_path):
    folder = write_folder(tmp_path, {"train/cat/1.png": PNG, "test/cat/1.png": PNG, "train/dog/1.png": PNG})
    message = refusal(open_images, experiment(source=Path(folder)))
    assert "Are test, train splits of one set? Then give one of them." in message
