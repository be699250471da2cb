"""Whether a process looks for the other processes of a run."""

import jax
import pytest

from sagan_jax.runtime import processes
from sagan_jax.runtime.processes import initialize_distributed


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, False),  # inside an allocation, started without srun
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_other_processes_are_looked_for_where_a_launcher_started_some(variables, several, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **options: calls.append(given))
    monkeypatch.setattr(processes.os, "environ", {"JAX_PLATFORMS": "cpu"} | variables)
    initialize_distributed()
    assert bool(calls) == several
