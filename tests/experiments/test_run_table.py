"""The program that trains and compares the rows of a table."""

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import sagan_jax
from sagan_jax.config import Collapse, CompletionExperiment, Data, Experiment, Recording, Search, Table, to_dict
from sagan_jax.data.synthetic import Pairs, parse_synthetic
from sagan_jax.errors import CollapsedError, InvalidInputError, NonFiniteError, SaganError, StorageError
from sagan_jax.evaluation.permutation import difference_p
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.generation import GenerationJob
from support.programs import EXPERIMENTS, load_program

pytest.importorskip("statsmodels", reason="statsmodels is not installed (pip install 'sagan-jax[tables]')")

from comparisons import outcomes, tables

pytestmark = pytest.mark.one_jax

PROGRAM = EXPERIMENTS / "run_table.py"
TABLES = sorted(path.stem for path in (PROGRAM.parent / "tables").glob("[!_]*.py"))


@pytest.fixture
def program():
    return load_program(PROGRAM)


@pytest.fixture
def table():
    run = CompletionExperiment(name="t", data=Data("mirror:images=9"), recording=Recording(log_every_steps=2))
    run = replace(run, training=replace(run.training, total_steps=4, batch_size=4))
    none = replace(run, networks=replace(run.networks, attention_resolutions=()))
    scores = {"centre/psnr": "centre, dB", "centre/l1": "L1"}
    rows, curves = {"none": none, "attention": run}, ("held_out/psnr", "loss")
    return Table(rows, (0, 5), scores, {"attention": "none"}, curves, ("fd10_train_random",), {"holes": ("centre",)})


@pytest.fixture
def fake(monkeypatch):
    """Replaces training and scoring. Returns the list of their calls."""
    asked = []

    def train(experiment, workdir):
        asked.append(("train", workdir.name, experiment.training.seed))
        workdir.mkdir(parents=True)
        lines = [
            {"step": 1, "images_per_second": 0.001},
            {"step": 2, "images_per_second": 1.0},
            {"step": 4, "images_per_second": 4.0, "held_out/psnr": 20.0},
            {"step": 4, "loss": 1},
        ]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def evaluate(workdir, *protocols, **options):
        asked.append(("evaluate", workdir.name, protocols, options))
        row, seed = workdir.name.split("-")
        return {"centre/psnr": 20.0 + 2 * (row == "attention") + int(seed), "centre/l1": 0.25, "centre/ssim": 1.0}

    monkeypatch.setattr(sagan_jax, "train", train, raising=False)
    monkeypatch.setattr(sagan_jax, "evaluate", evaluate, raising=False)
    return asked


