"""Memory that runs out, of the device and of the host, told from a full disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.memory import memory_error, memory_errors


def test_memory_that_a_device_does_not_have_is_one_line_with_the_advice():
    with pytest.raises(InvalidInputError) as caught, memory_errors(lambda: "Lower --batch-size."):
        jax.jit(lambda: jnp.zeros(10**13))()
    message = str(caught.value)
    assert message.startswith("the memory of the device does not suffice (Out of memory allocating 40000000000000 ")
    assert message.endswith("). Lower --batch-size.")
    assert caught.value.exit_code == 2


def test_memory_that_the_host_does_not_have_is_named_as_such():
    message = r"^the memory of the host does not suffice \(Unable to allocate"
    with pytest.raises(InvalidInputError, match=message), memory_errors(lambda: "Lower --batch-size."):
        np.ones(10**14)


def test_memory_error_keeps_a_line_short():
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating " + "x" * 1000)
    line = str(memory_error(error, "Lower it."))
    assert "\n" not in line
    assert len(line) < 300


def test_memory_error_knows_the_words_of_cuda():
    assert memory_error(jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),  # TensorStore: a full disk
        jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes differ"),
        RuntimeError("out of memory"),
    ],
)
def test_memory_error_takes_no_other_error_for_one(error):
    assert memory_error(error, "") is None
    with pytest.raises(type(error)) as caught, memory_errors(lambda: ""):
        raise error
    assert caught.value is error
