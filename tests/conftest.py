"""The environment of the tests: four virtual CPU devices, a strict jax, and the shared data if the machine has it."""

import atexit
import ctypes
import gc
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support")

# Threads of numpy's OpenBLAS wait for each other in a loop. With two pytest workers on two cores, this slows both. With
# one thread, a run that is scored, drawn and reported takes 40% less time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# jax reads the environment when it is first imported, and commands that tests start inherit it. Variables that are set
# already stay as they are.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "sagan_jax"
        / f"tests-jax-{importlib.metadata.version('jax')}"
    ),
)
# Programs that compile in milliseconds are kept too: there are hundreds, and all test files and processes need them.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Decoded images are neither written to the home folder nor read from it.
if "SAGAN_JAX_CACHE" not in os.environ:
    os.environ["SAGAN_JAX_CACHE"] = tempfile.mkdtemp(prefix="sagan_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["SAGAN_JAX_CACHE"], ignore_errors=True)
# On a busy machine, a virtual device may wait long for the others at a collective. XLA then aborts the whole process.
# These limits give it more time.
flags = {
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": "120",
    "xla_cpu_collective_call_terminate_timeout_seconds": "600",
}
# The tests spend most of their time on compiling. These flags save a third to half of it, and the programs take half as
# long again. A flag that jax does not know ends the process, so only the versions that were tried get them. With other
# versions, programs are compiled as for a user. So are those of the default run.
version = tuple(importlib.metadata.version("jax").split(".")[:2])
if version in (("0", "10"), ("0", "12")):
    flags |= {"xla_backend_optimization_level": "0", "xla_cpu_parallel_codegen_split_count": "1"}
if version == ("0", "10"):
    flags |= {"xla_cpu_use_fusion_emitters": "false"}
for flag, value in flags.items():
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{flag}={value}".strip()

import jax  # noqa: E402  after the environment it reads

from support.paths import ROOT  # noqa: E402  after its assertions were asked for

# Tracing makes thousands of objects. By default, Python's garbage collector scans them so often that this takes
# a quarter of the time. Each test file ends with a collection.
gc.set_threshold(50_000, 20, 20)

jax.config.update("jax_numpy_rank_promotion", "raise")
# A GPU or TPU rounds the operands of float32 products by default. The oracles of the tests do not.
jax.config.update("jax_default_matmul_precision", "float32")
# Not jax_numpy_dtype_promotion="strict": optax's own Adam and schedules multiply an int32 count with a float (0.2.8).


def pytest_collection_finish():
    """Excludes imported modules and collected tests from later garbage collections, because they stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_let_go():
    """Frees the programs that a test file compiled. Each is mapped into memory, and thousands would end the process."""
    yield
    jax.clear_caches()
    gc.collect()
    # glibc keeps freed memory, separately for each of jax's many threads. Other C libraries may lack this function.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and golden vectors, which is not part of the project."""
    named = os.environ.get("SAGAN_JAX_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"SAGAN_JAX_SHARED needs a folder; {folder} is none.")
    pytest.skip(
        f"needs the shared data: {folder} is absent and SAGAN_JAX_SHARED, which would say where it is, is unset"
    )


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Golden vectors of released networks and metrics; their README says what is in each file."""
    return shared / "golden"