def test_rows_are_run_seed_by_seed_and_compared_with_the_baseline(program, table, fake, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    program.run(["t", "--out", str(tmp_path)])
    assert [entry[:2] for entry in fake if entry[0] == "train"] == [
        ("train", name) for name in ("none-0", "attention-0", "none-5", "attention-5")
    ]
    assert ("train", "attention-5", 5) in fake
    assert ("evaluate", "none-0", ("fd10_train_random",), {"holes": ("centre",)}) in fake
    # An attention layer of 48 channels has 48^2 / 4 + 48^2 + 1 parameters, and there are two. Of 6 groupings of 20, 25,
    # 22 and 27, 4 are as far apart.
    written = (tmp_path / "table.md").read_text()
    assert written.splitlines() == [
        "| row | centre, dB | L1 | parameters | seeds |",
        "|---|---|---|---|---|",
        "| none | 22.50 [20.00, 25.00] | 0.25 [0.25, 0.25] | 4,268,000 | 2 |",
        "| attention | 24.50 [22.00, 27.00] | 0.25 [0.25, 0.25] | 4,273,762 | 2 |",
        "",
        "| comparison | of | difference | test of | seeds | p | p, Holm over 1 |",
        "|---|---|---|---|---|---|---|",
        "| attention − none | centre, dB | +2.00 [-3.00, +7.00] | means | 2 and 2 | 0.67 | 0.67 |",
    ]
    # 4 steps of 4 images at a median of 1 a second.
    assert json.loads((tmp_path / "none-0" / "row.json").read_text())["minutes"] == pytest.approx(16 / 60)
    assert written in capsys.readouterr().out
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_share_of_nothing_is_left_out_and_counted(program, table):
    table = replace(table, scores={"obey": "obey", "hue": "same hue"}, share_of={"hue": "obey"})
    values = {"none": {0: (0.25, 0.5), 5: (0.5, 0.75)}, "attention": {0: (0.0, 0.0), 5: (0.75, 1.0)}}
    found = {
        row: {seed: {"values": {"obey": obey, "hue": hue}, "minutes": 1.0} for seed, (obey, hue) in runs.items()}
        for row, runs in values.items()
    }
    written = program.whole(table, found, dict.fromkeys(table.rows, 7)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in written]
    assert cells[2:4] == [
        ["none", "0.38 [0.25, 0.50]", "0.62 [0.50, 0.75]"],
        ["attention", "0.38 [0.00, 0.75]", "1.00 (1)"],
    ]
    found["attention"].pop(5)
    assert program.whole(table, found, dict.fromkeys(table.rows, 7)).splitlines()[3].split("|")[3].strip() == "–"


def test_score_that_is_younger_than_all_results_has_no_column_and_is_left_out_of_means(program, table):
    table = replace(table, scores={"obey": "obey", "young": "young"}, collapse=None)
    old, new = ({"values": {"obey": 0.5} | more, "curves": {}, "minutes": 1.0} for more in ({}, {"young": 0.25}))
    diverged = {"values": {}, "curves": {}, "minutes": 1.0, "diverged_at": 3}
    for result in (old, new):
        assert program.is_result(table, result | {"experiment": {}})
        assert not program.is_result(replace(table, tested=("obey", "other")), result | {"experiment": {}})
        assert not program.is_result(table, result | {"experiment": {}, "values": {"obey": 0.5, "young": "0.25"}})
    heads = {}
    for name, runs in {"old": (old, old), "mixed": (old, new), "none": (), "diverged": (diverged,)}.items():
        lines = tables.means(table, {"none": dict(enumerate(runs))}, dict.fromkeys(table.rows, 7)).splitlines()
        heads[name] = [cell.strip() for cell in lines[0].split("|")[1:4]]
        if name == "mixed":
            assert lines[2] == "| none | 0.50 [0.50, 0.50] | 0.25 (1) | 7 | 2 |"
    assert heads["old"] == ["row", "obey", "parameters"]
    assert heads["mixed"] == heads["none"] == heads["diverged"] == ["row", "obey", "young"]


@pytest.mark.parametrize("name", TABLES)
def test_shares_and_what_they_are_of_are_columns(program, name):
    table = program.load_table(name)
    assert {*table.share_of, *table.share_of.values()} <= set(table.scores)


def test_strips_underline_what_follows_the_rule(program, monkeypatch, tmp_path):
    following, other = (parse_synthetic(f"pairs:agree={agree},seed=3") for agree in (1, 0))
    images = np.stack([(other if index % 3 else following).draw(index, 32) for index in range(32)])
    follows_rule = len([0 for index in range(32) if index % 3 == 0]) + 1  # one of the 21 others agrees by chance
    asked = []

    def load_run(workdir):
        asked.append(workdir.name)
        return SimpleNamespace(generate=lambda count: SimpleNamespace(images=images[:count], labels=None))

    monkeypatch.setattr(sagan_jax, "load_run", load_run, raising=False)
    run = Experiment(data=Data("pairs"))
    table = Table({"none": run, "not done": run, "not shown": run}, (4, 2), {"rule9": "obey"}, {}, ())
    table = replace(table, strips=("none", "not done", "result alone"))
    values = {"values": {"rule9": 0.5}}
    (tmp_path / "result alone-2" / "checkpoints").mkdir(parents=True)  # an empty folder
    found = {"none": {4: values, 2: values}, "not done": {}, "not shown": {4: values}, "result alone": {2: values}}
    for name in ("none-4", "none-2", "not shown-4"):
        (tmp_path / name / "checkpoints" / "2000").mkdir(parents=True)
    program.draw_strips(table, found, tmp_path)
    assert asked == ["none-2"]
    with Image.open(tmp_path / "samples.png") as opened:
        picture = np.asarray(opened.convert("RGB")).astype(int)
    lines, _ = ndimage.label(abs(picture - (44, 160, 44)).max(axis=-1) < 20)  # matplotlib's C2
    widths = [part[1].stop - part[1].start for part in ndimage.find_objects(lines)]
    assert sum(width > 30 for width in widths) == follows_rule
    program.draw_strips(replace(table, strips=()), {"none": {4: values}}, tmp_path / "nowhere")


def test_line_lies_under_the_image_that_follows_the_rule(program, monkeypatch, tmp_path):
    images, drawn = np.zeros((32, 32, 32, 3), np.uint8), []
    images[17] = Pairs().draw(0, 32)  # the second of the second line
    run = SimpleNamespace(generate=lambda count: SimpleNamespace(images=images, labels=None))
    monkeypatch.setattr(sagan_jax, "load_run", lambda workdir: run, raising=False)
    monkeypatch.setattr(program.pyplot.Axes, "plot", lambda self, x, y, **_: drawn.append((x, y)))
    (tmp_path / "none-0" / "checkpoints" / "2000").mkdir(parents=True)
    table = Table({"none": Experiment(data=Data("pairs"))}, (0,), {"rule9": "obey"}, {}, (), strips=("none",))
    (tmp_path / "none-1" / "checkpoints" / "2000").mkdir(parents=True)
    diverged = {"values": {}, "curves": {}, "diverged_at": 3}
    program.draw_strips(table, {"none": {0: diverged}}, tmp_path)
    assert not drawn
    program.draw_strips(table, {"none": {0: diverged, 1: {"values": {"rule9": 0.5}}}}, tmp_path)
    assert drawn == [([40, 71], [75, 75])]  # 32 pixels wide, 8 between two


def test_curves_are_drawn_between_least_and_greatest_and_gamma_without_its_sign(program, table, monkeypatch, tmp_path):
    drawn, axes = [], program.pyplot.Axes
    monkeypatch.setattr(axes, "plot", lambda self, steps, values, **_: drawn.append(values.tolist()))
    monkeypatch.setattr(axes, "fill_between", lambda self, steps, *band, **_: drawn.append([x.tolist() for x in band]))
    monkeypatch.setattr(axes, "has_data", lambda self: False)
    runs = [{"curves": {name: [[2, value]] for name in ("generator/gamma_16", "loss")}} for value in (-1.0, 3.0)]
    runs[0]["curves"]["loss"] = [[2, -1.0], [4, 5.0], [6, 7.0]]
    runs[1]["curves"]["loss"] = [[2, 3.0], [3, 9.0], [4, 1.0]]
    runs.append({"curves": {"generator/gamma_16": [], "loss": []}})
    program.plot(replace(table, curves=("generator/gamma_16", "loss")), {"none": dict(enumerate(runs))}, tmp_path)
    # A step that only one run recorded, for example where it stopped, is left out unless the other runs have ended.
    assert drawn == [[2.0], [[1.0], [3.0]], [1.0, 3.0, 7.0], [[-1.0, 1.0, 7.0], [3.0, 5.0, 7.0]]]


def test_minutes_count_every_image_of_a_step(program):
    run = Experiment()
    run = replace(run, training=replace(run.training, total_steps=30, batch_size=4, discriminator_steps=2))
    assert program.minutes_of(run, np.array([1.0, 2.0, 9.0])) == pytest.approx(30 * 4 * 2 / 2 / 60)


def test_parameters_are_those_of_both_players(program):
    one = load_experiment("pairs_32")
    more = replace(one, networks=replace(one.networks, discriminator_base_channels=32))
    # Without attention there are 93,251 and 17,041. A layer of C channels, 32 and 16, has 2 C^2 / 8 + 2 C^2 / 2 + 1.
    assert program.parameters_of(one) == 93_251 + 17_041 + 1_281 + 321
    assert program.parameters_of(more) > 3 * program.parameters_of(one)


WRONG_FIELDS = [{"minutes": "1"}, {"minutes": True}, {"minutes": 10**400}, {"values": []}, {"values": {}}]
WRONG_FIELDS += [{"diverged_at": None}, {"diverged_at": True}, {"diverged_at": 0}]
WRONG_FIELDS += [{"curves": []}, {"curves": {"a": 3}}, {"curves": {"a": [[1]]}}, {"curves": {"a": [[2**64, 1.0]]}}]


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "3", "[" * 100_000, *WRONG_FIELDS])
def test_damaged_result_is_named(program, table, fake, monkeypatch, tmp_path, content):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    (tmp_path / "none-5").mkdir()
    if isinstance(content, dict):
        experiment = to_dict(program.run_of(table, "none", 5))
        whole = {"experiment": experiment, "values": dict.fromkeys(table.scores, 1.0), "minutes": 1.0, "curves": {}}
        assert program.is_result(table, whole)
        content = json.dumps(whole | content)
    (tmp_path / "none-5" / "row.json").write_text(content)
    with pytest.raises(sagan_jax.errors.InvalidInputError, match=r"none-5/row.json' is damaged: remove it"):
        program.run(["t", "--out", str(tmp_path)])
    assert not fake
    assert not (tmp_path / "plan.md").exists()


