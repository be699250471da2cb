"""Recognises errors of exhausted memory, as opposed to those of a full disk."""

import contextlib
import re
from collections.abc import Callable, Iterator

import jax

from sagan_jax.errors import InvalidInputError, one_line

# XLA's status, and CUDA's own message, which other statuses may contain.
_OUT_OF_MEMORY = r"RESOURCE_EXHAUSTED|(?i:out.of.memory)"


def memory_error(error: BaseException, advice: str) -> InvalidInputError | None:
    """Returns the error to raise if an error means that the memory of a device or the host ran out, else None.

    TensorStore also raises `RESOURCE_EXHAUSTED`, as a ValueError. It means a full disk, so the result is then None.

    Args:
        error: any error.
        advice: what helps, as a sentence.
    """
    of_device = isinstance(error, jax.errors.JaxRuntimeError) and re.search(_OUT_OF_MEMORY, str(error)) is not None
    if not of_device and not isinstance(error, MemoryError):
        return None
    reason = one_line(error).partition("RESOURCE_EXHAUSTED: ")[2] or one_line(error)
    reason = reason if len(reason) <= 160 else f"{reason[:160]} ..."
    where = "device" if of_device else "host"
    return InvalidInputError(f"the memory of the {where} does not suffice ({reason}). {advice}")


@contextlib.contextmanager
def memory_errors(advice: Callable[[], str]) -> Iterator[None]:
    """Raises InvalidInputError if memory runs out in the block.

    Args:
        advice: returns the advice of `memory_error`; it is called only after an error.
    """
    try:
        yield
    except Exception as error:
        if known := memory_error(error, advice()):
            raise known from error
        raise
