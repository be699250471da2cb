"""The count of operations, from a trace of steps whose operations are known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.step_profiler import StepProfiler, StepRange
from support.programs import BENCHMARKS, load_program

# Reading a trace with jax 0.12 makes a type that Python 3.13 warns about. As an error, the warning ends the process.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


@pytest.fixture(scope="module")
def program():
    return load_program(BENCHMARKS / "profile_kernels.py")


def event(name, nanoseconds, **stats):
    return SimpleNamespace(name=name, duration_ns=nanoseconds, stats=list(stats.items()))


def plane(name, **lines):
    lines = [SimpleNamespace(name=line.replace("_", " "), events=events) for line, events in lines.items()]
    return SimpleNamespace(name=name, lines=lines)


def test_kernels_of_a_step_are_counted_by_kind_on_each_device(program):
    step = {"hlo_module": "jit_step"}
    steps = [event("train", 9.0, step_num=number) for number in (10, 11)]
    kernels = [
        event("sm90_xmma", 6e6, hlo_op="cudnn-conv.1", **step),
        event("gemm", 2e6, hlo_op="gemm_fusion_dot.3", **step),
        event("add", 1e6, hlo_op="loop_convert_fusion", **step),
        event("add", 1e6, hlo_op="loop_add_fusion.2", **step),
    ]
    drawing = event("tanh", 5e6, hlo_op="tanh.1", hlo_module="jit_draw")
    without_operation = event("launch", 7e9)
    devices = [
        plane(f"/device:GPU:{number}", Stream_7=[*kernels, *kernels, drawing], XLA_Ops=[*kernels, *kernels])
        for number in range(3)
    ]
    lines = list(program.table([plane("/host:CPU", python=[*steps, without_operation]), *devices]))
    assert lines[0] == "jit_step: 4 a step of a device, in 2 steps"
    assert lines[2:] == [
        "| convolution | 1 | 6.00 | 60% |",
        "| matrix product | 1 | 2.00 | 20% |",
        "| element-wise and other | 2 | 2.00 | 20% |",
    ]


def test_trace_of_a_run_is_found_and_counted(program, tmp_path, capsys):
    def step(state, batch):
        return state @ batch @ batch.T, {}

    compiled = jax.jit(step)
    state, batch = jnp.ones((64, 64)), jnp.ones((64, 64))
    with StepProfiler(compiled, StepRange(3, 5), tmp_path / "profile", first_step=0) as profiled:
        for _ in range(6):
            state, _ = profiled(state, batch)
    assert "traced steps 3 to 5" in capsys.readouterr().out
    program.run([str(tmp_path)])
    first, _, _, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("jit_step: ")
    assert first.endswith("a step of a device, in 3 steps")
    assert any(row.startswith("| matrix product | 2 |") for row in rows)


def test_folder_without_a_trace_is_refused(program, tmp_path):
    with pytest.raises(InvalidInputError, match=r"There is no trace in .*--profile-steps 10:15"):
        program.run([str(tmp_path)])


def test_trace_without_steps_is_refused(program):
    with pytest.raises(InvalidInputError, match="needs steps and operations; it has 0 and 0"):
        list(program.table([plane("/host:CPU", python=[])]))
