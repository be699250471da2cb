"""Tracing some steps, with a step that only counts."""

from contextlib import suppress

import jax
import jax.numpy as jnp
import pytest

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.step_profiler import StepProfiler, StepRange, read_step_range

# Reading a trace with jax 0.12 makes a type that Python 3.13 warns about. As an error, the warning ends the process.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


@jax.jit
def step(state, batch):
    return state + batch, {"seen": batch}


def traced_steps(folder):
    """Returns the numbers of the steps in each trace, in their order."""
    found = []
    for path in sorted(folder.glob("plugins/profile/*/*.xplane.pb")):
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events if event.name == "train"]
        found.append(sorted(dict(event.stats)["step_num"] for event in events))
    return found


def take(profiler, first, last):
    state = jnp.float32(first)
    with profiler as profiled:
        for number in range(first, last):
            state, metrics = profiled(state, jnp.float32(number))
            assert float(metrics["seen"]) == number
    return float(state)


def test_steps_of_the_range_are_traced_and_results_are_the_steps_own(tmp_path):
    said = []
    profiler = StepProfiler(step, StepRange(7, 9), tmp_path / "profile", first_step=4, say=said.append)
    assert take(profiler, 4, 12) == 4 + sum(range(4, 12))
    assert traced_steps(tmp_path / "profile") == [[7, 8, 9]]
    (line,) = said
    assert f"traced steps 7 to 9: {tmp_path / 'profile'} opens in TensorBoard" in line


def test_trace_that_is_cut_short_has_the_steps_before(tmp_path):
    said = []
    profiler = StepProfiler(step, StepRange(2, 90), tmp_path, first_step=0, say=said.append)
    take(profiler, 0, 3)
    assert traced_steps(tmp_path) == [[2, 3]]
    assert "traced steps 2 to 3" in said[0]


def test_trace_is_closed_when_a_step_fails(tmp_path):
    def failing(state, batch):
        if batch == 2:
            raise ValueError("a bad step")
        return state, {}

    def take_five():
        with StepProfiler(failing, StepRange(2, 9), tmp_path, first_step=0, say=said.append) as profiled:
            for batch in range(5):
                profiled(0.0, batch)

    said = []
    with pytest.raises(ValueError, match="a bad step"):
        take_five()
    assert "traced steps 2 to 2" in said[0]
    with StepProfiler(step, StepRange(1, 1), tmp_path / "again", first_step=0, say=said.append) as profiled:
        profiled(jnp.float32(0), jnp.float32(1))
    assert traced_steps(tmp_path / "again") == [[1]]


def test_nothing_is_traced_when_the_range_is_not_reached(tmp_path):
    said = []
    take(StepProfiler(step, StepRange(8, 9), tmp_path, first_step=0, say=said.append), 0, 5)
    assert (traced_steps(tmp_path), said) == ([], [])


def test_trace_that_cannot_be_written_is_a_warning(tmp_path):
    said = []
    with StepProfiler(step, StepRange(1, 1), tmp_path / "profile", first_step=0, say=said.append) as profiled:
        (tmp_path / "profile" / "plugins").write_text("in the way")
        profiled(jnp.float32(0), jnp.float32(1))
    (tmp_path / "profile" / "plugins").unlink()
    with suppress(RuntimeError):
        jax.profiler.stop_trace()  # jax 0.10 holds a trace that it could not write
    (line,) = said
    assert line.startswith("warning: the trace of the steps could not be written")
    assert "\n" not in line


def test_steps_that_jax_cannot_trace_are_taken_all_the_same(tmp_path):
    said = []
    with jax.profiler.trace(tmp_path / "another"):
        profiler = StepProfiler(step, StepRange(2, 3), tmp_path / "profile", first_step=0, say=said.append)
        assert take(profiler, 0, 5) == 0 + 1 + 2 + 3 + 4
    (line,) = said
    assert line.startswith("warning: steps 2 to 3 are not traced: ")


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "profile").write_text("in the way")
    with pytest.raises(StorageError, match="profile could not be written"):
        StepProfiler(step, StepRange(1, 1), tmp_path / "profile", first_step=0)


@pytest.mark.parametrize("text", ["10", "10:", ":15", "a:b", "10-15", "1:2:3", "-1:5", "1.5:2", "٣:٤", "10:15\n"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InvalidInputError, match="--profile-steps needs a first and a last step, such as 10:15; got"):
        read_step_range(text, total_steps=100)


@pytest.mark.parametrize("text", ["15:10", "0:5", "5:101", "101:102"])
def test_range_that_the_run_does_not_have_is_refused(text):
    with pytest.raises(InvalidInputError, match=f"needs steps from 1 to --total-steps 100, .*; got {text}"):
        read_step_range(text, total_steps=100)
