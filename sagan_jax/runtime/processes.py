"""Several processes, on one host or many, as one run: how they meet, and what they must agree on."""

import hashlib
import importlib.util
import os
import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from sagan_jax.errors import InvalidInputError, PeerLostError, StorageError

# What a launcher sets when it starts more than one process.
_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
# How the runtime speaks of a process that is gone.
_LOST = re.compile(r"gloo|connection (reset|refused|closed)|unavailable|deadline.exceeded|heartbeat|coordination", re.I)


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 300,
    heartbeat: int = 30,
) -> None:
    """Makes this process one of a run's, before anything is computed; does nothing when it is the only one.

    Where nothing is given, SLURM, Open MPI and TPU hosts are recognised, and `jax.distributed` finds the rest out.

    Args:
        coordinator: `host:port` of process 0, any free port there.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        timeout: seconds to wait for the others.
        heartbeat: seconds after which a silent process counts as lost; the others then end.

    Raises:
        InvalidInputError: when only some of the three are given, or they do not fit together.
        PeerLostError: when the others do not come.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    absent = [flag for flag, value in given.items() if value is None]
    if len(absent) == len(given) and not _launched_with_others():
        return
    if absent and len(absent) < len(given):
        raise InvalidInputError(f"Several processes need {', '.join(given)}; {' and '.join(absent)} not given.")
    if coordinator is not None and not re.fullmatch(r"\S+:\d+", coordinator):
        raise InvalidInputError(f"--coordinator needs host:port, such as 10.0.0.1:1234; got {coordinator!r}.")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise InvalidInputError(f"--process-id needs to be in [0, {num_processes}); got {process_id}.")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
        )
    except (RuntimeError, ValueError) as error:
        raise PeerLostError(
            f"The {num_processes or ''} processes did not meet at {coordinator or 'the coordinator'} within {timeout} s"
            f": is process 0 running, the port open, and no proxy variable set? ({_first_line(error)})"
        ) from error


def _launched_with_others() -> bool:
    """Tells whether a launcher started more than this process, or this is a TPU host, which may be one of a pod."""
    if any(os.environ.get(name, "1").isdecimal() and int(os.environ.get(name, "1")) > 1 for name in _COUNTS):
        return True
    chips = [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/*")]
    wanted = "tpu" in os.environ.get("JAX_PLATFORMS", "tpu")
    return wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None


def is_first() -> bool:
    """Tells whether this is the process that writes and prints: the only one, or process 0."""
    return jax.process_index() == 0


def require_same(what: Mapping[str, str]) -> None:
    """Raises InvalidInputError, in every process, naming the first of these words that is not the same in all."""
    if jax.process_count() == 1:
        return
    digests = np.stack([np.frombuffer(hashlib.sha256(word.encode()).digest(), np.uint8) for word in what.values()])
    everywhere = multihost_utils.process_allgather(digests)
    for number, name in enumerate(what):
        if (everywhere[:, number] != everywhere[0, number]).any():
            raise InvalidInputError(
                f"All {jax.process_count()} processes need the same {name}; they were started with different ones."
            )


def require_shared(folder: Path) -> None:
    """Raises StorageError, in every process, unless all see the same folder."""
    if jax.process_count() == 1:
        return
    nonce = np.frombuffer(uuid.uuid4().bytes, np.uint8)
    name = f".shared-{multihost_utils.broadcast_one_to_all(nonce).tobytes().hex()}"
    if is_first():
        (folder / name).touch()
    multihost_utils.sync_global_devices("sagan_jax shared folder")
    seen = multihost_utils.process_allgather(np.array((folder / name).exists()))
    if is_first():
        (folder / name).unlink()
    if not seen.all():
        raise StorageError(
            f"--workdir needs a folder that all processes share; {str(folder)!r} of process 0 is not that of process "
            f"{int(np.flatnonzero(~seen)[0])}."
        )


def gather(array: np.ndarray) -> list[np.ndarray]:
    """Returns the array of each process, in their order; bit for bit, where jax would make float64 narrower.

    Args:
        array: of one dtype and trailing shape in all processes; leading sizes may differ.
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


def lost_peer(error: BaseException) -> PeerLostError | None:
    """Returns what to say when an error of the runtime means that another process is gone, else None."""
    if not jax.distributed.is_initialized() or not _LOST.search(str(error)):
        return None
    return PeerLostError(
        f"Another process of this run is gone ({_first_line(error)}): start all of them again with the same command, "
        f"and they go on from the last checkpoint."
    )


def leave(exit_code: int) -> None:
    """Ends this process at once if it is one of several: an orderly exit would wait for the others, who do not know."""
    if jax.distributed.is_initialized():  # which starts no backend, as counting the processes would
        sys.stdout.flush()
        os._exit(exit_code)


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 160 else f"{line[:160]} ..."
