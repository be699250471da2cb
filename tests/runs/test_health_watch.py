"""What a run does with the signs of its health: it prints, records and reports them, and ends if asked to."""

import dataclasses

import numpy as np
import pytest

from sagan_jax.config import Data, Evaluation, Experiment, Networks, Recording, Training
from sagan_jax.data import open_source
from sagan_jax.errors import CollapsedError
from sagan_jax.runs import health
from sagan_jax.runs.diversity import Diversity
from sagan_jax.runs.health import Health
from sagan_jax.runs.health_watch import HealthWatch, observed_intervals
from sagan_jax.runs.train import train
from sagan_jax.runtime.metrics_log import MetricsWriter, read_metrics
from support.commands import command
from support.metrics import read_metrics as lines_of

pytestmark = pytest.mark.one_jax

DEAD = {
    "discriminator/loss": 2.0,
    "discriminator/real_logits": 0.1,
    "discriminator/fake_logits": 0.1,
    "generator/gradient_norm": 3.0,
}


def watch_of(said, *, stop=False, every=(100,)):
    return HealthWatch(Health("hinge"), every, said.append, stop_on_collapse=stop)


def test_sign_is_said_in_one_line_and_recorded_as_a_scalar():
    said = []
    recorded = [watch.observe(100 * number, DEAD) for watch in [watch_of(said)] for number in range(1, 9)]
    assert recorded[5] == {"health/logits_inseparable": 1.0, "health/discriminator_says_nothing": 1.0}
    assert sum(map(len, recorded)) == len(said) == 2
    assert said[0].startswith("warning: step 600: D cannot tell real from generated images (")


def test_run_stops_only_on_a_severe_sign_with_stop_on_collapse():
    for stop, loss, collapsed in ((True, 2.0, True), (False, 2.0, False), (True, 0.0, False)):
        watch = watch_of([], stop=stop)
        separation = 0.0 if loss else 3.0
        for step in range(100, 700, 100):
            watch.observe(step, DEAD | {"discriminator/loss": loss, "discriminator/real_logits": 0.1 + separation})
        assert (watch.collapsed is not None) == collapsed


def test_step_at_which_only_a_stop_logged_is_not_observed():
    said = []
    watch = watch_of(said)
    for step in range(50, 600, 100):
        assert watch.observe(step, DEAD) == {}
    assert said == []


def test_watch_that_is_resumed_goes_on_from_the_recorded_metrics(tmp_path):
    unbroken_said = []
    unbroken = watch_of(unbroken_said)
    with MetricsWriter(tmp_path, first_step=0) as writer:
        for step in range(100, 500, 100):
            writer.scalars(step, DEAD | unbroken.observe(step, DEAD))
        writer.scalars(450, {"discriminator/loss": None} | DEAD)  # the line of a stop
    said = []
    resumed = watch_of(said)
    resumed.resume_from(tmp_path, 450)
    for step in range(500, 900, 100):
        assert resumed.observe(step, DEAD) == unbroken.observe(step, DEAD)
    assert said == unbroken_said
    assert len(said) == 2


