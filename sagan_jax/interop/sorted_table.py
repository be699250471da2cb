"""Reader of sorted string tables, LevelDB's key-value format, which TensorFlow uses for the index of a checkpoint.

Source: google/leveldb:doc/table_format.md and tensorflow/tensorflow:tensorflow/core/lib/io/table.cc.
"""

from collections.abc import Iterator

from sagan_jax.interop.crc32c import masked_crc32c

_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # the compression type and a checksum follow each block
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_MAX_EXPANSION = 16  # keys share prefixes, so together they may be longer than the file


def is_table(content: bytes) -> bool:
    """Returns whether the bytes end like a sorted string table."""
    return len(content) >= _FOOTER_BYTES and content.endswith(_MAGIC)


def read_table(content: bytes) -> dict[bytes, bytes]:
    """Returns the keys and values of a table. Time and memory are proportional to its size.

    Raises:
        ValueError: when it is damaged, compressed, or not a table.
    """
    if not is_table(content):
        raise ValueError("it is incomplete, or no index of a checkpoint: the bytes at its end are others")
    footer = content[-_FOOTER_BYTES:]
    about, position = _handle(footer, 0)
    index, _ = _handle(footer, position)
    _block(content, about)  # the content is not needed, but this detects damage
    found: dict[bytes, bytes] = {}
    key_bytes, block_bytes, last = 0, 0, b""
    for _, handle in _entries(_block(content, index)):
        place, _ = _handle(handle, 0)
        block_bytes += place[1]
        if block_bytes > len(content):
            raise ValueError("it is damaged: its blocks overlap")
        for key, value in _entries(_block(content, place)):
            key_bytes += len(key)
            if (found and key <= last) or key_bytes > _MAX_EXPANSION * len(content):
                raise ValueError("it is damaged: its keys are not sorted")
            found[key] = value
            last = key
    return found


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Returns an integer of up to 64 bits, stored with seven bits per byte, lowest first, and the position after it.

    Raises:
        ValueError: when it ends too early or is longer.

    Examples:
        >>> read_varint(bytes([0xAC, 0x02]), 0)
        (300, 2)
    """
    number = 0
    for place, octet in enumerate(content[position : position + 10]):
        number |= (octet & 0x7F) << 7 * place
        if octet < 0x80 and number < 2**64:
            return number, position + place + 1
    raise ValueError("it is damaged: a number in it does not end")


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Returns the start and the length of a block, and the position after both numbers."""
    start, position = read_varint(content, position)
    size, position = read_varint(content, position)
    return (start, size), position


def _block(content: bytes, place: tuple[int, int]) -> bytes:
    """Verifies the checksum of a block and returns its content."""
    start, size = place
    end = start + size
    if end + _TRAILER_BYTES > len(content):
        raise ValueError("it is damaged: a block lies beyond its end")
    if masked_crc32c(content[start : end + 1]) != int.from_bytes(content[end + 1 : end + _TRAILER_BYTES], "little"):
        raise ValueError("it is damaged: a block has another checksum")
    if content[end]:
        raise ValueError("its blocks are compressed, which TensorFlow does not do to the index of a checkpoint")
    return content[start:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block. A key is stored without the prefix shared with the previous key."""
    restarts = int.from_bytes(block[-4:], "little")
    end, position, key = len(block) - 4 * (restarts + 1), 0, b""
    if end < 0:
        raise ValueError("it is damaged: a block is too short")
    while position < end:
        shared, position = read_varint(block, position)
        added, position = read_varint(block, position)
        size, position = read_varint(block, position)
        if shared > len(key) or position + added + size > end:
            raise ValueError("it is damaged: an entry is longer than its block")
        key = key[:shared] + block[position : position + added]
        yield key, block[position + added : position + added + size]
        position += added + size
