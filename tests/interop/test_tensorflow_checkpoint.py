"""Checkpoints of TensorFlow 1, read without TensorFlow: those of its Saver, odd ones, damaged ones and mutations."""

import random
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.crc32c import crc32c, masked_crc32c
from sagan_jax.interop.official import IGNORED
from sagan_jax.interop.sorted_table import read_table
from sagan_jax.interop.tensorflow_checkpoint import checkpoint_prefix, read_checkpoint
from support.assertions import refusal
from support.tensorflow_checkpoints import MAGIC, block, entry, field, header, table, varint, write_checkpoint

pytestmark = pytest.mark.one_jax

FILES = Path(__file__).parent / "files"
# What `make_tensorflow.py` saved; half precision is widened.
WRITTEN = {
    "model/linear/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model/linear/w/Adam": np.full((2, 3), 0.25, np.float32),
    "model/scalar": np.float32(-1.5),
    "half": np.array([0.5, 3], np.float32),
    "brain": np.array([1, -3], np.float32),
    "double": np.array([[1e300], [-2.5]]),
    "counts/int64": np.array([2**40, -1]),
    "counts/int32": np.array([-(2**30)], np.int32),
    "counts/int16": np.array([-300], np.int16),
    "counts/int8": np.array([-3], np.int8),
    "counts/uint8": np.array([250], np.uint8),
    "flags": np.array([True, False, True]),
    "global_step": np.array(7),
}
SMALL = {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "b/w": np.float32(5)}
NAMES = ["tiny.ckpt-7", "tiny.ckpt-7.index", "tiny.ckpt-7.data-00000-of-00001", "tiny.ckpt-7.meta"]


@pytest.fixture
def small(tmp_path):
    """The prefix of a small checkpoint that a test may damage."""
    return write_checkpoint(tmp_path / "model.ckpt-5", SMALL)


def index_of(prefix):
    return prefix.with_name(f"{prefix.name}.index")


def data_of(prefix):
    return prefix.with_name(f"{prefix.name}.data-00000-of-00001")


def refused(prefix):
    line = refusal(read_checkpoint, prefix)
    assert prefix.name in line
    return line


@pytest.mark.parametrize("name", NAMES)
def test_files_of_a_saver_hold_what_was_saved(name):
    read = read_checkpoint(FILES / name)
    assert read.arrays.keys() == WRITTEN.keys()
    for key, array in WRITTEN.items():
        assert (key, read.arrays[key].dtype, read.arrays[key].tolist()) == (key, array.dtype, array.tolist())


def test_checkpoint_is_known_by_its_index():
    import hashlib

    read = read_checkpoint(FILES / "tiny.ckpt-7")
    assert read.name == "tiny.ckpt-7.index"
    assert read.sha256 == hashlib.sha256((FILES / "tiny.ckpt-7.index").read_bytes()).hexdigest()


def test_sharded_checkpoint_with_several_blocks_is_read():
    found = read_checkpoint(FILES / "many.ckpt-3").arrays
    names = [f"scope_{n % 7}/layer_{n:03}/a_long_name/w" for n in range(150)]
    assert sorted(found) == sorted(names)
    assert all(found[name].tolist() == [n, -n, n * 0.5] for n, name in enumerate(names))
    assert 7 < (FILES / "many.ckpt-3.index").read_bytes().count(b"scope_") < 150  # keys start anew several times


def test_written_checkpoint_is_read(small):
    found = read_checkpoint(small).arrays
    assert {name: array.tolist() for name, array in found.items()} == {"a/w": [[0, 1, 2], [3, 4, 5]], "b/w": 5}


def test_variables_of_the_optimiser_are_not_read(small):
    found = read_checkpoint(FILES / "tiny.ckpt-7", ignored=IGNORED).arrays
    assert WRITTEN.keys() - found.keys() == {"model/linear/w/Adam", "global_step"}
    content = bytearray((FILES / "tiny.ckpt-7.data-00000-of-00001").read_bytes())
    content[content.index(struct.pack("<f", 0.25))] ^= 1
    shutil.copy(FILES / "tiny.ckpt-7.index", index_of(small))
    data_of(small).write_bytes(content)
    assert read_checkpoint(small, ignored=IGNORED).arrays.keys() == found.keys()
    assert "'model/linear/w/Adam' has another checksum" in refused(small)


