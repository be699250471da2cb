"""The devices of a plan, by name: a TPU slice, GPUs, or the devices of this machine. Checking a name loads no jax."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.chips import CHIPS, Chip, chip_of
from sagan_jax.runtime.gpu_topologies import gpu_devices, has_gpu_compiler
from sagan_jax.runtime.topologies import TOPOLOGIES, check_topology, require_libtpu, topology_devices

GPU_SHARE = 0.75
"""the share of a GPU's memory that jax reserves unless XLA_PYTHON_CLIENT_MEM_FRACTION changes it"""

_GPUS = tuple(name for name in CHIPS if name not in TOPOLOGIES)


class Target(NamedTuple):
    """Devices to plan for."""

    name: str
    """such as `v5e:2x4`"""
    platform: str
    """the jax platform: `cpu`, `gpu` or `tpu`"""
    kind: str
    """`device_kind` of one device in jax, or the name of the chip"""
    count: int
    memory: int | None
    """bytes of memory per device that a program can use; None if unknown"""
    chip: Chip | None
    """the published figures of the chip; None if unknown"""
    devices: Sequence[Any] | None
    """devices to compile for; None if no compiler is available"""


def check_target(name: str) -> None:
    """Raises InvalidInputError if a name does not name devices, or if a TPU slice has no compiler here (libtpu)."""
    if re.fullmatch(rf"({'|'.join(map(re.escape, _GPUS))}):[1-9]\d{{0,4}}", name):
        return
    try:
        check_topology(name)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{error} GPUs are named with their number, such as h200:8: {', '.join(_GPUS)}."
        ) from None
    require_libtpu()


def open_target(name: str = "") -> Target:
    """Returns the devices of a name. Defaults to the devices that jax sees.

    Raises:
        InvalidInputError: as `check_target`, or an installed compiler cannot describe the devices.
    """
    if not name:
        return _here()
    check_target(name)
    chip = CHIPS[name.partition(":")[0]]
    if chip.name in _GPUS:
        count = int(name.partition(":")[2])
        devices = gpu_devices(chip, count) if has_gpu_compiler() else None
        return Target(name, "gpu", chip.name, count, int(GPU_SHARE * chip.memory), chip, devices)
    devices = topology_devices(name)
    return Target(name, "tpu", devices[0].device_kind, len(devices), chip.memory, chip, devices)


def _here() -> Target:
    import jax

    devices = jax.devices()
    first, kind = devices[0], devices[0].device_kind
    chip = chip_of(kind)
    stated = None if first.platform == "cpu" else first.memory_stats()  # a CPU reports the memory of the machine
    memory = (stated or {}).get("bytes_limit") or (chip.memory if chip else None)
    return Target(f"{len(devices)} x {kind}", first.platform, kind, len(devices), memory, chip, devices)
