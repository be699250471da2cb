"""Speed of attention: `attend_positions`, the plain form with its map, and PyTorch, measured in turn.

    python experiments/benchmarks/attention_speed.py --torch ~/torch/bin/python
    python experiments/benchmarks/attention_speed.py --dtype bfloat16 --images 64    # on a GPU: cuDNN's kernel

The sizes are the paper's: 32x32 and 64x64 positions, pooled, with 256 channels. It prints a line for each size, forward
and with the backward pass: median milliseconds, and the median of the ratio to `attend_positions` in the same round.
PyTorch gets queries and keys unchanged, and padded to the width of the values, which its fastest kernel needs. Every
other round has the reverse order. Both use a GPU if there is one.
"""

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError
from sagan_jax.functional import attend, attend_positions, attention_map

Size = tuple[int, int, int]
"""Images, queries and keys."""

SIZES = {"32x32": (8, 1024, 256), "64x64": (4, 4096, 1024)}
DTYPES = ("float32", "bfloat16")
DEPTH, WIDTH = 32, 128  # of queries and values

# A program for the other process: it reads `kind images queries keys backward` and answers with seconds.
WORKER = f"""
import functools, sys, time, torch
from torch.nn.functional import pad, scaled_dot_product_attention as attention

device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, sys.argv[1])
wait = torch.cuda.synchronize if device == "cuda" else lambda: None

@functools.cache
def operands(images, queries, keys):
    shapes = (queries, {DEPTH}), (keys, {DEPTH}), (keys, {WIDTH})
    return [torch.randn(images, 1, *shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes]

for line in sys.stdin:
    kind, *numbers, backward = line.split()
    q, k, v = operands(*map(int, numbers))
    wait()
    start = time.perf_counter()
    with torch.set_grad_enabled(backward == "1"):
        wide = {WIDTH - DEPTH} if kind == "padded" else 0
        found = attention(pad(q, (0, wide)), pad(k, (0, wide)), v, scale=1.0)
    if backward == "1":
        torch.autograd.grad(found.sum(), (q, k, v))
    wait()
    print(time.perf_counter() - start, flush=True)
"""


def plain(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Computes the attention map explicitly, as `self_attention` does when it returns the map."""
    return attend(attention_map(queries, keys), values)


def ours(form: Callable[..., jax.Array], size: Size, backward: bool, dtype: str) -> Callable[[], float]:
    """Returns a function that runs a form once and returns the seconds."""
    images, queries, keys = size
    shapes = (images, queries, DEPTH), (images, keys, DEPTH), (images, keys, WIDTH)
    operands = [jax.random.normal(jax.random.key(n), shape, dtype) for n, shape in enumerate(shapes)]

    def run(*operands: jax.Array) -> tuple[jax.Array, ...]:
        if not backward:
            return (form(*operands),)
        found, pullback = jax.vjp(form, *operands)
        return found, *pullback(jnp.ones_like(found))

    return functools.partial(timed, jax.jit(run).lower(*operands).compile(), operands)


def timed(program: Callable[..., object], operands: list[jax.Array]) -> float:
    """Returns the seconds of one run."""
    start = time.perf_counter()
    jax.block_until_ready(program(*operands))
    return time.perf_counter() - start


def theirs(worker: subprocess.Popen[str], kind: str, size: Size, backward: bool) -> float:
    """Returns the seconds of one run in the other process.

    Raises:
        InvalidInputError: the process has ended.
    """
    assert worker.stdin
    assert worker.stdout
    with contextlib.suppress(BrokenPipeError):  # the answer is empty then
        os.write(worker.stdin.fileno(), f"{kind} {' '.join(map(str, size))} {int(backward)}\n".encode())
    answer = worker.stdout.readline()
    if not answer:
        raise InvalidInputError("--torch needs a Python with torch; the given one has ended, for the reason above.")
    return float(answer)


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", metavar="PYTHON", help="a Python with PyTorch; without it, PyTorch is left out")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--images", type=int, help="batch size; default 8 and 4, which suit a CPU")
    given = parser.parse_args(arguments)
    for name in ("rounds", "images"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise InvalidInputError(f"--{name} needs at least 1; got {number}.")
    if given.torch is None:
        print_table(given, {})
        return
    command = [given.torch, "-c", WORKER, given.dtype]
    try:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise InvalidInputError(f"--torch needs a Python with torch; {given.torch!r} does not start.") from error
    with worker:
        peers = {f"PyTorch, {kind}": functools.partial(theirs, worker, kind) for kind in ("narrow", "padded")}
        print_table(given, peers)


def rested(take: Callable[[], float]) -> float:
    """Returns the seconds of one run, after a pause in which the threads of the other process stop spinning."""
    time.sleep(0.1)
    return take()


def in_turn(takes: list[Callable[[], float]], *, backwards: bool) -> list[float]:
    """Returns the seconds of one run of each, in reverse order if `backwards`, so that no position is favoured."""
    if backwards:
        return in_turn(takes[::-1], backwards=False)[::-1]
    return [rested(take) for take in takes]


def print_table(given: argparse.Namespace, peers: dict[str, Callable[[Size, bool], float]]) -> None:
    """Prints a line for each size, forward and with the backward pass."""
    names = ["attend_positions", "with its map", *peers]
    print(f"| positions | pass | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for label, (images, queries, keys) in SIZES.items():
        size = given.images or images, queries, keys
        for backward in (False, True):
            takes = [ours(form, size, backward, given.dtype) for form in (attend_positions, plain)]
            takes += [functools.partial(peer, size, backward) for peer in peers.values()]
            for take in takes:
                take()  # the first run also allocates memory
            times = [in_turn(takes, backwards=number % 2 == 1) for number in range(given.rounds)]
            cells = [
                f"{1000 * statistics.median(column):.4g} ms"
                f" ({statistics.median(time / first for time, (first, *_) in zip(column, times, strict=True)):.2f})"
                for column in zip(*times, strict=True)
            ]
            print(f"| {label} | {'both' if backward else 'forward'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "attention_speed"))
