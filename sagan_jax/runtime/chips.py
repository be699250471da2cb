"""Published figures of chips: memory, and peak rate of operations."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The figures of a GPU that XLA needs to compile for it.

    Attributes:
        capability: the major version of its compute capability.
        multiprocessors: number of streaming multiprocessors.
        float32_units: float32 units of a multiprocessor.
        shared_memory: bytes of shared memory of a multiprocessor.
        l2_cache: bytes of the L2 cache.
        bandwidth: bytes per second that its main memory can move.
        clock: the boost clock in GHz.

    Source: NVIDIA, CUDA C++ Programming Guide, "Compute Capabilities"; the datasheets of the chips.
    """

    capability: int
    multiprocessors: int
    float32_units: int
    shared_memory: int
    l2_cache: int
    bandwidth: int
    clock: float


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip or a GPU, with the figures of its maker.

    Attributes:
        name: its name in this package, such as "v5e".
        memory: bytes of its main memory.
        peak: peak FLOP/s of dense matrix products, by the precision of a step.
        kinds: prefixes of jax's `device_kind` for this chip.
        source: the source of the figures.
        gpu: further figures of a GPU; None for a TPU.
    """

    name: str
    memory: int
    peak: Mapping[str, float]
    kinds: tuple[str, ...]
    source: str
    gpu: Gpu | None = None


def _tpu(name: str, gibibytes: int, tera: float, kinds: tuple[str, ...]) -> Chip:
    # XLA computes a float32 product from three (`tensorfloat32`) or six (`float32`) bfloat16 products.
    peak = {"bfloat16": tera * 1e12, "tensorfloat32": tera * 1e12 / 3, "float32": tera * 1e12 / 6}
    return Chip(name, gibibytes * 2**30, peak, kinds, f"https://docs.cloud.google.com/tpu/docs/{name}")


def _ampere(name: str, gigabytes: int, gigabytes_per_second: int) -> Chip:
    kinds = (f"NVIDIA A100-SXM4-{gigabytes}GB",)
    gpu = Gpu(8, 108, 64, 164 * 2**10, 40 * 2**20, gigabytes_per_second * 10**9, 1.41)
    return Chip(name, gigabytes * 10**9, _rates(312, 156, 19.5), kinds, "NVIDIA A100 datasheet", gpu)


def _hopper(name: str, gigabytes: int, gigabytes_per_second: int, kind: str) -> Chip:
    gpu = Gpu(9, 132, 128, 228 * 2**10, 50 * 2**20, gigabytes_per_second * 10**9, 1.98)
    source = f"NVIDIA {name.upper()} datasheet"
    return Chip(name, gigabytes * 10**9, _rates(989.4, 494.7, 66.9), (kind,), source, gpu)


def _rates(*tera: float) -> Mapping[str, float]:
    return dict(zip(("bfloat16", "tensorfloat32", "float32"), (rate * 1e12 for rate in tera), strict=True))


# The figures of GPUs are for the SXM form factor, and their rates without sparsity.
_CHIPS = (
    _tpu("v4", 32, 275, ("TPU v4",)),
    _tpu("v5e", 16, 197, ("TPU v5 lite", "TPU v5e")),
    _tpu("v5p", 95, 459, ("TPU v5p", "TPU v5")),
    _tpu("v6e", 32, 918, ("TPU v6 lite", "TPU v6e")),
    _ampere("a100-40gb", 40, 1555),
    _ampere("a100", 80, 2039),
    _hopper("h100", 80, 3350, "NVIDIA H100 80GB HBM3"),
    _hopper("h200", 141, 4800, "NVIDIA H200"),
)
CHIPS: Mapping[str, Chip] = {chip.name: chip for chip in _CHIPS}
"""The chips whose figures are known, by name."""


def chip_of(device_kind: str) -> Chip | None:
    """Returns the chip of a jax device, or None if its figures are unknown.

    Examples:
        >>> chip_of("TPU v5 lite").name, chip_of("TPU v5").name, chip_of("cpu")
        ('v5e', 'v5p', None)
    """
    found = [(len(kind), chip) for chip in _CHIPS for kind in chip.kinds if device_kind.startswith(kind)]
    return max(found, key=lambda pair: pair[0])[1] if found else None