def test_torn_line_of_metrics_is_passed_over_and_lost_metrics_are_said(program, table, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    train = sagan_jax.train

    def torn(experiment, workdir):
        train(experiment, workdir)
        with (workdir / "metrics.jsonl").open("a") as lines:
            lines.write('{"step": 4, "lo')

    monkeypatch.setattr(sagan_jax, "train", torn)
    program.run(["t", "--out", str(tmp_path), "--rows", "none", "--seeds", "0"])
    assert json.loads((tmp_path / "none-0" / "row.json").read_text())["curves"]["loss"] == [[4, 1.0]]
    monkeypatch.setattr(sagan_jax, "train", lambda experiment, workdir: workdir.mkdir(parents=True))
    with pytest.raises(sagan_jax.errors.InvalidInputError, match=r"none-5' has lost its metrics: remove it"):
        program.run(["t", "--out", str(tmp_path), "--rows", "none", "--seeds", "5"])


def test_out_is_a_folder(program, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sagan_jax.errors.InvalidInputError, match=r"--out needs a folder; .*file' is a file"):
        program.run(["completion_mirror", "--out", str(tmp_path / "file")])


def test_curves_of_several_runs_share_their_steps(program):
    one, other, none = ({"curves": {"x": curve}} for curve in ([[2, 1.0], [6, 3.0]], [[2, 5.0], [4, 7.0]], []))
    steps, values = program.join_curves([one, other], "x")
    assert steps.tolist() == [2, 4, 6]
    assert np.array_equal(values, [[1, np.nan, 3], [5, 7, np.nan]], equal_nan=True)
    assert not program.join_curves([none], "x")[0].size
    assert not program.join_curves([{"curves": {}}], "x")[0].size
    assert not program.join_curves([], "x")[0].size


def test_table_is_rebuilt_from_results_only(program, table, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    program.run(["t", "--out", str(tmp_path / "out")])
    for result in (tmp_path / "out").glob("*/row.json"):
        (tmp_path / "again" / result.parent.name).mkdir(parents=True)
        result.rename(tmp_path / "again" / result.parent.name / "row.json")
    fake.clear()
    program.run(["t", "--out", str(tmp_path / "again")])
    assert not fake
    for name in ("table.md", "curves.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_published_results_are_of_the_tables_as_they_are(program):
    for folder in {path.parent.parent for path in (PROGRAM.parent / "results").glob("*/*/row.json")}:
        _, table = program.resolved(program.load_table(folder.name), folder)
        found = program.results(table, folder)
        assert sum(map(len, found.values())) == len(list(folder.glob("*/row.json"))) > 0


def test_finished_rows_are_not_run_again_and_others_are(program, table, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    program.run(["t", "--out", str(tmp_path), "--rows", "attention", "--seeds", "5"])
    assert [entry[1] for entry in fake] == ["attention-5", "attention-5"]
    assert "| attention | 27.00 | 0.25 | 4,273,762 | 1 |" in (tmp_path / "table.md").read_text()
    fake.clear()
    program.run(["t", "--out", str(tmp_path), "--seeds", "5"])
    assert {entry[1] for entry in fake} == {"none-5"}


def test_workdir_of_another_table_is_refused(program, table, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    program.run(["t", "--out", str(tmp_path), "--rows", "none", "--seeds", "0"])
    none = table.rows["none"]
    other = replace(table, rows={"none": replace(none, training=replace(none.training, total_steps=5))})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for scores in (table.scores, {"another": "score"}):
        monkeypatch.setattr(program, "load_table", lambda name, scores=scores: replace(other, scores=scores))
        with pytest.raises(sagan_jax.errors.InvalidInputError, match="holds another run than this table's"):
            program.run(["t", "--out", str(tmp_path), "--seeds", "5"])
    assert {entry[1] for entry in fake} == {"none-0"}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_plan_that_is_no_text_is_kept(program, table, tmp_path):
    (tmp_path / "plan.md").write_bytes(b"\xff old")
    program.state_plan(table, tmp_path)
    content = (tmp_path / "plan.md").read_bytes()
    assert content.startswith(b"\xff old\n---\n")
    assert content.endswith(program.plan(table).encode())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--out", "o"], f"There is no table 'nothing'; there are {', '.join(TABLES)}."),
        (["completion_attention", "--out", "o", "--rows", "nobody"], "got nobody."),
        (["completion_attention", "--out", "o", "--seeds", "77"], "has 0, 1, 2; got 77."),
    ],
)
def test_what_a_table_has_not_is_said_in_one_line(program, arguments, words):
    with pytest.raises(sagan_jax.errors.InvalidInputError) as raised:
        program.run(arguments)
    assert words in str(raised.value)


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_differ_in_their_networks_alone_or_in_the_loss_or_one_in_its_steps(program, name):
    table = program.load_table(name)
    assert table.baselines.keys() | set(table.baselines.values()) <= table.rows.keys()
    assert set(table.tested) <= {*table.scores, "collapsed"}
    assert set(table.lower_is_better) <= set(table.scores)
    assert table.ranked in ("", *outcomes.tested_scores(table))
    assert table.baselines or table.factors or name.endswith("_pilot")
    rest = [{key: value for key, value in to_dict(row).items() if key != "networks"} for row in table.rows.values()]
    if name.startswith("r3gan_"):
        for row in rest:
            row["training"] = {key: row["training"][key] for key in row["training"].keys() - {"loss", "r1", "r2"}}
    if name.startswith("survival_"):
        varied = {"discriminator_learning_rate", "discriminator_steps", "adam_beta1"}
        for row in rest:
            row["training"] = {key: row["training"][key] for key in row["training"].keys() - varied}
    if name.startswith("norm_budget"):
        assert {row["data"].pop("source").count("=") for row in rest} == {3}  # the grid of the classes
    if name == "studiogan_mmgeneration":
        for row in rest:
            row["training"] = {key: row["training"][key] for key in row["training"].keys() - {"adam_epsilon", "flips"}}
    if name == "long_range_v1":
        longer = rest.pop(list(table.rows).index("none, 4 times the steps"))
        steps = rest[0]["training"]["total_steps"]
        assert longer["training"] == rest[0]["training"] | {"total_steps": 4 * steps}
        assert {**longer, "training": 0, "recording": 0, "evaluation": 0} == {
            **rest[0],
            "training": 0,
            "recording": 0,
            "evaluation": 0,
        }
    assert all(one == rest[0] for one in rest)
    assert len({json.dumps(to_dict(row)) for row in table.rows.values()}) == len(table.rows)
    assert f"run_table.py {name} " in (PROGRAM.parent / "tables" / f"{name}.py").read_text()


@pytest.mark.slow
def test_rows_of_the_long_range_table_are_what_its_question_says(program):
    table = program.load_table("long_range_v1")
    parameters = {row: program.parameters_of(experiment) for row, experiment in table.rows.items()}
    none, release = parameters["none"], parameters["release at 16"]
    assert none == parameters["none, 4 times the steps"]
    assert release == parameters["uniform at 16"] == parameters["article at 16"] == parameters["release at 8"]
    assert abs(parameters["residual at 16"] / release - 1) < 0.001
    of_one = [parameters[f"release at 16, {network} only"] - none for network in "GD"]
    assert min(of_one) > 0
    assert sum(of_one) == release - none
    assert parameters["release at 16 and 8"] - none == 2 * (release - none)
    shares = [parameters[row] / release - 1 for row in ("squeeze-and-excite at 16", "multi-head at 16")]
    assert shares == pytest.approx([-0.012, 0.031], abs=0.0005)
    for experiment in table.rows.values():
        evaluation, steps = experiment.evaluation, experiment.training.total_steps
        assert f"`{experiment.data.source}`" in table.question
        assert steps == 5 * evaluation.evaluate_every_steps
        assert evaluation.protocols == ("rule1k",)
    assert len(table.seeds) == 8
    planned = program.plan(table)
    main = ("none", "none, 4 times the steps", "residual at 16", "uniform at 16")
    assert f"of beyond chance, for {', '.join(f'{row} against release at 16' for row in main)}. Where" in planned
    assert "The family, corrected by Holm: 4. The least p must be at most 0.013." in planned
    others = "squeeze-and-excite at 16 against none, article at 16 against none, multi-head at 16 against none, "
    assert f"A secondary family is corrected on its own: {others}" in planned
    assert "release at 16 and 8 against none. Its size: 7. The least p must be at most 0.0071." in planned
    assert "Ranks: by the mean of beyond chance." in planned
    assert difference_p([None, *range(20, 27)], range(8), lower_is_better=False) == pytest.approx(0.0104, abs=5e-5)
    assert "p of ranks is 0.0104" in " ".join(table.question.split())


SURVIVAL = [name for name in TABLES if name.startswith("survival_")]


@pytest.mark.parametrize("name", SURVIVAL)
def test_rows_that_may_lose_their_discriminator_are_what_they_are_called(program, name):
    of_g, width, steps = (5e-4, 8, 1500) if "cifar10" not in name else (2e-4, 64, 5000)
    table = program.load_table(name)
    for row, experiment in table.rows.items():
        training, networks = experiment.training, experiment.networks
        ratio = {"equal rates": 1, "1:4 rates": 4}[row.split(", ")[1]]
        assert (training.generator_learning_rate, training.discriminator_learning_rate) == (of_g, ratio * of_g)
        assert training.discriminator_steps == (5 if row.startswith("5 updates") else 1)
        assert training.adam_beta1 == (0.5 if row.endswith("beta1 0.5") else 0)
        assert (training.adam_beta2, training.total_steps, networks.base_channels) == (0.9, steps, width)
        assert (networks.spectral_norm == "discriminator") == ("in D," in row)
        assert bool(networks.generator_attention_resolutions) == ("figure3" not in name)
        assert networks.generator_attention_resolutions == networks.discriminator_attention_resolutions
        assert experiment.evaluation.stop_on_collapse == ("figure3" not in name)
    called = {"five updates": "5 updates", "1:4 rates": "1:4", "beta1 0.5": "beta1 0.5"}
    for factor, high in table.factors.items():
        assert high == tuple(row for row in table.rows if called[factor] in row)
    assert len(table.seeds) == 8
    assert table.tested == ("collapsed",)
    compared = "figure3" in name and "pilot" not in name
    assert table.secondary == (("in both, 1:4 rates",) if compared else ())


def test_pilot_of_figure_3_runs_its_first_row_on_seeds_that_the_table_does_not_count(program):
    pilot, whole = map(program.load_table, ("survival_figure3_pilot", "survival_figure3"))
    assert not {*pilot.seeds} & {*whole.seeds}
    ((row, first),) = pilot.rows.items()
    assert replace(first, name="survival_figure3") == next(iter(whole.rows.values()))
    assert row == next(iter(whole.rows))
    assert pilot.collapse == whole.collapse
    assert "No row is compared with another: no test." in program.plan(pilot)


def test_pilot_runs_the_worst_cell_on_seeds_that_the_table_does_not_count(program):
    pilot, whole = map(program.load_table, ("survival_digits_pilot", "survival_digits"))
    assert not {*pilot.seeds} & {*whole.seeds}
    ((row, worst),) = pilot.rows.items()
    assert row == "1 update, 1:4 rates, beta1 0.5"
    assert replace(worst, name="survival_digits") == whole.rows[row]
    assert [len(program.load_table(name).rows) for name in ("survival_digits", "survival_cifar10")] == [8, 4]


def test_sign_of_a_lost_discriminator_tells_the_lost_run_on_record_from_the_good_one(program, shared):
    table = program.load_table("survival_digits")
    found = {}
    for name in ("dead-discriminator", "healthy-wide"):
        lines = map(json.loads, (shared / "cases" / f"{name}.jsonl").read_text().splitlines())
        norms = [(line["step"], line[norm]) for line in lines if (norm := "generator/gradient_norm") in line]
        found[name] = outcomes.collapsed_at(table, {"curves": {norm: norms}})
    assert found == {"dead-discriminator": 3500, "healthy-wide": None}


def test_rows_of_the_norm_budget_are_what_its_question_says(program):
    table, pilot = (program.load_table(name) for name in ("norm_budget", "norm_budget_pilot"))
    assert len(table.rows) == 8
    assert len(table.seeds) == 8
    assert "The family, corrected by Holm: 6." in program.plan(table)
    assert "No row is compared with another: no test." in program.plan(pilot)
    assert not set(table.seeds) & set(pilot.seeds)
    for row, experiment in table.rows.items():
        form, classes = row.removesuffix(" classes").split(", ")
        networks = experiment.networks
        assert networks.conditional_gain == form.replace(" ", "_")
        rule = parse_synthetic(experiment.data.source)
        assert networks.num_classes == int(classes) == rule.hues * rule.columns * rule.rows
        compared = {"map": "table", "free map": "map", "scaled map": "map"}
        assert table.baselines.get(row) == (f"{compared[form]}, {classes} classes" if form in compared else None)
        rule.check(networks.resolution)
        assert f"{rule.hues}×{rule.columns}×{rule.rows}" in pilot.question
        bound = max(rule.num_classes, 4 * networks.base_channels) ** -0.5
        assert f"{bound:.3f} with {classes}" in table.question
    for row, experiment in pilot.rows.items():  # what the test starts from
        assert table.rows.get(row, experiment) == experiment
    assert [experiment.networks.num_classes for experiment in pilot.rows.values()] == [12, 48, 144]


def test_rows_of_studiogan_and_mmgeneration_are_a_half_design(program):
    table = program.load_table("studiogan_mmgeneration")
    levels = tables.levels_of(table)
    assert (len(levels), len(table.seeds)) == (8, 3)
    assert {np.prod(of_row) for of_row in levels.values()} == {1}
    settings = {
        "normalised gains": lambda run: run.networks.conditional_gain == "map",
        "orthogonal": lambda run: run.networks.initializer == "orthogonal",
        "large epsilons": lambda run: (run.networks.norm_epsilon, run.training.adam_epsilon) == (1e-4, 1e-6),
        "flips": lambda run: run.training.flips,
    }
    assert list(settings) == list(table.factors)
    for row, of_row in levels.items():
        found = tuple(1 if is_high(table.rows[row]) else -1 for is_high in settings.values())
        assert found == of_row, row
    low = table.rows["mmgeneration"]
    assert (low.networks.conditional_gain, low.networks.initializer) == ("free_map", "xavier")
    assert (low.networks.norm_epsilon, low.training.adam_epsilon, low.training.flips) == (1e-5, 1e-8, False)
    assert {levels["mmgeneration"], levels["StudioGAN"]} == {(-1,) * 4, (1,) * 4}
    found = {
        row: {
            seed: {"values": {"fd5k_train_lite0": 1.0}, "curves": {"health/diversity": [[2000, 1.0]]}}
            for seed in table.seeds
        }
        for row in table.rows
    }
    text = tables.factor_tables(table, found)
    assert "| normalised gains × orthogonal | +0.00 ± 0.00 | large epsilons × flips |" in text
    assert "The family, corrected by Holm: 4. Interactions" in program.plan(table)
    assert "With 12 runs against 12, no p is below 1e-05. A difference of 1.5 standard deviations" in program.plan(
        table
    )
    assert "no test" not in program.plan(table)


def test_rows_are_ranked_with_how_sure_it_is(program, table):
    table = replace(table, ranked="centre/l1", lower_is_better=("centre/l1",), baselines={})
    values = {"none": (0.5, 0.5), "attention": (0.5, 0.25)}
    found = {
        row: {seed: {"values": {"centre/psnr": 9.0, "centre/l1": value}} for seed, value in enumerate(of_row)}
        for row, of_row in values.items()
    }
    lines = program.whole(table, found, dict.fromkeys(table.rows, 7)).splitlines()
    # One of the four draws of `attention` ties with `none`. Then both share the ranks 1 and 2.
    at = lines.index("| rank by L1 | mean rank | first |")
    assert lines[at + 2 : at + 4] == ["| attention | 1.1 [1, 1.5] | 75% |", "| none | 1.9 [1.5, 2] | 0% |"]
    found["none"].popitem()
    assert "fewer than two rows have two runs" in program.whole(table, found, dict.fromkeys(table.rows, 7))


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("r3gan_digits", [(2e-4, 2e-4), (5e-4, 5e-4), (5e-4, 2e-3)]),
        ("r3gan_cifar10", [(2e-4, 2e-4), (3e-4, 3e-4), (3e-4, 1.2e-3)]),
    ],
)
def test_rates_are_sought_among_those_of_r3gan_and_of_the_experiment(program, name, rates):
    settings = program.load_table(name).search.settings
    assert [tuple(fields.values()) for fields in settings.values()] == rates
    assert list(settings) == [f"rates {of_g:g} and {of_d:g}" for of_g, of_d in rates]
    assert all(list(of) == ["generator_learning_rate", "discriminator_learning_rate"] for of in settings.values())


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_are_runs_that_train_would_start(program, name):
    for experiment in program.load_table(name).rows.values():
        (GenerationJob if isinstance(experiment, Experiment) else CompletionJob).check(experiment)


def test_doctests_hold(program):
    assert doctest.testmod(program).attempted
    assert not doctest.testmod(program).failed


@pytest.fixture
def searched(table):
    """A table whose rows seek a rate, and whose runs may collapse."""
    search = Search({f"rate {rate:g}": {"learning_rate": rate} for rate in (1e-3, 2e-3)}, (100,), "centre/l1")
    return replace(
        table, search=search, lower_is_better=("centre/l1",), collapse=Collapse("loss", below=0.5), question="Which?"
    )


@pytest.mark.slow
def test_search_runs_first_on_its_own_seeds_and_each_row_takes_its_best(program, searched, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "load_table", lambda name: searched)
    rates = {}
    scores = {"none, rate 0.001": 0.5, "none, rate 0.002": 0.1, "attention, rate 0.001": 0.3}
    scores["attention, rate 0.002"] = 0.4
    train = sagan_jax.train

    def keep(experiment, workdir):
        train(experiment, workdir)
        rates[workdir.name] = experiment.training.learning_rate

    def evaluate(workdir, *protocols, **options):
        return {"centre/psnr": 20.0, "centre/l1": scores.get(workdir.name.rpartition("-")[0], 0.2)}

    monkeypatch.setattr(sagan_jax, "train", keep)
    monkeypatch.setattr(sagan_jax, "evaluate", evaluate)
    program.run(["t", "--out", str(tmp_path), "--seeds", "5"])
    assert list(rates) == [*(f"{name}-100" for name in scores), "none-5", "attention-5"]
    assert (rates["none-5"], rates["attention-5"]) == (2e-3, 1e-3)
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("- none: rate 0.002\n- attention: rate 0.001\n\n| row |")
    assert "| none | 20.00 | 0.20 | 0 of 1 [0.00, 0.79] |" in text
    assert "| not collapsed at step | 1 | 2 | 3 | 4 |" in text
    rates.clear()
    program.run(["t", "--out", str(tmp_path)])
    assert list(rates) == ["none-0", "attention-0"]


def test_search_may_have_runs_of_another_length_than_the_rows(program, searched):
    shorter = replace(searched, search=replace(searched.search, total_steps=2))
    trials, chosen = program.search_table(shorter), program.chosen_table(shorter, {"none": "rate 0.002"})
    assert {trial.training.total_steps for trial in trials.rows.values()} == {2}
    assert [trial.training.learning_rate for trial in trials.rows.values()] == [1e-3, 2e-3] * 2
    lengths = {row: experiment.training.total_steps for row, experiment in searched.rows.items()}
    assert {row: experiment.training.total_steps for row, experiment in chosen.rows.items()} == lengths
    assert 2 not in lengths.values()
    assert "Each row tries these 2, for 2 steps, with seeds" in program.plan(shorter)
    assert "Each row tries these 2 with seeds" in program.plan(searched)


def test_setting_with_a_run_that_collapses_is_not_chosen(program, searched):
    searched = replace(searched, search=replace(searched.search, seeds=(100, 101)))

    def results(l1, *losses):
        run = {"values": {"centre/psnr": 1.0, "centre/l1": l1}}
        return {100 + number: run | {"curves": {"loss": [[4, loss]]}} for number, loss in enumerate(losses)}

    names = list(program.search_table(searched).rows)
    found = {name: results(0.3, 1.0, 1.0) for name in names}
    found[names[0]] = results(0.1, 0.2, 1.0)  # the better score, but one run collapsed
    found[names[3]].pop(101)
    assert program.choices(searched, found) == {"none": "rate 0.002"}
    found[names[1]] = results(0.3, 0.2, 0.2)  # both runs collapsed
    assert program.choices(searched, found) == {"none": "rate 0.001"}
    assert program.chosen_table(searched, {}).rows == searched.rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["collapse", "no collapse"])
