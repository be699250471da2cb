"""GPUs that need not be present: jax compiles for them with its CUDA plugin and NVIDIA's assembler."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.chips import Chip
from sagan_jax.runtime.packages import installed_version

GPUS_OF_A_HOST = 8
"""the number of GPUs in one host, if there is more than one host"""

# The packages that hold XLA's compiler for GPUs.
_COMPILERS = ("jax-cuda13-pjrt", "jax-cuda12-pjrt")

# A text of the type `stream_executor.GpuTargetConfigProto` (openxla/xla:xla/stream_executor/device_description.proto).
# The figures that are written out are those of every GPU of compute capability 8.0 or 9.0.
_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {block_memory}
  shared_memory_per_core: {gpu.shared_memory}
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.float32_units}
  l2_cache_size: {gpu.l2_cache}
  memory_bandwidth: {gpu.bandwidth}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {gpu.capability} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""


def has_gpu_compiler() -> bool:
    """Returns whether XLA's compiler for GPUs is installed. It needs no GPU and no driver, but NVIDIA's assembler."""
    return any(map(installed_version, _COMPILERS))


def gpu_devices(chip: Chip, count: int) -> Sequence[Any]:
    """Returns devices that programs can be compiled for, but not run.

    Convolutions get the algorithms that XLA takes without measuring. On a GPU, it measures several and takes the best.

    Args:
        chip: the chip of each device; its `gpu` is not None.
        count: the number of devices, positive. Multiples of `GPUS_OF_A_HOST` are spread over hosts.

    Raises:
        InvalidInputError: the compiler cannot describe the GPU. Its version may not be that of jax.
    """
    from jax.experimental import topologies

    assert chip.gpu is not None, chip.name
    # CUDA keeps 1 KiB of the shared memory of a multiprocessor for each block.
    target = _TARGET.format(
        gpu=chip.gpu, name=chip.kinds[0], memory=chip.memory, block_memory=chip.gpu.shared_memory - 1024
    )
    hosts = count // GPUS_OF_A_HOST if count % GPUS_OF_A_HOST == 0 else 1
    try:
        return topologies.get_topology_desc(
            platform="cuda", target_config=target, topology=f"1x{hosts}x{count // hosts}"
        ).devices
    except Exception as error:  # its type depends on the version of jax
        raise InvalidInputError(
            f"jax cannot compile for {chip.name}:{count} here: {one_line(error)[:200]}. The version of its CUDA plugin "
            f"needs to be that of jax. Run: pip install 'sagan-jax[plan-gpu]'."
        ) from error


@contextmanager
def assembler_needed() -> Iterator[None]:
    """Raises InvalidInputError if compiling in the block fails because NVIDIA's assembler, `ptxas`, is not found."""
    try:
        yield
    except Exception as error:  # its type depends on the version of jax
        if "ptxas" not in str(error):
            raise
        raise InvalidInputError(
            "Compiling for a GPU needs NVIDIA's assembler ptxas, and none was found that fits. "
            "Run: pip install 'sagan-jax[plan-gpu]'."
        ) from error
