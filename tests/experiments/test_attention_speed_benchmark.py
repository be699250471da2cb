"""How fast attention is compared with other implementations."""

import sys

import pytest

from sagan_jax.errors import InvalidInputError
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "attention_speed.py"


@pytest.fixture
def program(monkeypatch):
    program = load_program(PROGRAM)
    monkeypatch.setattr(program, "SIZES", {"tiny": (2, 5, 3)})
    return program


def test_peers_run_in_turn_and_are_compared_round_by_round(program, monkeypatch, capsys):
    asked = []

    def peer(name, times):
        left = iter(times)
        return lambda: asked.append(name) or next(left)

    def ours(form, size, backward, dtype):
        assert (size, dtype) == ((2, 5, 3), "float32")
        name = form.__name__
        return peer(name, [9.0, 1.0, 2.0, 4.0] if name == "attend_positions" else [9.0, 5.0, 2.0, 6.0])

    monkeypatch.setattr(program, "ours", ours)
    program.run(["--rounds", "3"])
    forwards, backwards = ["attend_positions", "plain"], ["plain", "attend_positions"]
    assert asked == (forwards + forwards + backwards + forwards) * 2  # the first two warm up
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"| tiny | {way} | 2000 ms (1.00) | 5000 ms (1.50) |" for way in ("forward", "both")
    ]


@pytest.mark.slow
def test_attention_is_timed_and_so_is_a_peer_in_another_process(program, monkeypatch, capsys):
    # Any Python can stand in for one with PyTorch here.
    monkeypatch.setattr(
        program, "WORKER", "while line := input(): print(0.25 * (line == 'narrow 2 5 3 1'), flush=True)"
    )
    program.run(["--rounds", "2", "--torch", sys.executable])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[5].split()[0] for row in rows] == ["0", "250"]
    assert all(" ms (1.00) " in row for row in rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rounds", "0"], "--rounds needs at least 1; got 0"),
        (["--torch", "/nowhere/python"], "'/nowhere/python' does not start"),
        (["--torch", sys.executable], "the given one has ended"),
    ],
)
def test_bad_input_is_one_line(program, monkeypatch, words, says):
    monkeypatch.setattr(program, "WORKER", "raise SystemExit(1)")
    with pytest.raises(InvalidInputError, match=says):
        program.run(words)
