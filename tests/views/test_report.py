"""The report of a run, on made-up workdirs: what it shows, what it survives, how large it gets."""

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from sagan_jax.config import Data, Evaluation, Experiment, Training, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.views.report import report_page, resume_command
from support.commands import command, error_line
from support.images import encoded, noise

pytestmark = pytest.mark.one_jax

DEFAULTS = to_dict(Experiment())
DRAWN = {"generator/attention_gamma_16": 0.2839, "discriminator/attention_gamma_16": 0.5}
VOID = {"meta", "input", "img", "br", "link", "hr"}


def png(shape=(6, 9, 3), seed=0):
    return encoded(noise(*shape, seed=seed))


def metrics(step, **more):
    return {
        "step": step,
        "discriminator/loss_real": 0.25 + step,
        "generator/loss": -0.75,
        "generator/gamma_16": 0.1234,
        "generator/gradient_norm": 3.5,
        "generator/sigma/block_1/conv_1": 1.5,
        "discriminator/sigma/attention_16/key_kernel": 2.5,
        "discriminator/real_logits": 0.5,
        "images_per_second": 321.0,
        **more,
    }


def write_metrics(workdir, *lines):
    (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def write_environment(workdir, **changes):
    environment = {
        "versions": {"jax": "0.98.7", "sagan-jax": None},
        "device_kind": "abacus",
        "device_count": 3,
        "process_count": 1,
        "XLA_FLAGS": None,
        "argv": ["/bin/sagan-jax", "train", "digits_32", "--loss", "hinge", "--workdir", "elsewhere", "--fresh"],
        "folder": "/home/ada",
    }
    (workdir / "environment.json").write_text(json.dumps(environment | changes), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    """A workdir of two logged steps, a grid, a score and a checkpoint."""
    workdir = tmp_path / "run"
    (workdir / "samples").mkdir(parents=True)
    (workdir / "scores").mkdir()
    (workdir / "checkpoints" / "40").mkdir(parents=True)
    (workdir / "checkpoints" / "60.orbax-checkpoint-tmp").mkdir()
    experiment = Experiment(name="a_run", data=Data(source="digits"), training=Training(total_steps=80, batch_size=7))
    (workdir / "config.json").write_text(json.dumps(to_dict(experiment)), encoding="utf-8")
    write_environment(workdir)
    write_metrics(workdir, metrics(20), metrics(50))
    for seed, step in enumerate((20, 40)):
        (workdir / "samples" / f"samples-{step:08d}.png").write_bytes(png(seed=seed))
    score = {"values": {"fd5k_train_random": 17.25}}
    (workdir / "scores" / "fd5k_train_random-00000040.json").write_text(json.dumps(score), encoding="utf-8")
    return workdir


class Page(HTMLParser):
    """Parses a page as a browser does: text, attributes, and elements that are closed in the wrong order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.wrong, self.attributes, self.words = [], [], [], []
        self.images, self.ids, self.tags = [], [], []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)


def shown(workdir, **options):
    return Page(report_page(workdir, defaults=DEFAULTS, **options))


def test_report_says_name_step_and_status(run):
    assert "a_run step 50 of 80 · not finished" in shown(run).text


def test_report_of_the_last_step_is_finished(run):
    write_metrics(run, metrics(80))
    assert "step 80 of 80 · finished" in shown(run).text


def test_report_says_the_status_it_is_given(run):
    assert "step 50 of 80 · stopped by SIGTERM" in shown(run, status="stopped by SIGTERM").text


def test_report_shows_the_last_value_of_every_metric(run):
    text = shown(run).text
    for words in ("real 50.2", "loss −0.75", "G at 16 0.123", "G 3.5", "conv 1 1.5", "key 2.5", "D, real 0.5"):
        assert words in text, words
    assert "images per second, median 321.0" in text


def test_report_says_when_the_run_started_in_utc(run):
    write_environment(run, started="2031-05-06T09:58:30+02:00")
    text = shown(run).text
    assert "started 2031-05-06 07:58 UTC" in text
    assert text.count("2031") == 1


@pytest.mark.parametrize("started", [None, 7, "yesterday", "", "0001-01-01T00:00:00+14:00", []])
def test_report_of_a_run_whose_start_is_not_recorded_leaves_it_out(run, started):
    write_environment(run, started=started)
    assert "started 0" not in shown(run).text
    assert " UTC" not in shown(run).text


def test_report_says_how_long_training_took_and_how_fast_it_was(run):
    # 20 steps at 2 images a second, then 30 at 7: 7 images a step, so 70 and 30 seconds.
    write_metrics(run, metrics(20, images_per_second=2.0), metrics(50, images_per_second=7.0))
    text = shown(run).text
    assert "time of training 0:01:40" in text
    assert "steps per second, mean 0.5" in text


def test_report_counts_the_images_of_every_discriminator_update_into_the_time(run):
    experiment = Experiment(training=Training(total_steps=80, batch_size=7, discriminator_steps=3))
    (run / "config.json").write_text(json.dumps(to_dict(experiment)), encoding="utf-8")
    write_metrics(run, metrics(20, images_per_second=2.0), metrics(50, images_per_second=7.0))
    assert "time of training 0:05:00" in shown(run).text


@pytest.mark.parametrize(("images", "one_size"), [(40 * 7, True), (30 * 7 + 10 * 14, False)])
def test_report_of_a_run_whose_batch_size_was_changed_says_no_time(run, images, one_size):
    write_metrics(run, metrics(20, images_per_second=2.0), metrics(50, images_per_second=7.0))
    text = shown(run, read=(40, images)).text
    assert ("time of training 0:01:40" in text) == one_size
    assert ("steps per second" in text) == one_size


@pytest.mark.parametrize("speed", [0.0, -1.0, 1e-290])
def test_report_of_an_impossible_speed_says_no_time(run, speed):
    write_metrics(run, metrics(20, images_per_second=speed))
    assert "time of training" not in shown(run).text


def test_report_says_the_gamma_of_the_attention_figures_at_its_top(run):
    write_metrics(run, metrics(50, **{"generator/gamma_16": 0.2871}), metrics(50), {"step": 50} | DRAWN)
    text = shown(run).text
    assert "γ of G at 16 0.284" in text.partition("images per second")[0]
    assert "G at 16, drawn 0.284" in text


def test_report_lists_the_signs_it_is_given(run):
    page = shown(run, find_signs=lambda curves, config: [f"{len(curves)} <curves> of {config['name']}"])
    assert "Signs that training goes wrong 8 <curves> of a_run" in page.text
    assert "Signs" not in shown(run).text


def test_report_draws_no_curves_of_signs_but_that_of_variety(run):
    write_metrics(run, metrics(20, **{"health/variety_gone": 1.0}), {"step": 20, "health/diversity": 0.75})
    text = shown(run).text
    assert "variety_gone" not in text
    assert "diversity of drawn images, relative to real ones" in text


def test_report_shows_a_metric_that_it_does_not_know(run):
    write_metrics(run, metrics(20, **{"completion/masked_error": 0.0625}))
    assert "Other metrics completion/masked_error last 0.0625" in shown(run).text


def test_report_draws_every_curve_in_its_own_colour(run):
    write_metrics(
        run, metrics(1, **{"generator/gamma_32": 1.0}), metrics(2, **{"generator/gamma_32": 3.0, "generator/loss": 4.0})
    )
    page = report_page(run)
    assert "#0a0b" not in page
    (gates,) = re.findall(r"<figure>\s*<figcaption><b>γ.*?</figure>", page, re.DOTALL)
    assert "stroke: var(--curve-0)" in gates
    assert "stroke: var(--curve-1)" in gates
    assert "stroke: var(--curve-2)" not in gates


def test_report_puts_a_point_where_it_belongs(run):
    write_metrics(run, *({"step": step, "generator/loss": value} for step, value in ((0, 0.0), (5, 8.0), (10, 2.0))))
    (path,) = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*curve-0', report_page(run))
    x, y = np.array(re.findall(r"[\d.]+", path), float).reshape(-1, 2).T
    assert np.allclose(x - x[0], [0, (x[2] - x[0]) / 2, x[2] - x[0]], atol=0.01)
    assert np.isclose((y[0] - y[1]) / (y[0] - y[2]), 8 / 2, atol=0.01)


def test_report_shows_scores_with_their_caveat(run):
    text = shown(run).text
    assert "fd5k_train_random 17.25 40 The features have random weights: compare this score between runs only" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fd5k_train_random_raw", "between runs only"),
        ("classifier_accuracy", "between runs only"),
        ("fid50k_train", ""),
    ],
)
def test_report_warns_of_scores_that_compare_between_runs_only(run, name, words):
    write_metrics(run, metrics(20, **{f"score/{name}": 4.5}))
    shutil.rmtree(run / "scores")
    row = re.search(rf"{name} 4\.5 20 (.*?)(?=Losses)", shown(run).text)[1]
    assert words in row
    assert bool(row.strip()) == bool(words)


def test_report_shows_the_newest_of_a_score(run):
    write_metrics(
        run, metrics(20, **{"score/fd5k_train_random": 30.0}), metrics(60, **{"score/fd5k_train_random": 9.0})
    )
    text = shown(run).text
    assert "fd5k_train_random 9 60" in text
    assert "Scores over the run" in text


def test_report_shows_the_warning_of_a_result_file(run):
    result = {"values": {"fid2k_train": 4.0}, "warning": "too few images"}
    (run / "scores" / "fid2k_train-00000040.json").write_text(json.dumps(result), encoding="utf-8")
    assert "fid2k_train 4 40 too few images" in shown(run).text


def test_report_shows_network_and_resize_of_a_score(run):
    result = {"values": {"fd9_train_dinov2": 4.0}, "embedding": "a.pth sha256:0123", "protocol": {"resize": "to 224"}}
    (run / "scores" / "fd9_train_dinov2-00000040.json").write_text(json.dumps(result), encoding="utf-8")
    text = shown(run).text
    assert "never compare this score with a published FID. Network: a.pth sha256:0123. Images resized: to 224." in text


def test_report_holds_the_pictures_themselves_in_order(run):
    images = shown(run).images
    assert [image["alt"] for image in images] == ["step 20", "step 40"]
    assert [("hidden" in image) for image in images] == [True, False]
    assert (images[0]["width"], images[0]["height"]) == ("18", "12")
    assert images[1]["src"].startswith("data:image/png;base64,")
    assert base64.b64decode(images[1]["src"].partition(",")[2]) == png(seed=1)


def test_report_shows_attention_distance_and_entropy(run):
    line = {"step": 10, "generator/attention_distance_16": 12.5, "discriminator/attention_entropy_16": 3.25}
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps(line) + "\n")
    text = shown(run).text
    assert "mean attention distance, pixels G at 16 12.5" in text
    assert "mean attention entropy, nats D at 16 3.25" in text


def test_report_shows_attention_views(run):
    (run / "attention").mkdir()
    (run / "attention" / "generator-16.png").write_bytes(png(seed=5))
    assert "Attention generator-16" in shown(run).text
    assert [image["alt"] for image in shown(run).images] == ["step 20", "step 40", "generator-16"]


def test_report_shows_what_differs_from_the_defaults_first(run):
    text = shown(run).text
    changed, unchanged = text.index("training.batch_size 7 256"), text.index('training.loss "hinge"')
    assert (
        text.index("Settings that differ from the defaults")
        < changed
        < text.index("Settings at their defaults")
        < unchanged
    )


def test_report_without_defaults_shows_all_settings(run):
    page = Page(report_page(run))
    assert "All settings" in page.text
    assert "training.batch_size 7" in page.text


def test_report_takes_a_tuple_for_the_list_that_json_makes_of_it(run):
    assert "networks.generator_attention_resolutions [32] [32]" not in shown(run).text


def test_report_shows_versions_and_hardware(run):
    text = shown(run).text
    for words in ("jax 0.98.7", "sagan-jax not installed", "device_kind abacus", "device_count 3", "XLA_FLAGS not set"):
        assert words in text


COMMANDS = [
    (["sagan-jax", "train"], "sagan-jax train --workdir RUN"),
    (["/x/sagan-jax", "train", "e.py", "--seed", "3"], "sagan-jax train e.py --seed 3 --workdir RUN"),
    (["/x/main.py", "train", "--workdir=a", "--fresh", "--seed=3"], "sagan-jax train --seed=3 --workdir RUN"),
    (["sagan-jax", "train", "--workdir", "a", "--name", "it's"], "sagan-jax train --name 'it'\"'\"'s' --workdir RUN"),
    (["mine.py", "--fresh"], "python mine.py --fresh"),
]


@pytest.mark.parametrize(("given", "wanted"), COMMANDS)
def test_resume_command_is_the_one_given_without_fresh_and_with_the_workdir_where_it_is(given, wanted, tmp_path):
    command = resume_command(tmp_path, {"argv": given})
    assert command.replace(str(tmp_path.resolve()), "RUN") == wanted


def test_resume_command_goes_to_the_folder_it_was_given_in(tmp_path):
    environment = {"argv": ["sagan-jax", "train"], "folder": "/a b", "XLA_FLAGS": "--x=1 --y"}
    assert resume_command(tmp_path, environment).startswith("cd '/a b' && XLA_FLAGS='--x=1 --y' sagan-jax train")


@pytest.mark.parametrize("argv", [None, [], "train", [1, 2]])
def test_resume_command_is_empty_where_none_is_known(argv, tmp_path):
    assert resume_command(tmp_path, {"argv": argv}) == ""


def test_report_shows_the_command_and_the_checkpoint_it_goes_on_from(run):
    wanted = f"step 40: cd /home/ada && sagan-jax train digits_32 --loss hinge --workdir {run.resolve()}"
    assert wanted in shown(run).text


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 60, "generator/lo', b"\xff\xfe", b"[1, 2]", b'{"step": "x"}', b'{"a": 1}', b"null", b"[" * 100_000],
)
def test_report_survives_a_broken_line(run, torn):
    whole = (run / "metrics.jsonl").read_bytes()
    first, second, _ = whole.split(b"\n")
    (run / "metrics.jsonl").write_bytes(first + b"\n" + torn + b"\n" + second + b"\n" + torn)
    text = shown(run).text
    assert "step 50 of 80" in text
    assert "2 lines of metrics.jsonl could not be read" in text


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "1", True, [1], 10**400, 1e300])
def test_report_leaves_out_what_is_no_number(run, value):
    write_metrics(run, metrics(20), metrics(50, **{"generator/loss": value}))
    text = shown(run).text
    assert "loss −0.75" in text
    assert "1 value is not a finite number" in text


def test_report_of_a_curve_without_one_number_leaves_it_out(run):
    write_metrics(run, {"step": 3, "generator/loss": None})
    assert "generator loss" not in shown(run).text


EXTREMES = [(-9e99, 9e99), (5e-324, 1.0), (5e-324, 5e-324), (1e-300, 9e99), (1e300, -1e308)]


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (-2.0, 5.0), (1e-9, 3e38), (7.0, 7.0), (1e-30, 2e-30), (0.0, 1e9), *EXTREMES]
)
def test_report_draws_values_of_any_size(run, values):
    lines = [metrics(9 * step, **{"generator/gradient_norm": value}) for step, value in enumerate(values)]
    write_metrics(run, *lines)
    assert shown(run).wrong == []


def test_report_labels_the_axis_of_a_flat_curve(run):
    write_metrics(run, {"step": 1, "generator/loss": 3e9}, {"step": 2, "generator/loss": 3e9})
    labels = re.findall(r"<text[^>]*>([^<]*e\+09)</text>", report_page(run))
    assert len(set(labels)) == len(labels) >= 3


MISSING = ["metrics.jsonl", "environment.json", "samples", "scores", "checkpoints"]


@pytest.mark.parametrize("name", MISSING)
def test_report_survives_what_is_missing(run, name):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "a_run" in shown(run).text


def test_report_survives_a_run_of_a_config_only(run):
    for name in MISSING:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    text = shown(run).text
    assert "step 0 of 80" in text
    assert "There are no metrics yet." in text
    assert "environment.json is missing" in text


@pytest.mark.parametrize("name", ["config.json", "environment.json", "scores/fd5k_train_random-00000040.json"])
@pytest.mark.parametrize("content", [b"", b'{"a"', b"[]", b'{"training": 3, "values": 4, "versions": []}'])
def test_report_survives_a_damaged_document(run, name, content):
    (run / name).write_bytes(content)
    assert "generator" in shown(run).text


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        png()[:-20],
        png()[:40],
        b"GIF89a",
        png()[:-16] + b"????" + png()[-12:],
        png()[:60] + b"?" * 90,
    ],
)
def test_report_survives_a_damaged_picture_and_says_so(run, damage):
    (run / "samples" / "samples-00000020.png").write_bytes(damage)
    page = shown(run)
    assert [image["alt"] for image in page.images] == ["step 40"]
    assert "samples-00000020.png is damaged" in page.text


def test_report_of_a_missing_run_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="no run"):
        report_page(tmp_path)


def test_report_with_500_grids_stays_within_its_budget(run):
    picture = png((60, 60, 3))
    for step in range(1, 501):
        (run / "samples" / f"samples-{step:08d}.png").write_bytes(picture)
    (run / "attention").mkdir()
    for number in range(50):
        (run / "attention" / f"view-{number}.png").write_bytes(picture)
    page = report_page(run, defaults=DEFAULTS, budget=1_000_000)
    assert 900_000 < len(page.encode()) <= 1_000_000
    steps = [int(image["alt"].split()[1]) for image in Page(page).images if image["alt"].startswith("step")]
    assert (steps[0], steps[-1]) == (1, 500)
    views = [image["src"] for image in Page(page).images if image["alt"].startswith("view")]
    assert 200_000 < sum(map(len, views)) < 333_000
    assert f"{50 - len(views)} of 50 attention figures are left out" in Page(page).text
    gaps = np.diff(steps)
    assert gaps.max() - gaps.min() <= 1
    assert f"{len(steps)} of 500 sample grids are shown" in Page(page).text


def test_report_with_room_for_one_grid_shows_the_last(run):
    base = len(report_page(run).encode()) - sum(len(image["src"]) for image in Page(report_page(run)).images)
    assert [image["alt"] for image in shown(run, budget=base + 20_000).images] == ["step 20", "step 40"]
    for path in (run / "samples").iterdir():
        path.write_bytes(png((60, 60, 3)))
    assert [image["alt"] for image in Page(report_page(run, budget=base + 20_000)).images] == ["step 40"]


def test_report_without_room_shows_no_picture(run):
    assert shown(run, budget=1).images == []


def test_report_of_a_long_run_has_2000_points_a_curve(run):
    rng = np.random.default_rng(0)
    write_metrics(run, *({"step": step, "generator/loss": rng.normal()} for step in range(1, 9001)))
    page = report_page(run)
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*curve-0', page)
    assert max(path.count("L") for path in paths) < 2000
    assert "Longer curves are downsampled to 2,000 points" in page


def test_report_asks_no_network(run):
    page = report_page(run, defaults=DEFAULTS)
    targets = [value for name, value in Page(page).attributes if name.endswith(("src", "href")) or name == "action"]
    assert targets
    assert [value for value in targets if not value.startswith(("data:image/png;base64,", "#"))] == []
    assert re.findall(r"https?:|@import|url\((?!#)", page) == []
    assert "default-src 'none'" in page


def test_report_is_well_formed_html(run):
    page = shown(run)
    assert (page.wrong, page.open) == ([], [])
    assert page.tags.count("style") == page.tags.count("script") == 1
    assert page.tags.count("svg") == page.tags.count("figure") == 8
    assert len(page.ids) == len(set(page.ids))


def test_report_refers_only_to_parts_that_it_has(run):
    page = report_page(run)
    used = re.findall(r'href="#([^"]*)"', page) + re.findall(r"url\(#([^)]*)\)", page)
    assert used
    assert set(used) <= set(Page(page).ids)


def test_report_escapes_hostile_names(run):
    evil = "</title><script>alert('$x$')</script>\"'&"
    experiment = Experiment(name=evil, data=Data(source=evil), evaluation=Evaluation(protocols=(evil,)))
    (run / "config.json").write_text(json.dumps(to_dict(experiment)), encoding="utf-8")
    write_environment(run, argv=["sagan-jax", "train", evil], device_kind=evil, **{evil: evil})
    names = {prefix + evil: 1.0 for prefix in ("", "score/", "generator/sigma/", "generator/loss_")}
    write_metrics(run, metrics(20, **names), metrics(30, **names))
    (run / "attention").mkdir()
    (run / "attention" / '"><script>.png').write_bytes(png())
    (run / "scores" / "<script>-00000001.json").write_text(json.dumps({"values": {evil: 1.0}, "warning": evil}))
    page = shown(run, status=evil)
    assert page.tags.count("script") == 1
    assert page.tags.count("title") == 1
    assert (page.wrong, page.open) == ([], [])
    assert page.text.count("<script>alert('$x$')") >= 10
    assert 'Attention "><script>' in page.text


def test_report_survives_words_that_are_no_unicode(run):
    write_environment(run, argv=["sagan-jax", "train", "\udcff"])
    assert "\\udcff" in shown(run).text


def test_report_of_the_same_files_is_the_same(run, tmp_path, monkeypatch):
    first = report_page(run, defaults=DEFAULTS)
    monkeypatch.setitem(matplotlib.rcParams, "axes.linewidth", 9)
    monkeypatch.chdir(run)
    assert report_page(Path(), defaults=DEFAULTS) == first
    assert matplotlib.rcParams["axes.linewidth"] == 9


@pytest.mark.slow
def test_report_loads_no_pyplot(run):
    program = f"import sys; from sagan_jax.views.report import report_page as r; r({str(run)!r}); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "matplotlib.figure" in answer.stdout.split()
    assert "matplotlib.pyplot" not in answer.stdout.split()


def test_command_writes_the_report_into_the_workdir(run, capsys):
    assert command("report", "--workdir", run) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page == report_page(run, defaults=DEFAULTS)
    assert capsys.readouterr().out == f"{run / 'report.html'}: {len(page.encode()) / 1e6:.2f} MB\n"


def test_command_writes_where_it_is_told(run, tmp_path):
    (run / "report.html").write_text("an older report")
    assert command("report", "--workdir", run, "--out", tmp_path / "new" / "page.html") == 0
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == report_page(run, defaults=DEFAULTS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert (run / "report.html").read_text() == "an older report"


def test_command_of_a_missing_run_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert command("report", "--workdir", tmp_path / "nothing") == 2
    assert "There is no run in" in error_line(capsys)
    assert not (tmp_path / "nothing").exists()


def test_command_with_a_page_too_small_is_exit_code_2(run, capsys):
    assert command("report", "--workdir", run, "--megabytes", "nan") == 2
    assert "--megabytes" in error_line(capsys)


def test_command_that_cannot_write_says_so_at_once(run, capsys):
    code = command("report", "--workdir", run, "--out", run / "config.json" / "x.html")
    assert code == 2
    assert "is a file, not a folder" in error_line(capsys)
