"""What the benchmarks share: workers, turns, medians, ratios and tables."""

import doctest
import json
import signal
import sys

import pytest

from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax

ECHO = "from worker import serve; serve({'library': 'none'}, {'add': lambda *given: sum(given), 'die': DIE})"


@pytest.fixture(autouse=True)
def beside_the_programs(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def measuring():
    return load_program(BENCHMARKS / "measuring.py")


@pytest.fixture
def start(measuring, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))

    def start(program):
        return measuring.Worker("the echo", [sys.executable, "-c", program])

    return start


@pytest.mark.parametrize(("name", "examples"), [("measuring", 4), ("worker", 2)])
def test_examples_hold(name, examples, monkeypatch):
    program = load_program(BENCHMARKS / f"{name}.py")
    monkeypatch.setitem(sys.modules, name, program)  # otherwise doctest skips its functions as another module's
    assert doctest.testmod(program) == (0, examples)


def test_quartiles_hold_the_middle_half(measuring):
    assert measuring.spread([7.0, 1.0, 3.0, 5.0, 11.0, 9.0, 13.0]) == (7, 4, 10)


def test_a_single_value_is_its_own_spread(measuring):
    assert measuring.spread([7]) == (7, 7, 7)


def test_a_ratio_is_taken_round_by_round(measuring):
    # The medians are 2 and 6; the ratios of the rounds are 6, 1.5 and 1.
    assert measuring.ratios([1.0, 4.0, 2.0], [6.0, 6.0, 2.0]).median == 1.5


def test_workers_take_turns_of_equal_length(measuring):
    asked = []

    def stepper(name, seconds):
        return lambda count: asked.append((name, count)) or seconds * count

    times = measuring.take_turns(
        {"fast": stepper("fast", 0.25), "slow": stepper("slow", 8.0)}, rounds=2, turn_seconds=2.0
    )
    assert asked == [("fast", 1), ("slow", 1)] + 2 * [("fast", 8), ("slow", 1)]
    assert times == {"fast": [0.25, 0.25], "slow": [8.0, 8.0]}


def test_progress_is_said_after_each_turn(measuring):
    said = []
    measuring.take_turns({"one": lambda count: 0.5 * count}, rounds=2, turn_seconds=0.5, say=said.append)
    assert said == ["round 1 of 2, one: 500 ms a step", "round 2 of 2, one: 500 ms a step"]


def test_a_worker_says_its_facts_and_answers_lines(start):
    with start(ECHO.replace("DIE", "None")) as worker:
        assert worker.wait().facts == {"library": "none"}
        assert (worker.ask("add", 2, 3), worker.ask("add", 10)) == (5, 10)


def test_what_a_library_prints_is_no_answer(start):
    with start(ECHO.replace("DIE", "lambda: print('a warning') or 4")) as worker:
        assert worker.wait().ask("die") == 4


@pytest.mark.parametrize(
    ("die", "line"),
    [
        ("lambda: 1 / 0", "the echo ended with exit code 1: ZeroDivisionError: division by zero"),
        ("lambda: __import__('os').kill(__import__('os').getpid(), 15)", "the echo ended by SIGTERM: it said nothing"),
        (
            "lambda: __import__('os').kill(__import__('os').getpid(), 9)",
            "the echo was killed: perhaps memory ran out. Measure less at once, or end other programs.",
        ),
    ],
)
def test_a_worker_that_dies_is_one_line(start, die, line):
    with start(ECHO.replace("DIE", die)) as worker:
        worker.wait()
        assert refusal(worker.ask, "die") == line
        assert refusal(worker.ask, "add", 1) == line


def test_a_worker_that_does_not_speak_json_is_one_line(start):
    with start("print('hello there')") as worker:
        assert refusal(worker.wait) == "the echo needs to answer in JSON; it said 'hello there'."


def test_a_worker_that_is_not_ready_in_time_is_one_line_and_ends(start):
    processes = []

    def wait():
        with start("import time; time.sleep(60)") as worker:
            processes.append(worker._process)
            worker.wait(0.2)

    assert refusal(wait) == "the echo needs more than the 0.2 s that it was given to be ready."
    assert processes[0].returncode == -signal.SIGKILL


def test_a_program_that_is_not_there_is_one_line(measuring, tmp_path):
    line = refusal(measuring.Worker, "the peer", [str(tmp_path / "python")])
    assert line == f"the peer needs {tmp_path / 'python'} to be a program; No such file or directory."


def test_a_worker_ends_with_its_context(start):
    with start(ECHO.replace("DIE", "None")) as worker:
        process = worker.wait()._process
        assert process.poll() is None
    assert process.returncode == 0


def test_a_result_is_written_only_where_asked(measuring, tmp_path):
    measuring.write_result(None, {"a": 1})
    measuring.write_result(tmp_path / "result.json", {"a": [1.5, None]})
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": [1.5, None]}


def test_the_machine_is_named(measuring):
    named = measuring.machine()
    assert named["cpu"]
    assert named["cores"] >= 1


@pytest.mark.parametrize(
    ("value", "shown"), [(9.996, "10.0"), (999.6, "1000"), (123456, "123000"), (0, "0"), (0.000999, "0.000999")]
)
def test_figures_keep_their_digits_where_rounding_adds_one(measuring, value, shown):
    assert measuring.figures(value) == shown