def test_run_that_diverges_is_a_result_and_the_others_go_on(program, searched, fake, monkeypatch, tmp_path, kind):
    table = replace(searched, search=None, collapse=searched.collapse if kind == "collapse" else None)
    monkeypatch.setattr(program, "load_table", lambda name: table)
    train, evaluate = sagan_jax.train, sagan_jax.evaluate

    def diverge(experiment, workdir):
        if workdir.name == "none-0":
            workdir.mkdir(parents=True)  # in its third step, before anything was recorded
            raise NonFiniteError("Step 3: loss is nan.", step=3)
        train(experiment, workdir)
        if workdir.name == "attention-0":
            raise CollapsedError("The run has collapsed.")

    def not_finite(workdir, *protocols, **options):
        if workdir.name == "attention-5":
            raise NonFiniteError("The network has diverged.")
        return evaluate(workdir, *protocols, **options)

    monkeypatch.setattr(sagan_jax, "train", diverge)
    monkeypatch.setattr(sagan_jax, "evaluate", not_finite)
    program.run(["t", "--out", str(tmp_path)])
    found = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/row.json")}
    steps = {name: result.get("diverged_at") for name, result in found.items()}
    assert steps == {"none-0": 3, "attention-0": 4, "none-5": None, "attention-5": 4}
    assert (found["none-0"]["minutes"], found["attention-0"]["minutes"]) == (0, pytest.approx(16 / 60))
    text = (tmp_path / "table.md").read_text()
    assert "| none | 25.00 (1) | 0.25 (1) | 1 of 2 [0.09, 0.91] | 4,268,000 | 2 |" in text
    assert "| attention | – | – | 2 of 2 [0.34, 1.00] | 4,273,762 | 2 |" in text
    assert "| attention − none | centre, dB | -1.0 ranks | ranks | 2 and 2 | 1 | 1 |" in text
    if kind == "collapse":
        assert "| none | 1.00 [0.34, 1.00] | 1.00 [0.34, 1.00] | 0.50 [0.01, 0.91] | 0.50 [0.01, 0.91] |" in text
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    fake.clear()
    program.run(["t", "--out", str(tmp_path)])  # runs nothing again
    assert not fake
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == written


