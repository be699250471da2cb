"""The benchmark of a first and a second start: what it waits for, and its message if training ends before that."""

import pytest

from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture
def benchmark():
    return load_program(BENCHMARKS / "start_time.py")


def test_step_counts_once_it_is_recorded_whole(benchmark, tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert not benchmark._has_step(path)
    path.write_text('{"step": 1, "generator/lo')
    assert not benchmark._has_step(path)
    path.write_text('{"step": 1, "generator/loss": 0.5}\n')
    assert benchmark._has_step(path)


def test_training_that_ends_before_step_1_is_told_with_its_reason(benchmark, tmp_path):
    line = refusal(benchmark.seconds_to_step_1, ["digits_32", "--nosuch"], tmp_path / "run", tmp_path)
    assert "ended before step 1" in line
    assert "there is no flag '--nosuch'" in line


def test_no_rounds_are_refused(benchmark):
    assert "got 0" in refusal(benchmark.run, ["--rounds", "0"])
