"""GPUs that this machine lacks."""

import os
import subprocess
import sys
import textwrap

import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime import gpu_topologies
from sagan_jax.runtime.chips import CHIPS
from sagan_jax.runtime.topologies import TOPOLOGIES

GPUS = sorted(set(CHIPS) - set(TOPOLOGIES))
NEEDS_COMPILER = pytest.mark.skipif(
    not gpu_topologies.has_gpu_compiler(), reason="needs jax's CUDA plugin: pip install 'sagan-jax[plan-gpu]'"
)


def test_gpus_have_the_figures_that_their_compiler_needs_and_tpus_have_none():
    assert GPUS == ["a100", "a100-40gb", "h100", "h200"]
    assert [name for name, chip in CHIPS.items() if chip.gpu] == sorted(GPUS, key=list(CHIPS).index)


@pytest.mark.parametrize(
    ("count", "topology"), [(1, "1x1x1"), (6, "1x1x6"), (8, "1x1x8"), (12, "1x1x12"), (24, "1x3x8")]
)
def test_devices_are_spread_over_hosts_of_eight(count, topology, monkeypatch):
    from jax.experimental import topologies

    asked = []
    devices = type("Description", (), {"devices": ("one",)})
    monkeypatch.setattr(topologies, "get_topology_desc", lambda **options: asked.append(options) or devices)
    assert gpu_topologies.gpu_devices(CHIPS["a100-40gb"], count) == ("one",)
    ((platform, found, target),) = ((one["platform"], one["topology"], one["target_config"]) for one in asked)
    assert (platform, found) == ("cuda", topology)
    assert "device_memory_size: 40000000000" in target
    assert "shared_memory_per_block_optin: 166912" in target  # 163 KiB, in NVIDIA's table of compute capability 8.0
    assert "core_count: 108" in target
    assert "cuda_compute_capability { major: 8 }" in target


def test_plugin_that_does_not_fit_is_one_line_that_says_what_to_install(monkeypatch):
    from jax.experimental import topologies

    def refuse(**options):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(InvalidInputError) as refused:
        gpu_topologies.gpu_devices(CHIPS["h100"], 2)
    message = str(refused.value)
    assert "jax cannot compile for h100:2 here: topology not implemented for cuda." in message
    assert message.endswith("Run: pip install 'sagan-jax[plan-gpu]'.")


def test_absent_assembler_is_one_line_and_other_errors_are_as_they_were():
    needed = r"needs NVIDIA's assembler ptxas.* Run: pip install 'sagan-jax\[plan-gpu\]'\.$"
    with pytest.raises(InvalidInputError, match=needed), gpu_topologies.assembler_needed():
        raise RuntimeError("NOT_FOUND: Couldn't find a suitable version of ptxas. The following ...")
    with pytest.raises(RuntimeError, match="another"), gpu_topologies.assembler_needed():
        raise RuntimeError("another")


@NEEDS_COMPILER
def test_step_is_compiled_for_each_gpu_and_its_memory_is_counted():
    program = """
        from sagan_jax.runtime.topologies import prepare_environment
        prepare_environment()
        import jax, jax.numpy as jnp
        from sagan_jax.runtime.chips import CHIPS
        from sagan_jax.runtime.compiled_programs import compile_program
        from sagan_jax.runtime.devices import ParallelStep
        from sagan_jax.runtime.gpu_topologies import gpu_devices

        def step(state, batch, *, axis_name):
            return jax.tree.map(lambda leaf: leaf + jax.lax.pmean(batch.sum(), axis_name), state), {}

        for chip in CHIPS.values():
            for rows in (3 * 2**10, 150 * 2**20) if chip.gpu else ():  # 3 MiB and 150 GiB of state
                state = jax.ShapeDtypeStruct((rows, 256), jnp.float32)
                batch = jax.ShapeDtypeStruct((1, 16, 1024), jnp.float32)
                devices = gpu_devices(chip, 16)
                traced = ParallelStep(step, driver="shard_map", devices=devices).trace(state, batch)
                made = compile_program(traced)
                inputs = made.arguments - rows * 1024
                print(len(devices), inputs, made.collectives[0].count, made.kernels, made.memory)
    """
    ours = ("TPU_", "JAX_", "XLA_", "TF_", "ALLOW_MULTIPLE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert "Error" not in done.stderr
    rows = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(rows) == 2 * len(GPUS)
    for (*small, few, little), (*large, more, much) in zip(rows[::2], rows[1::2], strict=True):
        assert small == large == [16, 1024 * 4, 1]
        assert few == 3  # a sum, an all-reduce, an addition
        assert more in (3, 4)  # XLA may divide by the number of devices first, and then add to a large state
        assert little < 4 * 2**20
        assert 150 * 2**30 < much < 151 * 2**30
