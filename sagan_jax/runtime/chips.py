"""Published figures of chips: memory, and peak rate of operations."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip or a GPU, with the figures of its maker.

    Attributes:
        name: its name in this package, such as "v5e".
        memory: bytes of its main memory.
        peak: peak FLOP/s of dense matrix products, by the precision of a step.
        kinds: prefixes of jax's `device_kind` for this chip.
        source: the source of the figures.
    """

    name: str
    memory: int
    peak: Mapping[str, float]
    kinds: tuple[str, ...]
    source: str


def _tpu(name: str, gibibytes: int, tera: float, kinds: tuple[str, ...]) -> Chip:
    # XLA computes a float32 product from three (`tensorfloat32`) or six (`float32`) bfloat16 products.
    peak = {"bfloat16": tera * 1e12, "tensorfloat32": tera * 1e12 / 3, "float32": tera * 1e12 / 6}
    return Chip(name, gibibytes * 2**30, peak, kinds, f"https://docs.cloud.google.com/tpu/docs/{name}")


def _gpu(name: str, gigabytes: int, tera: tuple[float, float, float], kinds: tuple[str, ...], source: str) -> Chip:
    peak = dict(zip(("bfloat16", "tensorfloat32", "float32"), (rate * 1e12 for rate in tera), strict=True))
    return Chip(name, gigabytes * 10**9, peak, kinds, source)


# The rates of GPUs are for the SXM form factor, without sparsity.
_HOPPER = (989.4, 494.7, 66.9)
_CHIPS = (
    _tpu("v4", 32, 275, ("TPU v4",)),
    _tpu("v5e", 16, 197, ("TPU v5 lite", "TPU v5e")),
    _tpu("v5p", 95, 459, ("TPU v5p", "TPU v5")),
    _tpu("v6e", 32, 918, ("TPU v6 lite", "TPU v6e")),
    _gpu("a100-40gb", 40, (312, 156, 19.5), ("NVIDIA A100-SXM4-40GB",), "NVIDIA A100 datasheet"),
    _gpu("a100", 80, (312, 156, 19.5), ("NVIDIA A100-SXM4-80GB",), "NVIDIA A100 datasheet"),
    _gpu("h100", 80, _HOPPER, ("NVIDIA H100 80GB HBM3",), "NVIDIA H100 datasheet"),
    _gpu("h200", 141, _HOPPER, ("NVIDIA H200",), "NVIDIA H200 datasheet"),
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
