"""CRC-32C, the checksum in TensorFlow's files, in numpy. It differs from the CRC-32 of zlib."""

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # the Castagnoli polynomial, lowest bit first
_LANE = 1024  # bytes per lane of the vectorised loop
_BLOCK = 2**22  # bytes per block
_MASK = 0xA282EAD8


def crc32c(content: bytes | memoryview) -> int:
    """Returns the CRC-32C of bytes (RFC 3720).

    The register of a CRC is linear over GF(2). So the lanes of a block are processed in parallel and then combined in
    pairs. For A followed by B, the register of A is advanced by as many zero bytes as B has. The register of B is then
    added.

    Examples:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    register, position = 0xFFFFFFFF, 0
    octets = np.frombuffer(content, np.uint8)
    while len(octets) - position >= 2 * _LANE:
        size = min(_BLOCK, 1 << (len(octets) - position).bit_length() - 1)
        moved = _apply(_zeros(size), np.array([register], np.uint32))
        register = int(moved[0] ^ _block_register(octets[position : position + size]))
        position += size
    table = _table().tolist()
    for octet in octets[position:].tolist():
        register = table[(register ^ octet) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked_crc32c(content: bytes | memoryview) -> int:
    """Returns the CRC-32C as TensorFlow stores it: rotated by 15 bits, plus a constant."""
    found = crc32c(content)
    return ((found >> 15 | found << 17) + _MASK) & 0xFFFFFFFF


def _block_register(block: np.ndarray) -> np.uint32:
    """Returns the register after a block, starting from 0. The block size is a power of two, at least two lanes."""
    pairs = np.ascontiguousarray(block.view("<u2").reshape(-1, _LANE // 2).T)
    registers, table = np.zeros(pairs.shape[1], np.uint32), _pair_table()
    for column in pairs:
        registers = table[(registers ^ column) & 0xFFFF] ^ (registers >> 16)
    size = _LANE
    while len(registers) > 1:
        registers = _apply(_zeros(size), registers[::2]) ^ registers[1::2]
        size *= 2
    return registers[0]


def _apply(columns: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """Returns the product of a 32x32 bit matrix with each register."""
    moved = np.zeros_like(registers)
    for bit, column in enumerate(columns):
        moved ^= (registers >> np.uint32(bit) & np.uint32(1)) * column
    return moved


@cache
def _zeros(size: int) -> np.ndarray:
    """Returns the matrix that advances a register by `size` zero bytes, a power of two."""
    if size > 1:
        half = _zeros(size // 2)
        return _apply(half, half)
    basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
    return _table()[basis & 0xFF] ^ (basis >> np.uint32(8))


@cache
def _table() -> np.ndarray:
    """Returns the lookup table for one byte."""
    registers = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        registers = registers >> np.uint32(1) ^ (registers & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return registers


@cache
def _pair_table() -> np.ndarray:
    """Returns the lookup table for two bytes at once."""
    registers = np.arange(2**16, dtype=np.uint32)
    for _ in range(2):
        registers = _table()[registers & 0xFF] ^ (registers >> np.uint32(8))
    return registers
