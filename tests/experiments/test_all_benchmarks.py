"""All benchmarks, one after another."""

import json
import sys

import pytest

from support.assertions import refusal
from support.paths import ROOT
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture
def program(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program = load_program(BENCHMARKS / "all.py")
    monkeypatch.setattr(program, "HERE", tmp_path)
    (tmp_path / "scaling.py").write_text("import sys\nprint('| a |')\nprint(sys.argv[1:], '--quick' or \"--quick\")")
    flags = '"--torch-python" "--jax-python" "--quick"'
    (tmp_path / "step_vs_studiogan.py").write_text(f"# {flags}\nimport sys\nprint('half')\nsys.exit('it broke')")
    return program


def test_programs_are_run_and_written_and_a_failed_one_is_named(program, tmp_path, capfd):
    out = tmp_path / "out.json"
    words = ["--torch-python", "T", "--jax-python", "J", "--jax-python", "K", "--quick", "--out", str(out)]
    line = refusal(program.run, words)
    assert line == "These programs failed, for the reasons above: step_vs_studiogan."
    flags = ["--torch-python", "T", "--jax-python", "J", "--jax-python", "K", "--quick"]
    programs = json.loads(out.read_text())["programs"]
    assert list(programs) == ["step_vs_studiogan", "scaling"]
    assert programs["step_vs_studiogan"]["command"] == [sys.executable, str(tmp_path / "step_vs_studiogan.py"), *flags]
    assert programs["step_vs_studiogan"]["exit_code"] == 1
    assert programs["scaling"]["output"] == "| a |\n['--quick'] --quick\n"
    printed = capfd.readouterr()
    assert "it broke" in printed.err
    assert f"## How cost grows\n\n`scaling.py` took {programs['scaling']['seconds']:.0f} s.\n\n| a |" in printed.out
    assert "It failed (exit 1). `step_vs_studiogan.py`" in printed.out
    program.run(["--tables", str(out)])
    assert capfd.readouterr().out == printed.out


def test_programs_get_the_flags_that_they_have(program, tmp_path):
    (tmp_path / "attention_speed.py").write_text('"--torch", "--rounds"')
    (tmp_path / "input_speed.py").write_text('"--torch-python", "--torch", "--quick", "--rounds"')
    given = program.parse(["--torch-python", "T", "--jax-python", "J", "--images", "I", "--quick"])
    assert given.program == ["step_vs_studiogan", "scaling", "attention_speed", "input_speed"]
    assert program.command("attention_speed", given)[2:] == ["--torch", "T", "--rounds", "1"]
    assert program.command("input_speed", given)[2:] == ["I", "--torch-python", "T", "--quick"]
    given = program.parse(["--torch-python", "T"])
    assert given.program == ["step_vs_studiogan", "scaling", "attention_speed"]
    assert program.command("attention_speed", given)[2:] == ["--torch", "T"]


def test_input_without_images_is_refused(program, tmp_path):
    (tmp_path / "input_speed.py").write_text("")
    line = refusal(program.run, ["--program", "input_speed"])
    assert line == "input_speed needs --images, a folder of class folders with JPEGs."


def test_one_program_is_run_alone(program, tmp_path):
    program.run(["--program", "scaling", "--out", str(tmp_path / "out.json")])
    assert list(json.loads((tmp_path / "out.json").read_text())["programs"]) == ["scaling"]


def test_figures_fill_a_page_between_its_marks(program, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n\n<!-- figures -->\nold\n<!-- end of the figures -->\n\nAfter.\n")
    program.run(["--program", "scaling", "--out", str(tmp_path / "out.json")])
    program.run(["--tables", str(tmp_path / "out.json"), "--into", str(page)])
    written = page.read_text()
    assert written.startswith("# Speed\n\n<!-- figures -->\n\n")
    assert written.endswith("| a |\n[] --quick\n\n<!-- end of the figures -->\n\nAfter.\n")
    assert "old" not in written


def test_missing_files_are_refused_in_one_line(program, tmp_path):
    line = refusal(program.run, ["--tables", str(tmp_path / "none.json")])
    assert line == f"There is no file {str(tmp_path / 'none.json')!r}. Is the path right?"
    program.run(["--program", "scaling", "--out", str(tmp_path / "out.json")])
    line = refusal(program.run, ["--tables", str(tmp_path / "out.json"), "--into", str(tmp_path / "none.md")])
    assert line == f"There is no page {str(tmp_path / 'none.md')!r}. Is the path right?"


def test_a_page_without_marks_is_refused_and_stays(program, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures -->\nold\n")
    program.run(["--program", "scaling", "--out", str(tmp_path / "out.json")])
    line = refusal(program.run, ["--tables", str(tmp_path / "out.json"), "--into", str(page)])
    assert line.endswith("page.md' needs the lines <!-- figures --> and <!-- end of the figures -->.")
    assert page.read_text() == "<!-- figures -->\nold\n"


def test_the_page_of_the_manual_has_the_marks(program):
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert [text.count(mark) for mark in program.MARKS] == [1, 1]
    figures = text.partition(program.MARKS[0])[2].partition(program.MARKS[1])[0]
    headings = [line.removeprefix("## ") for line in figures.splitlines() if line.startswith("#")]
    assert headings  # the program replaces this part, so nothing else may be in it
    assert set(headings) <= set(program.TITLES.values())
