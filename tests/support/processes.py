"""Helpers for tests of several processes."""

import socket


def free_port() -> int:
    """Returns a port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