def test_setting_that_diverged_is_chosen_only_where_all_did(program, searched):
    good = {"values": {"centre/psnr": 1.0, "centre/l1": 0.9}, "curves": {"loss": [[4, 1.0]]}}
    diverged = {"values": {}, "curves": {"loss": []}, "diverged_at": 2}
    first, second, third, last = program.search_table(searched).rows
    found = {first: {100: diverged}, second: {100: good}, third: {100: diverged}, last: {100: diverged}}
    for table in (searched, replace(searched, collapse=None)):
        assert program.choices(table, found) == {"none": "rate 0.002", "attention": "rate 0.001"}


def test_metric_of_a_collapse_that_no_run_records_is_named(program, searched, fake, monkeypatch, tmp_path):
    table = replace(searched, search=None, collapse=Collapse("health/diversity", below=0.1))
    monkeypatch.setattr(program, "load_table", lambda name: table)
    with pytest.raises(sagan_jax.errors.InvalidInputError, match=r"by 'health/diversity', which .* has never recorded"):
        program.run(["t", "--out", str(tmp_path)])
    assert [entry[0] for entry in fake] == ["train"]
    assert not list(tmp_path.glob("*/row.json"))


def test_collapse_before_the_divergence_is_when_a_run_collapsed(program, searched):
    of_runs = [([[1, 0.9], [2, 0.1], [3, 0.2]], 2), ([[1, 0.9], [2, 0.1], [3, 0.8]], 4), ([], 4)]
    for curve, step in of_runs:
        assert outcomes.collapsed_at(searched, {"curves": {"loss": curve}, "diverged_at": 4}) == step


