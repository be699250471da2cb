"""Compiles programs without running them, and reads the compiler's figures: memory, operations, bytes, collectives."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from sagan_jax.errors import one_line
from sagan_jax.runtime.collectives import Collectives, compiled_collectives, traced_collectives
from sagan_jax.runtime.gpu_kernels import compiled_kernels
from sagan_jax.runtime.memory import memory_error

# XLA's message for TPUs: "... for HLO temporaries (20.00G) exceeds available HBM (15.75G)".
_NEEDED = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """The figures of a compiled program on one of its devices. Values that the compiler does not give are None.

    Attributes:
        arguments: bytes of its arguments.
        outputs: bytes of its results.
        aliased: bytes of results that reuse the memory of arguments.
        temporary: bytes of temporaries.
        flops: operations as the compiler counts them, with the body of a loop counted once.
        bytes_accessed: bytes that its operations read and write.
        seconds: the compiler's own estimate of its time. It may be nonsense.
        written: the collectives of the traced program.
        collectives: the collectives of the compiled program.
        compile_seconds: the time of compiling.
        refused: the compiler's message if the program does not fit into memory; else "".
        needed: least number of bytes of memory for a refused program, if the compiler gives it.
        kernels: number of kernels that one execution starts, if the program is for a GPU.
    """

    arguments: int | None = None
    outputs: int | None = None
    aliased: int | None = None
    temporary: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    seconds: float | None = None
    written: tuple[Collectives, ...] = ()
    collectives: tuple[Collectives, ...] = ()
    compile_seconds: float = 0.0
    refused: str = ""
    needed: int | None = None
    kernels: int | None = None

    @property
    def memory(self) -> int | None:
        """Bytes of memory on each device: arguments, temporaries, and outputs that are not aliased."""
        if self.arguments is None or self.outputs is None or self.aliased is None or self.temporary is None:
            return self.needed
        return self.arguments + self.temporary + max(self.outputs - self.aliased, 0)


def compile_program(traced: jax.stages.Traced) -> CompiledProgram:
    """Compiles a traced program, and returns the compiler's figures. This can take minutes.

    Args:
        traced: a program for present devices, or for the devices of a topology.

    Returns:
        The figures, with `refused` set if the program does not fit into the memory of the devices.
    """
    written, start = traced_collectives(traced.jaxpr), time.monotonic()
    try:
        compiled = traced.lower().compile()
    except Exception as error:
        if memory_error(error, "") is None:
            raise
        reason = one_line(error)
        needed = _NEEDED.search(reason)
        return CompiledProgram(
            written=written,
            compile_seconds=time.monotonic() - start,
            refused=reason[:300],
            needed=int(float(needed[1]) * _UNITS[needed[2]]) if needed else None,
        )
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
    text = compiled.as_text() or ""
    return CompiledProgram(
        arguments=getattr(memory, "argument_size_in_bytes", None),
        outputs=getattr(memory, "output_size_in_bytes", None),
        aliased=getattr(memory, "alias_size_in_bytes", None),
        temporary=getattr(memory, "temp_size_in_bytes", None),
        flops=costs.get("flops"),
        bytes_accessed=costs.get("bytes accessed"),
        seconds=costs.get("optimal_seconds"),
        written=written,
        collectives=compiled_collectives(text),
        compile_seconds=time.monotonic() - start,
        kernels=compiled_kernels(text) if _platform(compiled) == "gpu" else None,
    )


def _platform(compiled: jax.stages.Compiled) -> str:
    """Returns the platform of the devices of a program, or an empty string if it has neither inputs nor outputs."""
    shardings = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
    return next((device.platform for one in shardings for device in one.device_set), "")


def program_to_dict(program: CompiledProgram) -> dict[str, Any]:
    """Returns a program as a dictionary of JSON types."""
    return dataclasses.asdict(program)


def program_from_dict(values: Mapping[str, Any]) -> CompiledProgram:
    """Returns the program that `values` describe: the inverse of `program_to_dict`.

    Raises:
        TypeError: another version wrote the values. A missing list of collectives raises KeyError.
    """
    fields = dict(values)
    for name in ("written", "collectives"):
        fields[name] = tuple(Collectives(**one) for one in fields[name])
    return CompiledProgram(**fields)
