"""How the cost of a step grows: exponents, and the points that they are fitted to."""

import doctest
import json

import numpy as np
import pytest

from support.assertions import refusal
from support.programs import BENCHMARKS, load_program


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


def test_no_rounds_are_refused(program):
    assert refusal(program.run, ["--rounds", "0"]) == "--rounds needs at least 1; got 0."


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["width", "devices"])
def test_points_of_an_axis_are_measured(program, axis, tmp_path, capsys):
    program.run(["--quick", "--axis", axis, "--out", str(tmp_path / "out.json")])
    first, second = json.loads((tmp_path / "out.json").read_text())["axes"][axis]
    assert (first["size"], second["size"]) == (1, 2)
    # Devices share the operations; a network of twice the width has more.
    assert (first["flops"] < second["flops"]) == (axis == "width")
    assert (first["temporary_bytes"] < second["temporary_bytes"]) == (axis == "width")
    printed = capsys.readouterr().out
    assert printed.startswith(f"| {axis} | ms a step |")
    program.run(["--tables", str(tmp_path / "out.json")])
    assert capsys.readouterr().out == printed