def test_text_is_passed_over(small):
    entries = {b"": header(), b"_CHECKPOINTABLE_OBJECT_GRAPH": field(1, 7) + field(5, 99), b"b": entry(np.ones(2), 0)}
    index_of(small).write_bytes(table(entries))
    data_of(small).write_bytes(np.ones(2).tobytes())
    assert read_checkpoint(small).arrays.keys() == {"b"}


def test_prefix_is_read_off_each_name(tmp_path):
    for name in NAMES:
        assert checkpoint_prefix(tmp_path / name) == tmp_path / "tiny.ckpt-7"
    assert checkpoint_prefix(tmp_path / "model.ckpt") == tmp_path / "model.ckpt"
    (tmp_path / "other.index").touch()
    assert checkpoint_prefix(tmp_path / "other") == tmp_path / "other"
    for name in ("weights.npz", "G.pth", "absent", "a.ckpt.npz"):
        assert checkpoint_prefix(tmp_path / name) is None


@pytest.mark.parametrize("size", [0, 1, 9, 1023, 2047, 2048, 2049, 5000, 65536, 3 * 2**20 + 77])
def test_checksum_is_that_of_a_loop_over_bits(size):
    """The definition of RFC 3720, by a table that is made bit by bit. `123456789` has a known sum."""
    content = np.random.default_rng(size).bytes(size)
    table_of = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
        table_of.append(octet)
    register = 0xFFFFFFFF
    for octet in content:
        register = table_of[(register ^ octet) & 255] ^ register >> 8
    assert crc32c(content) == register ^ 0xFFFFFFFF
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_absent_files_are_named(small, tmp_path):
    assert "needs its file 'none.ckpt-1.index', which does not exist" in refused(tmp_path / "none.ckpt-1")
    data_of(small).unlink()
    assert "needs its file 'model.ckpt-5.data-00000-of-00001', which does not exist; it holds 'a/w'" in refused(small)


def test_checkpoint_in_one_file_is_named_for_what_it_is(small):
    index_of(small).rename(small)
    assert "a checkpoint of TensorFlow before 0.12" in refused(small)


def test_cut_data_name_the_variable(small):
    data_of(small).write_bytes(data_of(small).read_bytes()[:-1])
    assert "'b/w' needs the bytes up to 28 of model.ckpt-5.data-00000-of-00001, which has 27" in refused(small)


@pytest.mark.parametrize("place", [0, 23, 24, 27])
def test_flipped_bit_in_the_data_names_the_variable(place, small):
    content = bytearray(data_of(small).read_bytes())
    content[place] ^= 4
    data_of(small).write_bytes(content)
    assert f"{'a/w' if place < 24 else 'b/w'!r} has another checksum than the index says" in refused(small)


def test_entries_that_are_not_finite_are_refused(small):
    write_checkpoint(small, {"a": np.array([1, np.inf], np.float32)})
    assert "'a' has entries that are not finite" in refused(small)


def test_every_beginning_of_an_index_is_refused(small):
    whole = (FILES / "many.ckpt-3.index").read_bytes()
    for length in range(0, len(whole), 41):
        index_of(small).write_bytes(whole[:length])
        assert "is incomplete, or no index" in refused(small)


ONE = {b"": header()}
HERE = entry(np.ones(2, np.float32), 0)
# What the refusal says, and the index.
ODD = {
    "its header is missing": table({b"a": HERE}),
    "it is big-endian": table({b"": header(1, field(2, 1)), b"a": HERE}),
    "number of data files is damaged": table({b"": header(0), b"a": HERE}),
    "it holds no arrays": table(ONE),
    "'a' is stored in slices": table({**ONE, b"a": HERE + field(7, b"")}),
    "'a' has TensorFlow's dtype 8, which is not a real number": table({**ONE, b"a": field(1, 8)}),
    "'a' has TensorFlow's dtype 0": table({**ONE, b"a": b""}),
    "and needs 12 bytes; the index says 8": table({**ONE, b"a": HERE + field(2, field(2, field(1, 3)))}),
    "and needs 4 bytes; the index says 8": table({**ONE, b"a": HERE + field(2, b"")}),
    "'a' has an axis of unknown size": table({**ONE, b"a": field(2, field(2, field(1, 2**64 - 1)))}),
    "'a' has no shape": table({**ONE, b"a": field(2, field(3, 1))}),
    "'a' is listed in a data file that": table({**ONE, b"a": entry(np.ones(2), 0, shard=1)}),
    "'b' overlaps": table({**ONE, **{bytes([place]): entry(np.arange(6.0), 0) for place in b"abcd"}}),
    "needs the bytes up to": table({**ONE, b"a": entry(np.ones(2), 2**63)}),
    "a field is longer than its entry": table({**ONE, b"a": varint(2 << 3 | 2) + varint(99)}),
    "a field of an unknown type": table({**ONE, b"a": varint(2 << 3 | 3)}),
    "a number in it does not end": table({**ONE, b"a": b"\xff" * 20}),
    "its keys are not sorted": table({**ONE, b"b": HERE, b"a": HERE}),
    "its blocks are compressed": table({**ONE, b"a": HERE}, kind=1),
    "the bytes at its end are others": b"x" * 100,
    "a block lies beyond its end": block({}) + (varint(0) + varint(8) + varint(2**40) + varint(9)).ljust(40) + MAGIC,
}


