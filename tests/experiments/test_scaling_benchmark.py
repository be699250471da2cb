"""How the cost of a step grows: exponents, and the points that they are fitted to."""

import doctest
import json

import numpy as np
import pytest

from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_program(BENCHMARKS / "scaling.py")


def test_examples_hold(program):
    assert doctest.testmod(program) == (0, 2)


def test_exponent_and_its_error_are_those_of_least_squares(program):
    sizes, costs = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 7.0, 11.0, 29.0])
    design = np.stack([np.ones(4), np.log(sizes)], 1)
    coefficients, squares, *_ = np.linalg.lstsq(design, np.log(costs))
    error = np.sqrt(squares[0] / 2 * np.linalg.inv(design.T @ design)[1, 1])
    found = program.fit(sizes, costs)
    np.testing.assert_allclose([found.exponent, found.error], [coefficients[1], error], rtol=1e-9)


def test_two_points_have_no_error(program):
    assert program.fit([1, 4], [10, 5]) == (pytest.approx(-0.5), None)


def test_a_point_changes_its_axis_alone(program):
    base = program.BASE
    for axis, value in (("batch", 32), ("resolution", 128), ("width", 16)):
        words = program.point(axis, value, base)
        expected = {**vars(base), axis: value}
        assert dict(zip(words[::2], words[1::2], strict=True)) == {f"--{k}": str(v) for k, v in expected.items()}
    words = program.point("devices", 4, base)
    assert words[-2:] == ["--devices", "4"]
    assert words[words.index("--batch") + 1] == str(2 * base.batch)


def test_devices_divide_their_batch(program):
    for base, axes in ((program.BASE, program.AXES), (program.QUICK_BASE, program.QUICK_AXES)):
        assert [2 * base.batch % size for size in axes["devices"]] == [0] * len(axes["devices"])


def test_table_has_units_and_exponents(program):
    points = [
        {"size": size, "seconds": 0.001 * size**2, "flops": 1e9 * size, "temporary_bytes": 2**20 * memory}
        for size, memory in ((4, 64), (8, 32), (16, 16))
    ]
    assert program.tables({"axes": {"width": points}}).splitlines() == [
        "| width | ms a step | GFLOP | MiB of temporaries |",
        "|---|---|---|---|",
        "| 4 | 16.0 | 4.00 | 64.0 |",
        "| 8 | 64.0 | 8.00 | 32.0 |",
        "| 16 | 256 | 16.0 | 16.0 |",
        "| **exponent** | 2.00 ± 0.00 | 1.00 ± 0.00 | -1.00 ± 0.00 |",
    ]


def test_what_is_not_known_is_left_out(program):
    points = [{"size": size, "seconds": 1.0, "flops": 1.0, "temporary_bytes": None} for size in (1, 2)]
    assert program.tables({"axes": {"devices": points}}).splitlines()[-1].endswith("| 0.00 | 0.00 |  |")


def test_one_point_has_no_exponent(program):
    points = [{"size": 4, "seconds": 1.0, "flops": 1.0, "temporary_bytes": 1}]
    assert program.tables({"axes": {"batch": points}}).splitlines()[-1] == "| **exponent** |  |  |  |"


WORKER = """
import sys, time
from worker import serve

size = sys.argv[sys.argv.index("--batch") + 1]

def note(what, answer=0.5):
    with open({log!r}, "a") as file:
        print(what, size, file=file)
    return answer

note("start")
time.sleep(60 if size == "5" else 0)
if size == "3":
    sys.exit("RESOURCE_EXHAUSTED: no memory")
note("ready")
serve({{"flops": int(size), "temporary_bytes": int(size)}}, {{"step": lambda count: note("step", int(size) * count)}})
"""


@pytest.fixture
def stand_in(program, monkeypatch, tmp_path):
    """Replaces our worker by one without jax. Returns a function that gives the lines which the worker has logged."""
    (tmp_path / "sagan_worker.py").write_text(WORKER.format(log=str(tmp_path / "log")))
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))
    return lambda: (tmp_path / "log").read_text().splitlines()


@pytest.mark.slow
def test_points_compile_one_after_another_and_those_that_do_not_fit_are_said(
    program, stand_in, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(program.AXES, "batch", (2, 5, 3, 4))
    words = ["--axis", "batch", "--rounds", "2", "--compile-seconds", "3", "--out", str(tmp_path / "out.json")]
    program.run(words)
    compiled = ["start 2", "ready 2", "start 5", "start 3", "start 4", "ready 4"]
    assert stand_in() == compiled + 3 * ["step 2", "step 4"]  # the first of each tells how long a step takes
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2:] == [
        "| 2 | 2000 | 0.00000000200 | 0.00000191 |",
        "| 4 | 4000 | 0.00000000400 | 0.00000381 |",
        "| **exponent** | 1.00 | 1.00 | 1.00 |",
        "",
        "Left out: batch 5 needs more than the 3 s that it was given to be ready.",
        "",
        "Left out: batch 3 ended with exit code 1: RESOURCE_EXHAUSTED: no memory",
    ]
    assert "left out: batch 3 ended with exit code 1: RESOURCE_EXHAUSTED: no memory" in printed.err
    program.run(["--tables", str(tmp_path / "out.json")])
    assert capsys.readouterr().out == printed.out


def test_an_axis_without_a_point_is_one_line(program, stand_in, monkeypatch):
    monkeypatch.setitem(program.AXES, "batch", (3,))
    line = "The batch needs a point that can be measured; batch 3 ended with exit code 1: RESOURCE_EXHAUSTED: no memory"
    assert refusal(program.run, ["--axis", "batch"]) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--rounds", "0"], "--rounds needs at least 1; got 0."),
        (["--compile-seconds", "0"], "--compile-seconds needs a number above 0; got 0."),
        (["--compile-seconds", "nan"], "--compile-seconds needs a number above 0; got nan."),
    ],
)
def test_numbers_out_of_range_are_refused(program, words, line):
    assert refusal(program.run, words) == line


@pytest.mark.slow
def test_points_of_an_axis_are_measured(program, tmp_path, capsys):
    program.run(["--quick", "--axis", "devices", "--out", str(tmp_path / "out.json")])
    first, second = json.loads((tmp_path / "out.json").read_text())["axes"]["devices"]
    assert (first["size"], second["size"]) == (1, 2)
    # Devices share the operations.
    assert first["flops"] > second["flops"] > 0
    assert first["temporary_bytes"] > second["temporary_bytes"] > 0
    printed = capsys.readouterr().out
    assert printed.startswith("| devices | ms a step |")
    program.run(["--tables", str(tmp_path / "out.json")])
    assert capsys.readouterr().out == printed
