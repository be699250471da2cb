"""What a compiler says of a program, also of one that it refuses."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from sagan_jax.runtime.collectives import Collectives
from sagan_jax.runtime.compiled_programs import (
    CompiledProgram,
    compile_program,
    program_from_dict,
    program_to_dict,
)

REFUSAL = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (20.25G) exceeds available HBM (15.75G). HLO module: jit_step.\nSee https://openxla.org for more."
)


class Refused:
    """A traced program that the compiler refuses."""

    def __init__(self, error):
        self.error, self.jaxpr = error, jax.jit(jnp.sin).trace(1.0).jaxpr

    def lower(self):
        raise self.error


def test_program_that_does_not_fit_tells_what_it_needs():
    program = compile_program(Refused(jax.errors.JaxRuntimeError(REFUSAL)))
    assert (program.memory, program.temporary) == (int(20.25 * 2**30), None)
    assert "Ran out of memory on HBM" in program.refused
    assert "\n" not in program.refused


def test_other_errors_of_a_compiler_are_no_lack_of_memory():
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such instruction"):
        compile_program(Refused(jax.errors.JaxRuntimeError("INTERNAL: no such instruction")))


def test_memory_is_arguments_temporaries_and_outputs_that_take_no_argument_s_place():
    assert CompiledProgram(arguments=100, outputs=70, aliased=64, temporary=9).memory == 115
    assert CompiledProgram(arguments=100, outputs=70, aliased=64).memory is None


def test_operations_of_a_product_are_two_for_each_of_its_terms():
    shapes = jax.ShapeDtypeStruct((16, 32), jnp.float32), jax.ShapeDtypeStruct((32, 48), jnp.float32)
    program = compile_program(jax.jit(jnp.dot).trace(*shapes))
    assert program.flops == 2 * 16 * 32 * 48
    assert (program.arguments, program.outputs) == (4 * 32 * (16 + 48), 4 * 16 * 48)
    assert program.kernels is None  # not for a GPU


def test_program_comes_back_from_json():
    reduced = (Collectives("all-reduce", 3, 17, 4096),)
    program = CompiledProgram(1, 2, 3, 4, 5.5, 6.5, -0.25, reduced, reduced, 7.5, "no", 8, 9)
    assert len({*dataclasses.astuple(program)}) == len(dataclasses.fields(program)) - 1
    assert program_from_dict(json.loads(json.dumps(program_to_dict(program)))) == program
