"""Handles output without a reader: a closed terminal, or a pipe such as `| head`. Needs only the standard library."""

import os
import select
import sys

_STDOUT_AND_STDERR = (1, 2)


def lost_outputs() -> list[int]:
    """Returns the file descriptors of stdout (1) and stderr (2) that have lost their reader."""
    poll = select.poll()
    for number in _STDOUT_AND_STDERR:
        poll.register(number, 0)
    return [number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]


def drop_lost_outputs() -> None:
    """Redirects lost outputs to the null device, so that printing does not fail."""
    for number in lost_outputs():
        _drop(number)


def flush_outputs() -> None:
    """Flushes stdout and stderr, as Python does at exit. Output that cannot be written is dropped silently."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream.fileno())


def _drop(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
