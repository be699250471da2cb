"""Permission bits that bind root too, who may otherwise read and write everything."""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

_VERSION = 0x20080522  # of the capabilities of Linux, in 2 parts of 3 words: effective, permitted, inheritable
_OVERRIDE_BITS = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def permission_bits_bind() -> Iterator[None]:
    """Within the block, this thread may not ignore permission bits. Changes nothing for other users than root."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = struct.pack("Ii", _VERSION, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    effective, *others = struct.unpack("6I", data.raw)
    assert libc.capset(header, struct.pack("6I", effective & ~_OVERRIDE_BITS, *others)) == 0
    try:
        yield
    finally:
        assert libc.capset(header, data.raw) == 0
