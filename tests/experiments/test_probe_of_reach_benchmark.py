"""The table of the probe of reach, with made-up results."""

import doctest
import hashlib
import json

import pytest

from sagan_jax.runs.reach import BINS, ReachBin, ReachResult
from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


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


@pytest.fixture
def own(tmp_path):
    """The name of a user's layer in a file, in the form that the flag takes."""
    (tmp_path / "l.py").write_text("Own = object()\n")
    return f"{tmp_path / 'l.py'}:Own"


def test_runs_are_made_once_and_seed_by_seed(program, own, tmp_path, capsys):
    words = ["--attention", "none", own, "--seeds", "2", "--steps", "300", "--out", str(tmp_path / "new")]
    program.run(words)
    assert program.measured == [("none", 0), (own, 0), ("none", 1), (own, 1)]
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


def test_result_of_another_source_of_a_layer_is_refused(program, own, tmp_path):
    program.one_run(tmp_path, own, 0, 300)
    kept = program.run_path(tmp_path, own, 0)
    assert json.loads(kept.read_text())["source"] == hashlib.sha256(b"Own = object()\n").hexdigest()
    assert program.one_run(tmp_path, own, 0, 300).steps == 300
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"source": "0" * 64}))  # as if the layer had changed
    said = refusal(program.one_run, tmp_path, own, 0, 300)
    assert f"was measured with another source of {own}: remove it" in said
    kept.unlink()
    program.one_run(tmp_path, own, 0, 300)
    assert program.measured == [(own, 0), (own, 0)]


def test_result_of_an_earlier_version_is_read(program, own, tmp_path):
    for attention in ("none", own):
        program.one_run(tmp_path, attention, 0, 300)
        path = program.run_path(tmp_path, attention, 0)
        path.write_text(
            json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "source"})
        )
    assert program.one_run(tmp_path, "none", 0, 300).attention == "none"
    assert "another source" in refusal(program.one_run, tmp_path, own, 0, 300)  # which source it had is not known


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bins": [{"least_gap": 2}], "curve": []}'])
def test_damaged_file_is_named(content, program, tmp_path):
    program.run_path(tmp_path, "none", 0).write_text(content)
    assert "none-0.json' is damaged: remove it" in refusal(program.one_run, tmp_path, "none", 0, 60)