def test_plan_is_written_before_the_first_run_and_a_changed_one_is_added(
    program, searched, fake, monkeypatch, tmp_path, capsys
):
    seen = []
    monkeypatch.setattr(program, "load_table", lambda name: searched)
    monkeypatch.setattr(program, "run_rows", lambda *_, **__: seen.append((tmp_path / "plan.md").read_text()))
    monkeypatch.setattr(program, "resolved", lambda table, out: ({}, table))
    (tmp_path / "table.md").write_text("")
    for _ in range(2):
        program.run(["t", "--out", str(tmp_path)])
    assert seen == [program.plan(searched)] * 4
    assert seen[0] in capsys.readouterr().out
    (tmp_path / "none-0").mkdir()
    (tmp_path / "none-0" / "row.json").write_text("{}")
    searched = replace(searched, question="Another?")
    program.run(["t", "--out", str(tmp_path)])
    assert seen[-1] == f"{seen[0]}\n---\n\nChanged when 1 runs were finished:\n\n{program.plan(searched)}"
    assert "the earlier plan is kept" in capsys.readouterr().out


def test_plan_that_is_written_after_a_result_says_so(program, table, tmp_path):
    (tmp_path / "none-0").mkdir()
    (tmp_path / "none-0" / "row.json").write_text("{}")
    for _ in range(2):
        program.state_plan(table, tmp_path)
        wanted = f"Written when 1 runs were finished:\n\n{program.plan(table)}"
        assert (tmp_path / "plan.md").read_text() == wanted


def test_plan_says_when_a_run_counts_as_collapsed(program):
    said = {
        "attention_buys": "below 0.02, or if it diverged. Its scores are not averaged",
        "survival_cifar10": "below 0.2, if a severe sign of docs/health.md ended it, or if it diverged.",
        "completion_attention": "A run collapsed if it diverged. It has no scores then.",
    }
    for name, words in said.items():
        assert words in program.plan(program.load_table(name))


def test_more_seeds_than_an_exact_test_counts_are_refused_before_the_first_run(program, table, tmp_path):
    assert program.plan(replace(table, seeds=tuple(range(12))))
    with pytest.raises(InvalidInputError, match=r"needs at most 12 seeds, for its exact tests; got 13\.$"):
        program.state_plan(replace(table, seeds=tuple(range(13))), tmp_path)
    assert program.plan(replace(table, seeds=tuple(range(13)), baselines={}))


def test_runs_of_two_precisions_are_not_mixed(program, table, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    program.run(["t", "--out", str(tmp_path), "--seeds", "0"])
    path = tmp_path / "none-0" / "row.json"
    assert json.loads(path.read_text())["precision"] == "float32"
    path.write_text(path.read_text().replace('"precision": "float32"', '"precision": "tensorfloat32"'))
    with pytest.raises(InvalidInputError, match=r"it holds float32 and tensorfloat32, perhaps of a CPU and a GPU"):
        program.run(["t", "--out", str(tmp_path)])


def test_runs_that_would_have_another_precision_are_refused_before_they_start(
    program, table, fake, monkeypatch, tmp_path
):
    monkeypatch.setattr(program, "load_table", lambda name: table)
    program.run(["t", "--out", str(tmp_path), "--seeds", "0"])
    monkeypatch.setattr(program, "training_precision", lambda experiment: "tensorfloat32")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInputError, match=r"holds float32, and 'none' would be trained here in tensorfloat32\."):
        program.run(["t", "--out", str(tmp_path)])
    assert sorted(tmp_path.rglob("*")) == before
    program.run(["t", "--out", str(tmp_path), "--seeds", "0"])  # nothing is left to run