def test_watch_that_is_resumed_says_nothing_twice_and_still_ends_the_run(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        for step in range(100, 800, 100):
            writer.scalars(step, DEAD)
    said = []
    watch = watch_of(said, stop=True)
    watch.resume_from(tmp_path, 700)
    assert said == []
    assert watch.collapsed.sign.name == "logits_inseparable"


def test_watch_does_not_observe_steps_that_will_be_done_again(tmp_path):
    with MetricsWriter(tmp_path, first_step=0) as writer:
        for step in range(100, 900, 100):
            writer.scalars(step, DEAD)
    watch = watch_of([], stop=True)
    watch.resume_from(tmp_path, 400)
    assert watch.collapsed is None


def test_run_without_metrics_yet_is_watched_from_the_start(tmp_path):
    watch = watch_of([], stop=True)
    watch.resume_from(tmp_path, 0)
    for step in range(100, 900, 100):
        watch.observe(step, DEAD)
    assert watch.collapsed.sign.name == "logits_inseparable"


def test_scores_are_observed_when_they_are_measured():
    recording = Recording(log_every_steps=3, sample_every_steps=5, save_every_steps=7)
    assert observed_intervals(Experiment(recording=recording)) == [3, 5, 7]
    evaluation = Evaluation(("fid50k_train",), evaluate_every_steps=11)
    assert observed_intervals(Experiment(recording=recording, evaluation=evaluation)) == [3, 5, 7, 11]


def test_diversity_of_real_images_that_are_all_one_is_zero(tmp_path):
    np.savez(tmp_path / "same.npz", images=np.full((6, 32, 32, 3), 7, np.uint8), labels=np.zeros(6, int))
    assert Diversity(open_source(str(tmp_path / "same.npz"), resolution=32, cache="")).of_real_images == 0.0


def test_diversity_of_real_images_compares_different_images_of_one_class(tmp_path):
    levels = np.array([0, 20, 10, 50, 90], np.uint8)  # the last class has one image, which is paired with itself
    images = np.broadcast_to(levels[:, None, None, None], (5, 32, 32, 3))
    np.savez(tmp_path / "levels.npz", images=images, labels=np.array([0, 1, 0, 1, 2]))
    source = open_source(str(tmp_path / "levels.npz"), resolution=32, cache="")
    expected = (10 + 10 + 30 + 30 + 0) / 5 * np.sqrt(32 * 32 * 3)
    assert Diversity(source).of_real_images == pytest.approx(expected, rel=1e-6)


# Whole runs. With their table of signs, every D is dead after two steps.


@pytest.fixture
def dead_at_once(monkeypatch):
    dead = {"logits_inseparable": {"begins": 1e6, "ends": 1e7}}
    signs = tuple(sign._replace(**dead.get(sign.name, {})) for sign in health.SIGNS)
    monkeypatch.setattr(health, "SIGNS", signs)
    monkeypatch.setattr(health, "WINDOW_STEPS", 2)
    monkeypatch.setattr(health, "WINDOW_LINES", 2)


@pytest.fixture
def experiment(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(24) % 2)
    return Experiment(
        name="tiny",
        data=Data(source=str(tmp_path / "train.npz"), cache=""),
        networks=Networks(
            resolution=32,
            num_classes=2,
            base_channels=1,
            latent_size=5,
            generator_attention_resolutions=(),
            discriminator_attention_resolutions=(),
        ),
        training=Training(total_steps=6, batch_size=4),
        recording=Recording(log_every_steps=1, sample_every_steps=4, save_every_steps=100),
    )


def with_values(experiment, **sections):
    return dataclasses.replace(
        experiment,
        **{name: dataclasses.replace(getattr(experiment, name), **values) for name, values in sections.items()},
    )


@pytest.mark.slow
def test_run_that_collapses_without_protocols_is_saved_reported_and_ended(experiment, tmp_path, dead_at_once, capsys):
    stopping = with_values(experiment, evaluation={"stop_on_collapse": True})
    workdir = tmp_path / "run"
    with pytest.raises(CollapsedError, match="D cannot tell real from generated images") as raised:
        train(stopping, workdir)
    assert raised.value.exit_code == 5
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"3"}
    assert [line["step"] for line in lines_of(workdir) if "health/logits_inseparable" in line] == [2]
    assert capsys.readouterr().err.count("D cannot tell") == 1
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert "since step 2: D cannot tell real from generated images: try `--discriminator-steps 5`" in page
    with pytest.raises(CollapsedError, match="step 2: D cannot tell"):
        train(stopping, workdir)  # a scheduler that starts it again does not train a dead run
    printed = capsys.readouterr().err
    assert "D cannot tell" not in printed  # it was said before
    assert "compiling" not in printed
    with pytest.raises(CollapsedError, match="step 2: D cannot tell"):
        train(with_values(stopping, training={"total_steps": 3}), workdir)  # nor does it count a run that has ended
    assert train(experiment, workdir).step == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        {"loss": "wasserstein"},
        {"loss": "non_saturating", "batch_size": 8, "accumulation_steps": 2},
        {"discriminator_steps": 3},
    ],
)
def test_run_of_any_loss_and_any_updates_is_watched(experiment, tmp_path, dead_at_once, training, capsys):
    train(with_values(experiment, training={"total_steps": 2, **training}), tmp_path / "run")
    assert capsys.readouterr().err.count("D cannot tell real from generated images") == 1
    curves = read_metrics(tmp_path / "run" / "metrics.jsonl").curves
    assert curves["health/logits_inseparable"].values.tolist() == [1.0]
    assert curves["health/diversity"].steps.tolist() == [2]


@pytest.mark.slow
def test_run_of_images_that_are_all_one_is_trained(experiment, tmp_path):
    np.savez(tmp_path / "train.npz", images=np.full((24, 32, 32, 3), 7, np.uint8), labels=np.arange(24) % 2)
    train(with_values(experiment, training={"total_steps": 1}), tmp_path / "run")
    assert not any("health/diversity" in line for line in lines_of(tmp_path / "run"))


def test_report_command_finds_the_signs_of_a_run_that_watched_for_none(shared, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes((shared / "cases" / "dead-discriminator.jsonl").read_bytes())
    assert command("report", "--workdir", tmp_path) == 0
    assert "since step 3,000: D cannot tell real from generated" in (tmp_path / "report.html").read_text("utf-8")
