"""The benchmark that times the parts of a run."""

import pytest

from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture(scope="module")
def program():
    return load_program(BENCHMARKS / "run_parts.py")


def test_seconds_of_a_part_leave_out_those_of_the_parts_inside(program):
    now = [0.0]
    timers = program.Timers(lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    inner = timers.timed("logging", wait)

    def outer_work():
        wait(5)
        inner(2)
        inner(1)

    timers.timed("saving", outer_work)()
    assert timers.seconds == {"logging": [2.0, 1.0], "saving": [5.0]}
    table = timers.table(10.0)
    assert "| logging | 2 | 2.00 | 1.00 |" in table
    assert "| imports and all else | | 2.00 | |" in table


def test_every_part_is_a_function_of_the_package(program, monkeypatch):
    timers = program.Timers()
    found = []
    monkeypatch.setattr(timers, "timed", lambda part, function: found.append(function) or function)
    for part, places in program.PARTS.items():
        for where in places.split():
            timers.patch(part, where)
    assert len(found) == sum(len(places.split()) for places in program.PARTS.values())
    assert all(map(callable, found))