def test_row_or_seed_that_is_given_twice_is_run_once(program, table, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(program, "load_table", lambda name: table)
    monkeypatch.setattr(program, "run_rows", lambda table, rows, seeds, out, **_: asked.append((rows, seeds)))
    (tmp_path / "table.md").write_text("")
    program.run(["t", "--out", str(tmp_path), "--rows", "none", "none", "--seeds", "5", "0", "5"])
    assert asked == [(["none"], [5, 0])]


def test_what_the_statistics_need_is_said_in_one_line(program, monkeypatch, tmp_path):
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(sagan_jax.errors.InvalidInputError, match=r"pip install 'sagan-jax\[tables\]'"):
        program.run(["attention_buys", "--out", str(tmp_path)])


def test_table_keeps_what_it_compiles(program, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(program, "enable_compilation_cache", lambda: asked.append("cache"))
    with pytest.raises(sagan_jax.errors.InvalidInputError, match="There is no table"):
        program.run(["none", "--out", str(tmp_path)])
    assert asked == ["cache"]


def test_plan_says_what_so_many_runs_can_show(program, searched):
    said = program.plan(searched)
    assert said.startswith("Which?\n\nRows, each with the seeds 0, 5:")
    assert "no p is below 0.33. So no difference can survive the correction" in said
    more = replace(searched, seeds=tuple(range(8)), tested=("centre/l1", "collapsed"))
    said = program.plan(more)
    assert "The family, corrected by Holm: 2." in said
    assert "The least p must be at most 0.025. With 8 runs against 8, no p is below 0.00016." in said
    assert "Of collapse it takes 6 of 8 against none of 8." in said  # 5 of 8 has p = 0.026


def test_second_family_is_corrected_on_its_own(program, searched):
    rows = dict.fromkeys("abcd", next(iter(searched.rows.values())))
    table = replace(searched, rows=rows, search=None, collapse=None, seeds=(0, 1, 2))
    table = replace(table, scores={"s": "score"}, tested=("s",), baselines=dict.fromkeys("bcd", "a"), secondary=("d",))
    values = {"a": (1, 2, 3), "b": (4, 5, 6), "c": (2, 3, 4), "d": (7, 8, 9)}
    found = {
        row: {seed: {"values": {"s": value}, "curves": {}} for seed, value in enumerate(of_row)}
        for row, of_row in values.items()
    }
    main, second = tables.comparisons(table, found).split("\n\n")  # 2 and 10 of 20 groupings, then 2
    assert main.splitlines()[0].endswith("| p | p, Holm over 2 |")
    assert [line.split(" | ")[-2:] for line in main.splitlines()[2:]] == [
        ["0.1", "0.2 |"],
        ["0.5", "0.5 |"],
    ]  # 2 and 10 of 20 groupings
    assert second.splitlines()[0].startswith("| secondary comparison |")
    assert second.splitlines()[2].endswith("| 0.1 | 0.1 |")


def test_collapsed_run_is_counted_and_neither_averaged_nor_left_out_of_the_test(program, searched):
    table = replace(searched, search=None, seeds=(0, 1, 2), tested=("centre/l1", "collapsed"))
    losses = {"none": [1.0, 1.0, 1.0], "attention": [0.1, 0.2, 1.0]}
    found = {
        row: {
            seed: {"values": {"centre/psnr": 9.0, "centre/l1": 1.0 + seed}, "curves": {"loss": [[2, 1.0], [4, loss]]}}
            for seed, loss in enumerate(of_row)
        }
        for row, of_row in losses.items()
    }
    lines = program.whole(table, found, dict.fromkeys(table.rows, 7)).splitlines()
    assert "| attention | 9.00 (1) | 3.00 (1) | 2 of 3 [0.21, 0.94] | 7 | 3 |" in lines
    # Ranks 6, 5 and 3.5 against 1.5, 1.5 and 3.5: 4 of 20 groupings are as far apart. For 0, 0, 0 against 1, 1, 0 there
    # are 8.
    assert "| attention − none | L1 | -2.7 ranks | ranks | 3 and 3 | 0.2 | 0.4 |" in lines
    assert "| attention − none | collapsed | +0.67 [+0.00, +1.00] | means | 3 and 3 | 0.4 | 0.4 |" in lines
    assert any(line.startswith("| attention | 1.00 [0.44, 1.00] | 1.00 [0.44, 1.00] | 1.00") for line in lines)
    assert any(line.startswith("| attention |") and "| 0.33 [" in line for line in lines)


def test_factorial_table_names_effects_interactions_and_aliases(program, table):
    levels = {"low": (), "b": ("B",), "a": ("A",), "ab": ("A", "B")}
    rows = dict.fromkeys(levels, table.rows["none"])
    factors = {factor: tuple(row for row in levels if factor in levels[row]) for factor in ("A", "B")}
    table = replace(table, rows=rows, seeds=(0, 1), baselines={}, factors=factors, scores={"x": "x"})
    values = {"low": (1.0, 2.0), "b": (2.0, 3.0), "a": (11.0, 12.0), "ab": (12.0, 17.0)}
    found = {
        row: {seed: {"values": {"x": value}} for seed, value in enumerate(of_row)} for row, of_row in values.items()
    }
    text = program.whole(table, found, dict.fromkeys(rows, 7))
    # Means 1.5, 2.5, 11.5 and 14.5, pooled variance 14 / 4. Of 36 groupings, 2 are as far apart for A and 8 for B.
    assert "| A | +11.00 ± 1.32 | 0.056 | 0.11 |" in text
    assert "| B | +2.00 ± 1.32 | 0.22 | 0.22 |" in text
    assert "| A × B | +1.00 ± 1.32 | none |" in text
    more = replace(table, scores={"x": "x", "y": "twice"}, tested=("x", "y"))
    for of_row in found.values():
        for run in of_row.values():
            run["values"]["y"] = 2 * run["values"]["x"]
    text = program.whole(more, found, dict.fromkeys(rows, 7))
    # One family of four: 2 / 36 times 4 and 8 / 36 times 2.
    assert text.count("| p, Holm over 4 |") == 2
    assert "| A | +11.00 ± 1.32 | 0.056 | 0.22 |" in text
    assert "| B | +4.00 ± 2.65 | 0.22 | 0.44 |" in text
    assert "- A: high in a, ab\n- B: high in b, ab\n" in program.plan(more)
    assert "of x, twice. " in program.plan(more)
    assert "The family, corrected by Holm: 4. " in program.plan(more)
    assert "no test" not in program.plan(more)


@pytest.mark.parametrize("left", [1, 3])
def test_nothing_is_tested_before_all_runs_are_finished(program, table, left):
    table = replace(table, seeds=tuple(range(4)))
    found = {
        row: {seed: {"values": {"centre/psnr": level + seed}} for seed in table.seeds}
        for row, level in (("none", 20.0), ("attention", 30.0))
    }
    parameters = dict.fromkeys(table.rows, 7)
    factorial = replace(table, baselines={}, factors={"A": ("attention",)})
    assert "| +10.00 [+8.50, +11.50] | means | 4 and 4 | 0.029 | 0.029 |" in program.whole(table, found, parameters)
    assert "| A | +10.00 ± 0.91 | 0.029 | 0.029 |" in program.whole(factorial, found, parameters)
    for _ in range(left):
        found["attention"].popitem()
    lines = program.whole(table, found, parameters).splitlines()
    assert lines[-3].endswith(f"| means | {4 - left} and 4 | – | – |")
    assert lines[-1] == f"Runs left: {left}. p is given when all runs are finished."
    text = program.whole(factorial, found, parameters)
    assert text.endswith(f"\nRuns left: {left}. The effects of A are given when all runs are finished.\n")
    assert "±" not in text


@pytest.mark.parametrize(
    ("rows", "factors", "words"),
    [
        (("low", "high", "other"), {"A": ("high",)}, "needs its own levels; 'low' and 'other' have the same"),
        (("low", "high", "other"), {"A": ("high", "other")}, "needs its own levels; 'high' and 'other' have the same"),
        (("low", "high"), {"A": ("hihg",)}, "The factor 'A' needs rows of the table; got 'hihg'"),
        (("low", "a", "b"), {"A": ("a",), "B": ("b",)}, "needs all 4 combinations"),
    ],
)
def test_rows_that_are_no_factorial_design_are_refused_before_the_first_run(
    program, table, fake, monkeypatch, tmp_path, rows, factors, words
):
    table = replace(table, rows=dict.fromkeys(rows, table.rows["none"]), baselines={}, factors=factors)
    monkeypatch.setattr(program, "load_table", lambda name: table)
    with pytest.raises(sagan_jax.errors.InvalidInputError, match=words):
        program.run(["t", "--out", str(tmp_path / "out")])
    assert not fake
    assert not (tmp_path / "out").exists()
    found = {row: {seed: {"values": {"centre/psnr": 1.0}} for seed in table.seeds} for row in rows}
    with pytest.raises(ValueError, match=words):
        tables.factor_tables(table, found)


def test_survival_is_not_known_beyond_the_last_step_that_was_watched(program, searched):
    none = searched.rows["none"]
    lengths = {"half": 4, "whole": 8, "all collapse": 4}
    rows = {row: replace(none, training=replace(none.training, total_steps=steps)) for row, steps in lengths.items()}
    table = replace(searched, rows=rows, baselines={}, search=None)
    lasting, collapsing = {"curves": {"loss": [[2, 1.0]]}}, {"curves": {"loss": [[1, 1.0], [3, 0.1]]}}
    found = {"half": {0: lasting, 1: collapsing}, "whole": {0: lasting, 1: collapsing}, "all collapse": {0: collapsing}}
    cells = [[cell.split()[0] for cell in line.split("|")[2:-1]] for line in tables.survival(table, found).splitlines()]
    assert cells[0] == ["2", "4", "6", "8"]
    assert cells[2:] == [["1.00", "0.50", "–", "–"], ["1.00", "0.50", "0.50", "0.50"], ["1.00", "0.00", "0.00", "0.00"]]


JOBS = """
import sys
from dataclasses import replace
from pathlib import Path

from run_table import run_rows
from sagan_jax.config import Data, Evaluation, Experiment, Networks, Recording, Table, Training

def table():
    sizes = {"generator_attention_resolutions": (), "discriminator_attention_resolutions": ()}
    networks = Networks(resolution=32, num_classes=0, base_channels=2, latent_size=3, **sizes)
    run = Experiment(
        name="t",
        data=Data("pairs:images=9"),
        networks=networks,
        training=Training(total_steps=2, batch_size=4),
        recording=Recording(log_every_steps=1, sample_every_steps=9, save_every_steps=9),
        evaluation=Evaluation(protocols=()),
    )
    lost = replace(run, data=Data("pairs:images=9,blobs=16"))
    return Table({"one": run, "lost": lost}, (0, 5), {"rule9": "rule"}, {}, ("generator/loss",), ("rule9",))

if __name__ == "__main__":
    run_rows(table(), sys.argv[2:], (0, 5), Path(sys.argv[1]), shares=(None, None))
"""


@pytest.mark.slow
def test_runs_at_once_come_to_what_runs_one_by_one_come_to_and_an_error_ends_them(tmp_path):
    (tmp_path / "jobs.py").write_text(JOBS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXPERIMENTS), str(EXPERIMENTS.parent)])}

    def start(*rows):
        command = [sys.executable, str(tmp_path / "jobs.py"), str(tmp_path / "out"), *rows]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)

    ended = start("one")
    assert ended.returncode == 0, ended.stderr
    assert "one" not in ended.stdout
    assert "| 2 |" in (tmp_path / "out" / "table.md").read_text()
    for seed in (0, 5):
        result = json.loads((tmp_path / "out" / f"one-{seed}" / "row.json").read_text())
        assert result["experiment"]["training"]["seed"] == seed
        assert f"one, seed {seed}" in (tmp_path / "out" / f"one-{seed}.log").read_text()
    ended = start("one", "lost")
    assert "16 blobs of width 8 do not fit" in ended.stderr.splitlines()[-1]


