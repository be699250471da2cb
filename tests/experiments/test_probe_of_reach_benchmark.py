"""The table of the probe of reach, with results that are made up."""

import doctest
import json

import pytest

from sagan_jax.runs.reach import BINS, ReachBin, ReachResult
from support.assertions import refusal
from support.programs import BENCHMARKS, load_program


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program = load_program(BENCHMARKS / "probe_of_reach.py")
    program.measured = []

    def measure(attention, *, seed, steps, on_progress):
        program.measured.append((attention, seed))
        on_progress(steps, 0.5)
        bins = tuple(ReachBin(*gaps, 512, 0.5 + 0.25 * seed) for gaps in BINS)
        gamma = None if attention == "none" else 0.125 + seed
        return ReachResult(attention, seed, steps, 1234, bins, ((200, 0.95 * seed), (steps, 0.5)), gamma)

    monkeypatch.setattr(program, "measure_reach", measure)
    return program


def test_doctests(program):
    assert doctest.testmod(program).attempted
    assert not doctest.testmod(program).failed


def test_runs_are_made_once_and_seed_by_seed(program, tmp_path, capsys):
    words = ["--attention", "none", "a/l.py:Own", "--seeds", "2", "--steps", "300", "--out", str(tmp_path / "new")]
    program.run(words)
    assert program.measured == [("none", 0), ("a/l.py:Own", 0), ("none", 1), ("a/l.py:Own", 1)]
    printed = capsys.readouterr().out
    assert "| none | 0.625 (0.500 to 0.750) |" in printed
    assert printed.endswith("| never, 200 | 0.12, 1.12 | 1,234 |\n")
    program.run(words)
    assert len(program.measured) == 4
    assert capsys.readouterr().out == printed
    assert json.loads((tmp_path / "new" / "none-1.json").read_text())["bins"][0]["accuracy"] == 0.75


def test_file_of_another_run_is_refused(program, tmp_path):
    words = ["--attention", "none", "--out", str(tmp_path)]
    program.run([*words, "--steps", "300"])
    assert "none-0.json' holds another run: none, 300 steps" in refusal(program.run, [*words, "--steps", "400"])
    assert refusal(program.run, [*words, "--seeds", "0"]) == "--seeds needs at least 1; got 0."


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bins": [{"least_gap": 2}], "curve": []}'])
def test_damaged_file_is_named(content, program, tmp_path):
    program.run_path(tmp_path, "none", 0).write_text(content)
    assert "none-0.json' is damaged: remove it" in refusal(program.one_run, tmp_path, "none", 0, 60)
