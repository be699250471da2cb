"""Counts the kernels of a program that was compiled for a GPU."""

import re

from sagan_jax.runtime.hlo_text import called_computations, computation_lines, executions, find_loop

# Instructions whose computations are lists of kernels. The computations of others, such as fusions, are parts of them.
_CONTROL = ("async-start", "call", "conditional", "while")
_WITHOUT_KERNEL = (
    *_CONTROL,
    "add-dependency",
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
)
_OPERATION = re.compile(r"= .*? (?P<name>[a-z][a-z\d\-]*)\(")


def compiled_kernels(text: str) -> int:
    """Returns the number of kernels that one execution of a program starts.

    A call of a library, such as a convolution of cuDNN, counts as one kernel, although it may start several. A kernel
    in the body of a loop counts once per iteration, if the program states the number of iterations.

    Args:
        text: the program as HLO text, from `compiled.as_text()`.

    Examples:
        >>> compiled_kernels("ENTRY main {\\n  p = f32[8] parameter(0)\\n  r = f32[8] copy(p)\\n}")
        1
    """
    rounds = executions(text)
    found = [(computation, line, _OPERATION.search(line)) for computation, line in computation_lines(text)]
    operations = [(computation, line, match["name"]) for computation, line, match in found if match]
    parts = {
        name for _, line, operation in operations if operation not in _CONTROL for name in called_computations(line)
    }
    # With a stated number of iterations, XLA does not evaluate the condition of a loop on a GPU.
    loops = filter(None, (find_loop(line) for _, line, _ in operations))
    parts |= {loop.condition for loop in loops if loop.rounds is not None}
    return sum(
        rounds.get(computation, 0)
        for computation, _, operation in operations
        if computation not in parts and operation not in _WITHOUT_KERNEL and not operation.endswith("-done")
    )
