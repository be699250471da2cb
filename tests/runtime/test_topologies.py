"""TPU slices that this machine lacks, and the figures of chips."""

import importlib.util
import math
import os
import subprocess
import sys
import textwrap

import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime import topologies
from sagan_jax.runtime.chips import CHIPS, chip_of

NEEDS_LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'sagan-jax[plan]'"
)


@pytest.mark.parametrize("name", ["v5e:3x3", "v5e", "v9:2x2", "", "V5E:2x4", "v5p:2x4"])
def test_unknown_slice_is_refused_with_all_that_are_known(name):
    with pytest.raises(InvalidInputError) as refused:
        topologies.check_topology(name)
    assert f"There is no TPU slice {name!r}." in str(refused.value)
    assert all(shape in str(refused.value) for shapes in topologies.TOPOLOGIES.values() for shape in shapes)


def test_absent_libtpu_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(InvalidInputError, match=r"needs the package libtpu.* Run: pip install 'sagan-jax\[plan\]'\.$"):
        topologies.topology_devices("v5e:2x2")


def test_older_python_is_told_beside_the_absent_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    with pytest.raises(InvalidInputError, match=r"on Python 3\.12 or newer; this is Python 3\.11\."):
        topologies.require_libtpu()


def test_every_slice_has_a_chip_and_chips_are_found_by_the_kind_of_a_device():
    assert set(topologies.TOPOLOGIES) <= set(CHIPS)
    kinds = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
    kinds |= {"NVIDIA H200": "h200", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-40GB": "a100-40gb"}
    assert {kind: chip_of(kind).name for kind in kinds} == kinds
    assert chip_of("NVIDIA GeForce RTX 4090") is None


def in_a_process_of_its_own(program):
    """What a program prints, in a process where jax starts as on a machine without accelerators."""
    ours = ("TPU_", "JAX_", "XLA_", "ALLOW_MULTIPLE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@NEEDS_LIBTPU
def test_slices_have_as_many_devices_as_chips_and_libtpu_is_quiet():
    said = in_a_process_of_its_own("""
        from sagan_jax.runtime.topologies import TOPOLOGIES, prepare_environment, topology_devices
        prepare_environment()
        for chip, shapes in TOPOLOGIES.items():
            for shape in shapes:
                found = topology_devices(f"{chip}:{shape}")
                print(chip, shape, len(found), found[0].platform, found[0].device_kind, sep=",")
    """)
    rows = [line.split(",") for line in said]
    assert len(rows) == sum(map(len, topologies.TOPOLOGIES.values()))
    for chip, shape, count, platform, kind in rows:
        assert int(count) == math.prod(map(int, shape.split("x")))
        assert (platform, chip_of(kind).name) == ("tpu", chip)


@NEEDS_LIBTPU
def test_step_is_compiled_for_a_slice_or_refused_where_its_memory_does_not_suffice():
    said = in_a_process_of_its_own("""
        from sagan_jax.runtime.topologies import prepare_environment, topology_devices
        prepare_environment()
        import jax, jax.numpy as jnp
        from sagan_jax.runtime.compiled_programs import compile_program
        from sagan_jax.runtime.devices import ParallelStep

        def step(state, batch, *, axis_name):
            return jax.tree.map(lambda leaf: leaf + jax.lax.pmean(batch.sum(), axis_name), state), {}

        for rows in (3 * 2**10, 20 * 2**20):  # 3 MiB and 20 GiB of state
            state = jax.ShapeDtypeStruct((rows, 256), jnp.float32)
            batch = jax.ShapeDtypeStruct((1, 8, 1024), jnp.float32)
            traced = ParallelStep(step, driver="shard_map", devices=topology_devices("v5e:2x2")).trace(state, batch)
            found = compile_program(traced)
            print(found.arguments, sum(one.count for one in found.collectives), bool(found.refused), found.memory)
    """)
    fitting, refused = (line.split() for line in said)
    assert fitting[:3] == [str(3 * 2**20 + 2 * 1024 * 4), "1", "False"]
    assert refused[2] == "True"
    assert 19 * 2**30 < int(refused[3]) < 22 * 2**30
