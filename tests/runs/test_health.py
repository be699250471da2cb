"""The signs that adversarial training goes wrong: when each begins, when it is over, and runs that have none."""

import math
import re

import numpy as np
import pytest

from sagan_jax.config import Training
from sagan_jax.runs.health import LOSSES, SIGNS, WINDOW_LINES, WINDOW_STEPS, Health, Score, observe_curves, sign_lines
from sagan_jax.runtime.metrics_log import Curve, read_metrics
from support.paths import ROOT

pytestmark = pytest.mark.one_jax

DOCUMENT = ROOT / "docs" / "health.md"
GUIDE = (ROOT / "docs" / "when_training_fails.md").read_text(encoding="utf-8")
LN4 = 2 * math.log(2)
UNTOLD = {"hinge": 2.0, "non_saturating": LN4, "logistic": LN4, "least_squares": 0.25, "relativistic": LN4 / 2}


def table() -> str:
    """Returns the table of docs/health.md; `python tests/runs/test_health.py` prints it."""
    rows = ["| sign | losses | measured | begins | over | ends the run |", "|---|---|---|---|---|---|"]
    for sign in SIGNS:
        low, high = ("below", "above") if sign.begins < sign.ends else ("above", "below")
        losses = "all" if sign.losses == LOSSES else ", ".join(sign.losses)
        limits = f"{low} {sign.begins:g} | {high} {sign.ends:g}"
        rows.append(f"| `{sign.name}` | {losses} | {sign.measured} | {limits} | {'yes' if sign.severe else 'no'} |")
    rows += ["", "| sign | what is said | what usually helps |", "|---|---|---|"]
    said = {f"| `{sign.name}` | {sign.words} | {sign.helps} |": None for sign in SIGNS}
    return "\n".join([*rows, *said])


def line(**changes):
    """The metrics of a step of a healthy run, of any loss."""
    values = {"loss": 1.1, "real": 0.5, "fake": -0.4, "gradient": 4.0, "sigma": 3.0, "gamma": 0.3} | changes
    return {
        "discriminator/loss": values["loss"],
        "discriminator/real_logits": values["real"],
        "discriminator/fake_logits": values["fake"],
        "generator/gradient_norm": values["gradient"],
        "generator/sigma/block_1/conv_1": values["sigma"],
        "discriminator/gamma_16": values["gamma"],
    }


def told(health, lines, every=100, first=0):
    """Returns what is said of lines that are `every` steps apart, as (step, sign, begins)."""
    events = [
        event
        for number, metrics in enumerate(lines, start=1)
        for event in health.observe(first + every * number, metrics)
    ]
    return [(event.step, event.sign.name, event.begins) for event in events]


def curve(points):
    steps, values = zip(*points, strict=True)
    return Curve(np.array(steps), np.array(values, float))


@pytest.fixture(scope="module")
def dead_run(shared):
    return read_metrics(shared / "cases" / "dead-discriminator.jsonl").curves


@pytest.fixture(scope="module")
def healthy_run(shared):
    return read_metrics(shared / "cases" / "healthy-wide.jsonl").curves


def test_dead_discriminator_raises_the_alarm_and_says_what_helps(dead_run):
    events = observe_curves(Health("hinge"), dead_run)
    first = events[0]
    assert (first.sign.name, first.begins, first.sign.severe) == ("logits_inseparable", True, True)
    assert first.step < 6000
    assert "D cannot tell real from generated images" in str(first)
    assert "--discriminator-steps 5" in str(first)
    assert "discriminator_steps" in Training.__dataclass_fields__
    names = [event.sign.name for event in events]
    assert names.count("logits_inseparable") == names.count("generator_gradient_gone") == 1


def test_guide_shows_what_the_dead_run_would_have_said_and_explains_each_sign(dead_run):
    (shown,) = re.findall(r"(?ms)^```text\n(.*?)^```", GUIDE)
    assert shown.splitlines() == [str(event) for event in observe_curves(Health("hinge"), dead_run)]
    rows = re.findall(r"(?m)^\| `(\w+)` \|", GUIDE.partition("## Sign, cause")[2].partition("\n## ")[0])
    assert set(rows) == {sign.name for sign in SIGNS}