def test_log_that_cannot_be_written_is_said_before_its_run(program, table, tmp_path):
    (tmp_path / "none-0.log").mkdir()
    with pytest.raises(StorageError, match=r"none-0.log could not be written: Is a directory"):
        list(program.finish_runs_at_once(table, [("none", 0)], tmp_path, shares=(None, None)))


def test_each_pinned_run_gets_its_own_cores_before_it_starts(program, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 2, 3, 7, 11})
    assert program.core_shares(2) == [[2, 5, 11], [3, 7]]
    with pytest.raises(InvalidInputError, match=r"a CPU core for each of the 6 --jobs; there are 5\.$"):
        program.core_shares(6)
    called = []
    for name in ("setsid", "dup2"):
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: called.append(cores))
    monkeypatch.setattr(program, "enable_compilation_cache", lambda: None)
    monkeypatch.setattr(program, "run_row", lambda *run: called.append(run[1:]))
    for cores in ([3, 7], None):
        with pytest.raises(SystemExit, match="0"):
            program.run_row_apart("table", "none", 4, tmp_path, cores)
    run = ("none", 4, tmp_path)
    assert called == [[3, 7], run, run]


def test_runs_are_not_pinned_where_the_system_cannot(program, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    with pytest.raises(InvalidInputError, match="--pin needs Linux"):
        program.core_shares(2)


STANDS_FOR_RUNS = """
import os
import signal
import sys
import time

def run(table, row, seed, out, cores):
    os.setsid()
    if row == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while row == "lost" and not (out / "begun").exists():
        time.sleep(0.01)
    if row == "lost":
        (out / f"{row}-{seed}.log").write_text("step 5\\nrun_table: It is lost.\\n")
        sys.exit(6)
    def stop(number, frame):
        with (out / "stopped").open("a") as file:
            file.write(f"{number} ")
        time.sleep(0.2)  # a save, which a second signal would break
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    (out / "begun").write_text("")
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("row", "code", "line"),
    [
        ("killed", 2, "The process of 'killed', seed 0, was ended by SIGKILL; perhaps memory ran out."),
        ("lost", 6, "'lost', seed 0: It is lost. More is in "),
    ],
)
def test_error_of_one_run_stops_the_others_once_and_no_other_begins(
    row, code, line, program, table, monkeypatch, tmp_path, capsys
):
    (tmp_path / "stands_for_runs.py").write_text(STANDS_FOR_RUNS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(program, "run_row_apart", importlib.import_module("stands_for_runs").run)
    with pytest.raises(SaganError) as error:
        list(program.finish_runs_at_once(table, [("long", 0), (row, 0), ("long", 1)], tmp_path, shares=(None, None)))
    assert str(error.value).startswith(line)
    assert error.value.exit_code == code
    assert "stopping 1 runs, which save first" in capsys.readouterr().err
    if row == "lost":  # otherwise the other run may not have begun
        assert (tmp_path / "stopped").read_text() == f"{int(signal.SIGTERM)} "
