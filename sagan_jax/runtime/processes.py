"""A run of several processes, on one host or many: connecting them, comparing their inputs and gathering arrays."""

import hashlib
import json
import os
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sagan_jax.errors import InvalidInputError, PeerLostError, StorageError
from sagan_jax.runtime.coordinator import check_coordinator
from sagan_jax.runtime.packages import is_installed

# How long a finished process waits for the others: process 0 still draws, scores and writes the report. The heartbeat
# detects a process that is lost meanwhile.
_SECONDS_TO_END = 24 * 3600
# The variables in which launchers give the number of processes. srun sets SLURM_STEP_NUM_TASKS. SLURM_NTASKS is not
# used: it belongs to an allocation, in which this may be the only process.
_PROCESS_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# Words in the runtime's errors about a lost process.
_LOST = re.compile(r"gloo|connection (reset|refused|closed)|unavailable|deadline.exceeded|heartbeat|coordination", re.I)


def initialize_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 300,
    heartbeat: int = 30,
) -> None:
    """Connects this process to the other processes of a run. Does nothing when there is only one process.

    Call this before any computation. Without arguments, SLURM, Open MPI and TPU hosts are detected, and
    `jax.distributed` determines the arguments.

    Args:
        coordinator: `host:port` of process 0, with any free port.
        num_processes: the number of processes.
        process_id: the index of this process, from 0.
        timeout: seconds to wait for the other processes.
        heartbeat: seconds after which a silent process counts as lost. The other processes then end.

    Raises:
        InvalidInputError: when only some of `coordinator`, `num_processes` and `process_id` are given, or they are
            inconsistent, or the coordinator's address cannot be used; see `check_coordinator`.
        PeerLostError: when the other processes do not connect.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    absent = [flag for flag, value in given.items() if value is None]
    if len(absent) == len(given) and not _has_other_processes():
        return
    if absent and len(absent) < len(given):
        raise InvalidInputError(f"Several processes need {', '.join(given)}; {' and '.join(absent)} not given.")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise InvalidInputError(f"--process-id needs to be in [0, {num_processes}); got {process_id}.")
    if coordinator is not None and process_id is not None:
        check_coordinator(coordinator, process_id)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=_SECONDS_TO_END,
        )
    except (RuntimeError, ValueError) as error:
        raise PeerLostError(
            f"The {num_processes or ''} processes did not connect to {coordinator or 'the coordinator'} within "
            f"{timeout} s. Is process 0 running, the port open, and no proxy variable set? ({_first_line(error)})"
        ) from error


def _has_other_processes() -> bool:
    """Returns whether a launcher started several processes, or this is a TPU host, which may belong to a pod."""
    if any(os.environ.get(name, "1").isdecimal() and int(os.environ.get(name, "1")) > 1 for name in _PROCESS_COUNTS):
        return True
    chips = [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/*")]
    wanted = "tpu" in os.environ.get("JAX_PLATFORMS", "tpu")
    return wanted and bool(chips) and is_installed("libtpu")


def is_main_process() -> bool:
    """Returns whether this is process 0, the only process that writes files and prints."""
    return jax.process_index() == 0


def decide_in_main(decide: Callable[[], Any]) -> Any:
    """Calls `decide` in process 0 only, and returns its result in every process.

    Decisions that depend on files must be made once, because another process may find other files or fail to read them.

    Args:
        decide: returns JSON values; tuples become lists.
    """
    if jax.process_count() == 1:
        return json.loads(json.dumps(decide()))
    content = json.dumps(decide()).encode() if is_main_process() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(content), np.int32)))
    row = np.frombuffer(content.ljust(size), np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(row)).tobytes())


def require_same(values: Mapping[str, str]) -> None:
    """Raises InvalidInputError in every process unless each of the named values is the same in all processes."""
    if jax.process_count() == 1:
        return
    digests = np.stack([np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8) for value in values.values()])
    everywhere = multihost_utils.process_allgather(digests)
    for number, name in enumerate(values):
        if (everywhere[:, number] != everywhere[0, number]).any():
            raise InvalidInputError(
                f"All {jax.process_count()} processes need the same {name}; they were started with different ones."
            )


def require_shared_folder(folder: Path) -> None:
    """Raises StorageError in every process unless all processes share the folder."""
    if jax.process_count() == 1:
        return
    nonce = np.frombuffer(uuid.uuid4().bytes, np.uint8)
    name = f".shared-{multihost_utils.broadcast_one_to_all(nonce).tobytes().hex()}"
    if is_main_process():
        (folder / name).touch()
    multihost_utils.sync_global_devices("sagan_jax shared folder")
    seen = multihost_utils.process_allgather(np.array((folder / name).exists()))
    if is_main_process():
        (folder / name).unlink()
    if not seen.all():
        raise StorageError(
            f"--workdir needs a folder that all processes share; {str(folder)!r} of process 0 is another folder in "
            f"process {int(np.flatnonzero(~seen)[0])}."
        )


def gather(array: np.ndarray) -> list[np.ndarray]:
    """Returns the arrays of all processes, in the order of the processes. Float64 keeps its precision.

    Args:
        array: `[N, ...]`. The dtype and the trailing shape are the same in all processes; N may differ.
    """
    if jax.process_count() == 1:
        return [array]
    counts = multihost_utils.process_allgather(np.array(len(array), np.int32))
    rows = np.zeros((int(counts.max()), *array.shape[1:]), array.dtype)
    rows[: len(array)] = array
    everywhere = multihost_utils.process_allgather(rows.reshape(-1).view(np.uint8))
    return [
        part.view(array.dtype).reshape(rows.shape)[:count]
        for part, count in zip(np.asarray(everywhere), counts.tolist(), strict=True)
    ]


def peer_lost_error(error: BaseException) -> PeerLostError | None:
    """Returns the error to raise when a runtime error means that another process was lost, else None."""
    if not jax.distributed.is_initialized() or not _LOST.search(str(error)):
        return None
    return PeerLostError(
        f"Another process of this run has ended ({_first_line(error)}). Start all processes again with the same "
        f"command. They resume from the last checkpoint."
    )


def exit_if_distributed(exit_code: int) -> None:
    """Ends this process at once if it is one of several. A normal exit would wait for the other processes."""
    if jax.distributed.is_initialized():  # unlike jax.process_count(), this starts no backend
        sys.stdout.flush()
        os._exit(exit_code)


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 160 else f"{line[:160]} ..."
