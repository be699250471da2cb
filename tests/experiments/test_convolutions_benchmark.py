"""How fast our convolutions are, compared with XLA's and with two separate steps."""

import argparse
import json

import jax
import numpy as np
import pytest

from support.assertions import assert_near, refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield load_program(BENCHMARKS / "convolutions.py")


def test_both_programs_of_every_part_are_timed_and_agree(program, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(program, "QUICK_CHANNELS", (3,))
    program.run(["--quick", "--out", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    ways = ["patches weights", "upsampling forward", "upsampling both", "pooling forward", "pooling both"]
    assert [f"{row['part']} {row['pass']}" for row in rows] == ways
    assert all(0 < row["difference"] < 1e-5 for row in rows)  # the two programs of a pair differ, and all are accurate
    assert all(seconds > 0 for row in rows for times in row["seconds"] for seconds in times)
    printed = capsys.readouterr().out
    assert [printed.count(f"**{part}**, jax {jax.__version__}") for part in program.PARTS] == [1, 1, 1]
    assert printed.count("| 4x4 | 3 |") == 5


@pytest.mark.parametrize("part", ["patches", "upsampling", "pooling"])
def test_the_larger_map_has_the_size_that_is_told(program, part):
    features, kernel, cotangent = program.operands(part, 6, 5, batch=2)
    assert max(features.shape[1], cotangent.shape[1]) == 6
    assert (features.shape[3], kernel.shape, cotangent.shape[3]) == (5, (3, 3, 5, 5), 5)


def test_the_weight_gradient_is_the_one_by_hand(program):
    features, kernel, cotangent = map(np.asarray, program.operands("patches", 4, 3, batch=2))
    padded = np.pad(features.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros(kernel.shape)
    for row, column in np.ndindex(3, 3):
        shifted = padded[:, row : row + 4, column : column + 4]
        expected[row, column] = np.einsum("bhwc,bhwe->ce", shifted, cotangent)
    for form in (program.patches, program.plain):
        (found,) = program.passed(form, "weights", features, kernel, cotangent)
        assert_near(found, expected, 1e-5)


def test_the_difference_is_relative_to_each_array(program):
    ours, theirs = (np.array([1.0, -8.0]), np.array([0.5])), (np.array([1.0, -10.0]), np.array([0.4]))
    assert program.difference(ours, theirs) == pytest.approx(0.25)


def test_ratios_are_medians_of_the_rounds(program, monkeypatch):
    row = {"map": 8, "channels": 64, "pass": "weights", "difference": 2e-7, "taken": False}
    lines = program.table("patches", [{**row, "seconds": [[0.001, 0.004, 0.002], [0.006, 0.006, 0.002]]}])
    cells = "2.00 | 6.00 | 1.50 | 1.25 to 3.75 | 2e-07 | XLA's |"
    assert lines.splitlines()[-1] == f"| 8x8 | 64 | weights | {cells}"


def test_two_forms_take_turns(program, monkeypatch):
    asked = []

    def stepper(run, *arrays):
        number = len(asked)
        asked.append([])
        return lambda count: asked[number].append(count) or 0.25 * (number + 1) * count

    monkeypatch.setattr(program, "stepper", stepper)
    given = argparse.Namespace(rounds=2, turn_seconds=1.0)
    row = program.measure("patches", 4, 2, "weights", given)
    assert asked == [[1, 4, 4], [1, 2, 2]]
    assert (row["seconds"], row["taken"]) == ([[0.25, 0.25], [0.5, 0.5]], False)


def test_no_rounds_are_refused(program):
    assert refusal(program.run, ["--rounds", "0"]) == "--rounds needs at least 1; got 0."
