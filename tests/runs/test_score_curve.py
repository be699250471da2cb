"""The scores of every checkpoint of a run: as curves, as a table, and resumed where a call was stopped."""

import json

import numpy as np
import pytest
from PIL import Image

import sagan_jax
from sagan_jax.config import Data, Experiment, Networks, Recording, Training
from sagan_jax.errors import InvalidInputError, StoppedError
from sagan_jax.evaluation import classifier
from sagan_jax.runs import score_curve
from sagan_jax.runs.score_curve import score_every_checkpoint
from support.commands import command, error_line

NAME = "fd20_train_random"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of five steps, of which each second and the two newest checkpoints are kept."""
    folder = tmp_path_factory.mktemp("curve")
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    np.savez(folder / "train.npz", images=images, labels=np.arange(30) % 2)
    experiment = Experiment(
        data=Data(source=str(folder / "train.npz"), cache=""),
        networks=Networks(
            resolution=32,
            num_classes=2,
            base_channels=1,
            latent_size=5,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
        ),
        training=Training(total_steps=5, batch_size=4),
        recording=Recording(
            log_every_steps=5, sample_every_steps=5, save_every_steps=1, keep_checkpoints=2, keep_every_steps=2
        ),
    )
    sagan_jax.train(experiment, folder / "run")
    return folder / "run"


def recorded(folder):
    return {
        int(path.stem.rpartition("-")[2]): json.loads(path.read_text())["values"][NAME]
        for path in folder.glob("*.json")
    }


@pytest.mark.slow
@pytest.mark.one_jax
def test_every_checkpoint_is_scored_once_with_a_file_each_a_table_and_a_curve(trained, tmp_path, capsys):
    words = ("--workdir", trained, "--every-checkpoint", "--protocol", NAME, "--cache", "", "--out", tmp_path)
    assert command("evaluate", *words) == 0
    found = recorded(tmp_path)
    assert sorted(found) == [2, 4, 5]
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.err.splitlines()] == [["step", f"{step}:", NAME] for step in (2, 4, 5)]
    rows = [line.split() for line in said.out.splitlines()]
    assert rows == [["step", NAME], *([str(step), f"{found[step]:.6g}"] for step in (2, 4, 5))]
    with Image.open(tmp_path / "curve.png") as curve:
        assert curve.format == "PNG"
    # Scores that exist are not measured again. Those that are damaged or of another seed are.
    (tmp_path / f"{NAME}-00000004.json").write_text("{")
    document = json.loads((tmp_path / f"{NAME}-00000005.json").read_text())
    (tmp_path / f"{NAME}-00000005.json").write_text(json.dumps(document | {"seed": 1}))
    assert command("evaluate", *words) == 0
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.err.splitlines()] == ["4:", "5:"]
    assert recorded(tmp_path) == found
    assert [line.split() for line in said.out.splitlines()] == rows
    # Only the named steps are scored.
    assert score_every_checkpoint(trained, NAME, steps=(2, 5), out=tmp_path, cache="").keys() == {2, 5}
    with pytest.raises(InvalidInputError, match=r"has checkpoints of the steps \[2, 4, 5\]; got \[3\]"):
        score_every_checkpoint(trained, NAME, steps=(3,), out=tmp_path, cache="")
    # Each is the score of that checkpoint only.
    alone = sagan_jax.evaluate(trained, NAME, checkpoint=4, out=tmp_path / "alone", cache="")
    assert alone[NAME] == found[4]


@pytest.mark.slow
@pytest.mark.one_jax
def test_score_by_a_classifier_of_other_images_is_measured_again(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(classifier, "_STEPS", 1)
    name = "classifier_accuracy"
    drawn = np.random.default_rng(1).integers(0, 256, (30, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "other.npz", images=drawn, labels=np.arange(30) % 2)
    words = ("--workdir", trained, "--every-checkpoint", "--protocol", name, "--out", tmp_path / "out")
    for source, measured in (((), 3), ((), 0), (("--source", tmp_path / "other.npz"), 3)):
        assert command("evaluate", *words, *source) == 0
        assert capsys.readouterr().err.count(f": {name}") == measured


@pytest.mark.slow
@pytest.mark.one_jax
def test_stopped_call_goes_on_where_it_was_and_a_damaged_checkpoint_is_left_out(trained, tmp_path, monkeypatch):
    options = {"out": tmp_path, "cache": ""}

    def stop(step, score):
        raise StoppedError("stopped", 15)

    with pytest.raises(StoppedError):
        score_every_checkpoint(trained, NAME, on_score=stop, **options)
    assert list(recorded(tmp_path)) == [2]
    measured, lines = [], []
    restore = score_curve.GenerationRun.generator

    def damaged(run, *, raw):
        if run.checkpoint == 4:
            raise InvalidInputError("Checkpoint 4 is damaged.")
        return restore(run, raw=raw)

    monkeypatch.setattr(score_curve.GenerationRun, "generator", damaged)
    table = score_every_checkpoint(
        trained, NAME, on_score=lambda step, score: measured.append(step), notify=lines.append, **options
    )
    assert (measured, list(table)) == ([5], [2, 5])
    assert lines == ["left out: step 4: Checkpoint 4 is damaged."]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--checkpoint", "best"], "neither --checkpoint"),
        (["--reference", "stats.npz"], "needs --out"),
        ([], "There is no run in 'nowhere'"),
    ],
)
def test_what_cannot_be_is_refused(words, says, capsys):
    assert command("evaluate", "--workdir", "nowhere", "--every-checkpoint", *words) == 2
    assert says in error_line(capsys)