@pytest.mark.parametrize("words", ODD)
def test_other_indices_are_refused_for_what_is_wrong(words, small):
    index_of(small).write_bytes(ODD[words])
    data_of(small).write_bytes(np.arange(6.0).tobytes())
    assert words in refused(small)


def test_flipped_bit_in_an_index_is_found(small):
    whole = index_of(small).read_bytes()
    for place in range(len(whole) - 48):  # a footer follows: places of blocks, and unused zeros
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        index_of(small).write_bytes(content)
        assert "damaged" in refused(small)


def handles(places):
    """An index whose blocks are all the same one, without entries and with a long list of restarts."""
    made = bytes(4000) + struct.pack("<I", 1000) + b"\x00"
    made += struct.pack("<I", masked_crc32c(made))
    index = block({bytes([1, n // 250, n % 250]): varint(0) + varint(len(made) - 5) for n in range(places)})
    content = made + block({}) + index
    ends = varint(len(made)) + varint(8) + varint(len(content) - len(index)) + varint(len(index) - 5)
    return content + ends.ljust(40, b"\x00") + MAGIC


def growing_keys(number):
    """Each key is one byte longer than the one before, so all keys together grow with the square of their number."""
    return table({b"": header(), **{b"a" * n: b"" for n in range(1, number)}}, per_block=number)


@pytest.mark.parametrize(("bomb", "words"), [(handles(1000), "overlap"), (growing_keys(3000), "not sorted")])
def test_index_that_repeats_itself_is_refused_in_memory_of_its_size(bomb, words, small):
    index_of(small).write_bytes(bomb)
    tracemalloc.start()
    try:
        assert words in refused(small)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(bomb) + 8_000_000
    finally:
        tracemalloc.stop()


def mutated(content, chance):
    """Returns the content with a few bytes changed, removed or repeated."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        if not changed:
            break
        place = chance.randrange(len(changed))
        kind = chance.randrange(4)
        if kind == 0:
            changed[place] = chance.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[place : place + chance.randint(1, 5)]
        else:
            changed[place:place] = changed[place : place + chance.randint(1, 9)]
    return bytes(changed)


def with_sums(content):
    """Returns an index whose blocks were changed, with checksums that fit, so that the change is read."""
    entries = read_table((FILES / "tiny.ckpt-7.index").read_bytes())
    chance = random.Random(content)
    for key in chance.sample(sorted(entries), 2):
        entries[key] = mutated(entries[key], chance)
    return table(entries, per_block=5)


@pytest.mark.parametrize("number", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_mutated_checkpoints_are_read_or_refused_in_one_line(number, small):
    index, data = (FILES / "tiny.ckpt-7.index").read_bytes(), (FILES / "tiny.ckpt-7.data-00000-of-00001").read_bytes()
    chance, ends = random.Random(number), {True: 0, False: 0}
    for turn in range(number):
        kind = turn % 3
        for path in (index_of(small), data_of(small)):
            path.unlink()  # some file systems wait for the disk when a file is written over
        index_of(small).write_bytes((index, mutated(index, chance), with_sums(turn))[kind])
        data_of(small).write_bytes(mutated(data, chance) if kind == 0 else data)
        line, arrays = "", {}
        try:
            arrays = read_checkpoint(small).arrays
        except InvalidInputError as error:
            line = str(error)
        assert line == "" or line.isprintable()
        assert len(line) < 2000
        assert sum(array.nbytes for array in arrays.values()) < 4 * len(data)
        ends[bool(arrays)] += 1
    assert min(ends.values()) > number / 200  # both ends are seen; checksums find nearly every change