def test_healthy_wide_run_raises_only_that_d_begins_to_memorise(healthy_run):
    events = observe_curves(Health("hinge"), healthy_run)
    assert {event.sign.name for event in events} == {"discriminator_wins"}
    assert not any(event.sign.severe for event in events)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("every", [1, 50, 500, 10_000])
def test_healthy_metrics_raise_no_sign(loss, every):
    assert told(Health(loss), [line()] * (600 // min(every, 50) + 8), every) == []


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("every", "step"), [(1, 500), (50, 500), (100, 600), (2000, 12_000)])
def test_dead_d_is_told_after_one_window_however_rarely_metrics_are_logged(loss, every, step):
    dead = [line(loss=UNTOLD.get(loss, 0.0), real=0.2, fake=0.2)] * 600
    wanted = [(step, "logits_inseparable", True)]
    if loss != "wasserstein":
        wanted.append((step, "discriminator_says_nothing", True))
    assert told(Health(loss), dead, every) == wanted


def test_window_needs_its_steps_and_its_lines():
    dead = line(loss=2.0, real=0.0, fake=0.0)
    assert told(Health("hinge"), [dead] * (WINDOW_STEPS - 1), 1) == []
    assert told(Health("hinge"), [dead] * (WINDOW_LINES - 1), 5000) == []


@pytest.mark.parametrize(("loss", "untold"), UNTOLD.items())
def test_d_loss_at_chance_level_raises_a_sign(loss, untold):
    assert (600, "discriminator_says_nothing", True) in told(Health(loss), [line(loss=1.02 * untold)] * 6)
    assert told(Health(loss), [line(loss=0.9 * untold)] * 6) == []
    assert told(Health(loss), [line(loss=0.8 * untold), line(loss=1.2 * untold)] * 6) == []  # wrong, but not silent


@pytest.mark.parametrize(("loss", "untold"), UNTOLD.items())
def test_d_loss_near_zero_is_told_and_is_no_reason_to_end_the_run(loss, untold):
    assert told(Health(loss), [line(loss=0.05 * untold)] * 6) == [(600, "discriminator_wins", True)]
    assert told(Health(loss), [line(loss=0.15 * untold)] * 6) == []
    assert not next(sign for sign in SIGNS if sign.name == "discriminator_wins").severe


def test_wasserstein_logits_have_no_scale():
    alternating = [line(real=40.0 * (-1) ** number, fake=0.0) for number in range(6)]
    assert told(Health("wasserstein"), alternating) == [(600, "logits_inseparable", True)]
    assert told(Health("wasserstein"), [line(loss=-0.001, real=0.001, fake=0.0)] * 6) == []


def test_gradient_of_g_is_gone_by_its_own_largest():
    healthy, gone = [line(gradient=0.5)] * 6, [line(gradient=0.005)] * 6
    assert told(Health("hinge"), healthy + gone) == [(1000, "generator_gradient_gone", True)]
    assert told(Health("hinge"), [line(gradient=0.005)] * 12) == []
    assert told(Health("hinge"), [line(gradient=0.0)] * 6) == [(600, "generator_gradient_gone", True)]


def test_one_small_gradient_in_a_window_is_no_sign():
    assert told(Health("hinge"), ([line()] * 5 + [line(gradient=0.0)]) * 4) == []


def test_sigma_and_gamma_that_run_away_are_told():
    assert told(Health("hinge"), [line(sigma=101.0)]) == [(100, "sigma_runs_away", True)]
    assert told(Health("hinge"), [line(gamma=-11.0)]) == [(100, "gamma_runs_away", True)]


def test_variety_is_gone_once_it_has_been_there():
    health = Health("hinge")
    drawn = [{"health/diversity": value} for value in (0.05, 0.3, 0.05, 0.15, 0.4)]
    assert told(health, drawn) == [(300, "variety_gone", True), (500, "variety_gone", False)]


def test_variety_of_a_scored_run_counts_too():
    assert told(Health("hinge"), [{"score/diversity": value} for value in (0.3, 0.05)]) == [(200, "variety_gone", True)]


@pytest.mark.parametrize(("higher_is_better", "bad"), [(False, 21.0), (True, 4.9)])
def test_score_twice_as_bad_as_its_best_three_times_in_a_row_is_told(higher_is_better, bad):
    health = Health("hinge", Score("fd", higher_is_better))
    scores = [10.0, bad, bad, 9.9, bad, bad, bad]
    assert told(health, [{"score/fd": score, "score/other": 1000.0} for score in scores]) == [
        (700, "score_is_bad", True)
    ]


def test_score_that_falls_below_zero_is_bad_where_higher_is_better():
    scores = [0.5, -0.1, -0.1, -0.1]
    said = told(Health("hinge", Score("silhouette", True)), [{"score/silhouette": score} for score in scores])
    assert said == [(400, "score_is_bad", True)]


def test_score_below_zero_has_no_ratio():
    scores = [-0.001, 0.004, 0.004, 0.004, 0.004]
    assert told(Health("hinge", Score("kid", False)), [{"score/kid": score} for score in scores]) == []


def test_sign_is_said_once_when_it_begins_and_once_when_it_is_over():
    dead, between, well = line(loss=2.0, real=0.0, fake=0.0), line(real=0.07, fake=0.0), line()
    said = told(Health("hinge"), [dead] * 20 + [between] * 20 + [well] * 20)
    inseparable = [(step, begins) for step, name, begins in said if name == "logits_inseparable"]
    assert inseparable == [(600, True), (4100, False)]


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_values_that_are_no_number_are_passed_over(missing):
    assert told(Health("hinge"), [line(loss=missing), line(gradient=missing), line(sigma=missing)] * 20) == []


def test_lines_of_old_runs_and_of_other_tasks_are_passed_over():
    lines = [{"completion/loss": 0.5, "images_per_second": 3.0}, {}, {"generator/loss": 1.0}]
    assert told(Health("hinge"), lines * 20) == []


@pytest.mark.parametrize("loss", LOSSES)
def test_run_that_is_resumed_says_what_the_unbroken_one_says(loss):
    dead = line(loss=2.0, real=0.01, fake=0.0, gradient=0.01)
    lines = [line()] * 9 + [dead] * 9 + [line()] * 9
    unbroken = told(Health(loss), lines)
    for stopped in range(1, len(lines)):
        recorded = {
            name: curve((100 * number, one[name]) for number, one in enumerate(lines, start=1)) for name in lines[0]
        }
        health = Health(loss)
        before = observe_curves(health, recorded, last_step=100 * stopped)
        after = told(health, lines[stopped:], first=100 * stopped)
        assert [(event.step, event.sign.name, event.begins) for event in before] + after == unbroken


def test_report_lines_say_from_when_to_when():
    curves = {
        "health/logits_inseparable": curve([(600, 1), (4100, 0), (6000, 1)]),
        "health/diversity": curve([(500, 0.4)]),
    }
    first, second = sign_lines(curves, {"training": {"loss": "hinge"}})
    assert first.startswith("from step 600 to 4,100: D cannot tell real from generated images: try `--disc")
    assert second.startswith("since step 6,000: D cannot tell")


def test_report_lines_of_a_run_that_watched_for_nothing_are_found_anew(dead_run):
    assert sign_lines(dead_run, {})[0].startswith("since step 3,000: D cannot tell")
    assert sign_lines(dead_run, {"training": None})


def test_a_loss_of_a_user_is_watched_for_the_signs_of_any_loss(dead_run):
    names = {event.sign.name for event in observe_curves(Health("my_gan.py:LOSS"), dead_run)}
    assert names == {"generator_gradient_gone", "sigma_runs_away"}
    for loss in ("my_gan.py:LOSS", ["my_gan.py:one", "my_gan.py:other"]):
        lines = sign_lines(dead_run, {"training": {"loss": loss}})
        assert lines
        assert not any("D cannot tell" in line for line in lines)


def test_report_lines_of_a_completion_run_are_none(dead_run):
    assert sign_lines(dead_run, {"training": {"reconstruction": "squared"}}) == []


def test_document_holds_the_table():
    assert table() in DOCUMENT.read_text(encoding="utf-8")


def test_every_sign_of_a_loss_has_its_own_name():
    for loss in LOSSES:
        names = [sign.name for sign in SIGNS if loss in sign.losses]
        assert len(set(names)) == len(names)


def test_messages_are_one_line():
    for sign in SIGNS:
        assert (sign.words + sign.helps).isprintable()


if __name__ == "__main__":
    print(table())
