"""Checks the address of process 0, the coordinator of a run with several processes, before jax uses it."""

import contextlib
import re
import socket
import sys
import time

from sagan_jax.errors import InvalidInputError

_SECONDS_TO_RESOLVE = 30
_SECONDS_TO_CONNECT = 5


def check_coordinator(address: str, process_id: int) -> None:
    """Checks that the address can be used. With a wrong address, jax would wait for minutes, or crash.

    Args:
        address: `host:port`; an IPv6 address is in brackets.
        process_id: 0 for the process that listens there.

    Raises:
        InvalidInputError: the address is malformed or its host does not resolve. Or, in process 0, its port is in use
            or the host is not this machine.
    """
    match = re.fullmatch(r"\[?([^\s\[\]]+)\]?:(\d{1,5})", address)
    if not match or not 0 < int(match[2]) < 2**16:
        raise InvalidInputError(f"--coordinator needs host:port, such as 10.0.0.1:1234; got {address!r}.")
    host, port = match[1], int(match[2])
    _require_resolution(host, port, patient=process_id != 0)
    if process_id == 0:
        _require_this_machine(host, port)


def _require_resolution(host: str, port: int, *, patient: bool) -> None:
    """Refuses a host name that does not resolve. In a cluster, the name of process 0 may resolve only after a while."""
    end = time.monotonic() + (_SECONDS_TO_RESOLVE if patient else 0)
    said = False
    while True:
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() >= end:
                raise InvalidInputError(
                    f"--coordinator needs the host of process 0; {host!r} has no address "
                    f"({getattr(error, 'strerror', None) or error}). Is it spelt right?"
                ) from error
        if not said:
            print(f"waiting for the host of --coordinator: {host!r} has no address yet", file=sys.stderr, flush=True)
            said = True
        time.sleep(1)


def _require_this_machine(host: str, port: int) -> None:
    """Listens at the port for a moment, and connects to the address as the other processes will."""
    try:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise InvalidInputError(
            f"--coordinator needs a free port; process 0 cannot listen at port {port} ({error.strerror}). Give another "
            f"port to all processes. Does an earlier run still use it?"
        ) from error
    with listener, contextlib.ExitStack() as stack:
        listener.settimeout(_SECONDS_TO_CONNECT)
        try:
            stack.enter_context(socket.create_connection((host, port), _SECONDS_TO_CONNECT))
            stack.enter_context(listener.accept()[0])
        except OSError as error:
            raise InvalidInputError(
                f"--coordinator needs an address of the machine that runs process 0; this process is 0, and "
                f"{host!r} does not lead to it."
            ) from error
