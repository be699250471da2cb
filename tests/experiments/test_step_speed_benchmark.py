"""The time of a step of each row of a table, compared round by round."""

import sys
from dataclasses import replace

import pytest

from sagan_jax.config import Table
from sagan_jax.errors import InvalidInputError
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "step_speed.py"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return load_program(PROGRAM)


def test_rows_take_steps_in_turn_and_are_compared_round_by_round(program, monkeypatch, capsys):
    asked, table = [], program.load_table("attention_width")

    def stepper(experiment):
        width = experiment.networks.base_channels
        times = iter([9.0, 1.0, 2.0, 4.0] if width == 4 else [9.0, 5.0, 2.0, 6.0])
        return lambda: asked.append(width) or next(times)

    rows = {name: table.rows[name] for name in ("none, width 4", "none, width 16")}
    monkeypatch.setattr(program, "load_table", lambda name: replace(table, rows=rows))
    monkeypatch.setattr(program, "stepper", stepper)
    program.run(["attention_width", "--rounds", "3"])
    assert asked == [4, 16] * 4
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| none, width 4 | 2000 | 1.00 |",
        "| none, width 16 | 5000 | 1.50 |",  # the median of 5, 1 and 1.5, not 5 / 2
    ]


@pytest.mark.slow
def test_a_step_of_a_row_is_taken_and_timed(program):
    row = program.load_table("attention_buys").rows["at 16"]
    small = replace(row, networks=replace(row.networks, base_channels=1), training=replace(row.training, batch_size=2))
    take = program.stepper(small)
    assert all(0 < take() < 10 for _ in range(3))


def test_tables_of_completions_are_refused(program):
    with pytest.raises(InvalidInputError, match="they complete images"):
        program.run(["completion_mirror"])


def test_no_rounds_are_refused(program):
    with pytest.raises(InvalidInputError, match="--rounds needs at least 1; got 0"):
        program.run(["attention_buys", "--rounds", "0"])


def test_a_table_that_is_not_there_is_refused(program, monkeypatch):
    assert isinstance(program.load_table("attention_buys"), Table)
    with pytest.raises(InvalidInputError, match="There is no table 'attention'"):
        program.run(["attention"])
