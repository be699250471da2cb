"""The picture of the long-range benchmark."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sagan_jax.config import to_dict
from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.long_range import PARTS, experiment
from sagan_jax.runtime.image_files import save_png
from sagan_jax.views.figures import image_grid
from support.programs import BENCHMARKS, EXPERIMENTS, load_program

PROGRAM = BENCHMARKS / "long_range_picture.py"
SHARES = {"none": (0.1, None, 0.2, 0.3), "release at 16": (0.6, 0.9), "article at 16": (0.5,)}
SCORES = (
    "rule5k",
    "rule5k/parts",
    "rule5k/hue",
    "rule5k/hue_chance",
    "rule5k/kinds",
    "rule5k/entropy",
    "rule5k/chance",
    "rule5k/beyond_chance",
)


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(EXPERIMENTS))  # as when it is run: it imports the tables beside it
    yield load_program(PROGRAM)
    sys.path.remove(str(EXPERIMENTS))
    sys.modules.pop("run_table", None)


def write_result(folder, attention, seed, share):
    """Writes the result of a run, which collapsed where its share is None, and its first images."""
    run = replace(experiment(attention), training=replace(experiment(attention).training, seed=seed))
    values = {} if share is None else dict.fromkeys(SCORES, 0.5) | {"rule5k": share}
    if values:
        values |= {"rule5k/chance": 0.1, "rule5k/beyond_chance": share - 0.1}
    curves = {PARTS: [[2000, 0.0 if share is None else 0.4]]}
    result = {"experiment": to_dict(run), "minutes": 3.0, "values": values, "curves": curves}
    if share is None:
        result["diverged_at"] = 700
    folder.mkdir(parents=True)
    (folder / "row.json").write_text(json.dumps(result))
    rule = Pairs(forms=1, size=8, distance=16, agree=0, seed=seed)
    save_png(folder / "images.png", image_grid(np.stack([rule.draw(n, 32) for n in range(20)]), 20, padding=0))


@pytest.fixture
def results(tmp_path):
    for row, attention in (("none", "none"), ("release at 16", "release"), ("article at 16", "article")):
        for seed, share in enumerate(SHARES[row]):
            write_result(tmp_path / f"{row}-{seed}", attention, seed, share)
    return tmp_path


def test_the_images_are_those_of_the_median_run(program, results):
    table = program.run_table.load_table("long_range_v1")
    found = program.run_table.results(table, results)
    assert [program.median_seed(table, found, row) for row in table.strips] == [2, 0]
    images = program.first_images(results / "none-2")
    assert images.shape == (20, 32, 32, 3)
    assert np.array_equal(images[7], Pairs(forms=1, size=8, distance=16, agree=0, seed=2).draw(7, 32))


def test_the_picture_is_drawn_from_results_alone(program, results, monkeypatch, capsys):
    drawn, text = [], []
    kept = program.show_bars
    monkeypatch.setattr(program, "show_bars", lambda axes, *rest: (kept(axes, *rest), drawn.append(axes)))
    program.run([str(results), "--out", str(results / "long_range.png")])
    (axes,) = drawn
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100, 20, 75])
    text = [label.get_text() for label in axes.texts]
    assert text == ["20%, 3 runs, 1 collapsed", "75%, 2 runs"]
    assert axes.get_xlabel().endswith("%\ndotted: by chance")  # p is given when all 96 runs are finished
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == pytest.approx([10, 10])
    with Image.open(results / "long_range.png") as picture:
        assert picture.size == (1100, 540)


def test_p_is_given_when_all_runs_are_finished(program, results):
    table, rows = program.run_table.load_table("long_range_v1"), ("none", "release at 16")
    table = replace(table, rows={row: table.rows[row] for row in rows}, baselines={rows[1]: rows[0]}, seeds=(0, 1))
    found = program.run_table.results(table, results)
    # A collapsed run ranks worst. The two highest of four runs, or the two lowest, are 2 of 6 groupings.
    assert program.p_of_rows(table, found, rows) == "; beyond chance: p = 0.33 (Holm)"
    assert program.p_of_rows(replace(table, seeds=(0, 1, 2)), found, rows) == ""


def test_another_row_can_be_the_one_with_attention(program, results, monkeypatch):
    drawn, kept = [], program.show_bars
    monkeypatch.setattr(program, "show_bars", lambda axes, *rest: (kept(axes, *rest), drawn.append(axes)))
    program.run([str(results), "--attention", "article at 16", "--out", str(results / "a.png")])
    assert [bar.get_width() for bar in drawn[0].patches] == pytest.approx([100, 20, 50])
    titles = [axes.get_title(loc="left") for axes in drawn[0].figure.axes]
    assert "drawn with attention (article at 16)" in titles


def test_a_control_is_not_a_row_with_attention(program, results, capsys):
    rows = program.rows_with_attention(program.run_table.load_table("long_range_v1"))
    assert len(rows) == 7
    assert not {"none", "none, 4 times the steps", "residual at 16", "uniform at 16"} & {*rows}
    with pytest.raises(SystemExit):
        program.run([str(results), "--attention", "residual at 16", "--out", str(results / "a.png")])
    assert "invalid choice: 'residual at 16'" in capsys.readouterr().err


def test_every_run_is_a_dot_and_collapsed_runs_are_counted(program, results, monkeypatch):
    drawn, kept = [], program.run_table.save
    monkeypatch.setattr(
        program.run_table, "save", lambda figure, *rest, **k: (drawn.append(figure), kept(figure, *rest, **k))
    )
    program.run([str(results), "--every-run", "--out", str(results / "a.png")])
    (axes,) = drawn[0].axes
    dots = [sorted(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots[0] == pytest.approx([0, 10, 20])  # beyond chance, which is 0.1
    assert [list(line) for line in dots[5:7]] == [pytest.approx([50, 80]), pytest.approx([40])]
    assert [text.get_text() for text in axes.texts] == ["1 of 4 collapsed"]
    assert [label.get_text() for label in axes.get_yticklabels()][5:7] == ["release at 16", "article at 16"]


def test_a_row_without_a_run_is_named(program, tmp_path):
    with pytest.raises(InvalidInputError, match="needs a finished run of 'none'"):
        program.run([str(tmp_path), "--out", str(tmp_path / "a.png")])
    with pytest.raises(InvalidInputError, match=r"--out needs a .png file in an existing folder; got 'no/a.png'"):
        program.run([str(tmp_path), "--out", "no/a.png"])
