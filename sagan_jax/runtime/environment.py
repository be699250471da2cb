"""The environment of a run: versions, devices, threads, settings and the git revision."""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import sagan_jax
from sagan_jax.runtime.files import write_atomically
from sagan_jax.runtime.packages import installed_version

_SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)


RUN_FILES = ("config.json", "environment.json")
"""The files that `write_run_files` writes."""

_PACKAGES = ("sagan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def reproducibility_info() -> dict[str, Any]:
    """Returns versions, devices, threads and settings. A run is reproduced bit for bit if all of them are equal.

    On a CPU the number of threads matters. `PJRT_NPROC` or `NPROC` sets it.
    """
    return {
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in _PACKAGES}},
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "threads": os.environ.get("PJRT_NPROC") or os.environ.get("NPROC") or str(_cpus()),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        **{name: getattr(jax.config, name) for name in _SETTINGS},
    }


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_run_files(workdir: str | Path, experiment: Mapping[str, Any], *, resumed: bool = False) -> None:
    """Writes `config.json` and `environment.json`: the config of a run and its environment.

    The environment holds `reproducibility_info`, the command, the current folder, and the time at which the run
    started. It also holds the git revision of the package, and whether its files differ from that revision. Both are
    null outside a checkout.

    Args:
        workdir: the folder; created if needed.
        experiment: the resolved config, of JSON values.
        resumed: whether the run is resumed. Its time of start is then taken from the earlier `environment.json`.

    Raises:
        StorageError: when a file could not be written.
    """
    revision = git_revision(Path(sagan_jax.__file__).parent)
    started = _started(Path(workdir)) if resumed else datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment = reproducibility_info() | revision | {"argv": sys.argv, "folder": _folder(), "started": started}
    for name, document in zip(RUN_FILES, (experiment, environment), strict=True):
        write_atomically(Path(workdir) / name, (json.dumps(document, indent=2) + "\n").encode())


def _started(workdir: Path) -> str | None:
    """Returns when the run in a workdir started, or None if that is not recorded."""
    try:
        started = json.loads((workdir / "environment.json").read_bytes()).get("started")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None
    return started if isinstance(started, str) else None


def _folder() -> str | None:
    """Returns the current folder, or None if it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def git_revision(folder: Path) -> dict[str, str | bool | None]:
    """Returns `git_revision`, the commit of the checkout that tracks `folder`, and `git_dirty`.

    `git_dirty` is True if files in the folder differ from that commit. Both are None if no checkout tracks the folder.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"git_revision": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "."))}
    except (OSError, subprocess.SubprocessError):
        return {"git_revision": None, "git_dirty": None}
