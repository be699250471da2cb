"""PyTorch's two formats, read without PyTorch: its own files, odd ones, cut ones, bombs and mutations."""

import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop import restricted_pickle
from sagan_jax.interop.pytorch import read_pth
from sagan_jax.interop.restricted_pickle import NumpyType, read_pickle
from support.archives import write_zip
from support.assertions import refusal
from support.pytorch_files import (
    FORMATS,
    as_sequence,
    as_zip,
    called,
    dictionary,
    instructions,
    looked_up,
    storage,
    tensor,
)

pytestmark = pytest.mark.one_jax

FILES = Path(__file__).parent / "files"
LINE = np.arange(40, dtype=np.float32)
WRITTEN = {
    "transposed": np.array([[0, 3], [1, 4], [2, 5]], np.float32),
    "part": np.array([3, 4, 5, 6], np.float32),
    "steps": np.array([2, 7, 12, 17, 22, 27, 32, 37], np.float32),
    "whole": LINE,
    "scalar": np.array(7),
    "channels_last": np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 5, 7, 3).transpose(0, 3, 1, 2),
    "parameter": np.array([2, -3], np.float32),
    "expanded": np.full((3, 2), 1.5, np.float32),
    **{
        f"dtypes.{name}": np.array([0, 1, 100], name)
        for name in ("float64", "float32", "int64", "int32", "int16", "int8", "uint8")
    },
    "dtypes.float16": np.array([0, 1, 100], np.float32),
    "dtypes.bfloat16": np.array([0, 1, 100], np.float32),
    "dtypes.bool": np.array([False, True, True]),
}
FOUR = np.array([1, 2, 3, 4], np.float32).tobytes()
SMALL = dictionary({"layer.weight": tensor((2, 2), (2, 1))})


def write(path, content):
    path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is written over
    path.write_bytes(content)
    return path


def read(folder, content):
    return read_pth(write(folder / "a.pth", content)).arrays


def refused(folder, content):
    """Returns the one line that reading the content ends with; it names the file."""
    line = refusal(read_pth, write(folder / "a.pth", content))
    assert "a.pth" in line
    return line


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("[st][te]*.pth")))
def test_files_of_torch_save_hold_what_was_saved(name):
    found = read_pth(FILES / name).arrays
    assert found.keys() == WRITTEN.keys()
    for key, array in WRITTEN.items():
        assert (key, found[key].dtype, found[key].tolist()) == (key, array.dtype, array.tolist())


@pytest.mark.parametrize("name", ["norm-zip.pth", "norm-sequence.pth"])
def test_state_dict_of_a_module_may_be_called_model(name):
    found = read_pth(FILES / name).arrays
    assert {key: array.tolist() for key, array in found.items()} == {
        "weight": [1, 1, 1],
        "bias": [0, 0, 0],
        "running_mean": [0, 0, 0],
        "running_var": [1, 1, 1],
        "num_batches_tracked": 0,
    }


def test_archives_without_checksums_are_read():
    assert read_pth(FILES / "unchecked-zip.pth").arrays["a"].tolist() == [1, 2]


def test_scalars_of_an_older_numpy_are_read(tmp_path):
    content = (FILES / "studiogan-sequence.pth").read_bytes()
    assert b"numpy._core.multiarray\n" in content
    older = content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert read(tmp_path, older).keys() == WRITTEN.keys()


def test_nothing_of_torch_is_imported():
    import subprocess
    import sys

    program = "import sys; from sagan_jax.interop.pytorch import read_pth; read_pth(sys.argv[1])"
    program += "; print('torch' in sys.modules)"
    path = FILES / "studiogan-zip.pth"
    found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_numbers_of_numpy_become_plain_numbers():
    values = {"float": np.float64(12.5), "int": np.int32(-4), "half": np.float16(0.5), "truth": np.bool_(True)}
    for protocol in (2, 3, 4, 5):
        found, _ = read_pickle(pickle.dumps(values, protocol))
        assert found == {"float": 12.5, "int": -4, "half": 0.5, "truth": True}
        assert [type(value) for value in found.values()] == [float, int, float, bool]
    assert read_pickle(pickle.dumps(np.dtype(">i2"), 2))[0] == NumpyType("i2", ">")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_are_those_of_pythons_unpickler(protocol):
    shared = [
        1,
        -1,
        255,
        256,
        65536,
        -(2**31),
        2**31,
        2**40,
        -(2**70),
        0.1,
        None,
        True,
        False,
        "",
        "ä∀😀",
        b"",
        b"\x00",
    ]
    value = {"a": shared, "b": (shared, (), (1,), (1, 2), (1, 2, 3), tuple(range(9))), 5: {}, "long": "x" * 300}
    pickled = pickle.dumps(value, protocol)
    if protocol == 2:
        value["a"].remove(b"")  # protocol 2 stores empty bytes as a call
        pickled = pickle.dumps(value, protocol)
    found, position = read_pickle(pickled + b"more")
    assert (found, position) == (pickle.loads(pickled), len(pickled))
    assert found["a"] is found["b"][0]


def test_list_that_holds_itself_is_read():
    value = []
    value.append((value,))
    found, _ = read_pickle(pickle.dumps(value, 2))
    assert found[0][0] is found


@pytest.mark.parametrize("form", FORMATS)
def test_strides_and_offsets_pick_the_entries_that_they_say(form, tmp_path):
    entries = np.random.default_rng(0).normal(size=60).astype(np.float32)
    shape, strides, offset = (2, 3, 4), (31, 2, 7), 3
    body = dictionary({"a": tensor(shape, strides, offset=offset, length=60)})
    found = read(tmp_path, FORMATS[form](body, {"0": entries.tobytes()}))["a"]
    for index in np.ndindex(shape):
        assert found[index] == entries[offset + sum(n * stride for n, stride in zip(index, strides, strict=True))]


@pytest.mark.parametrize("form", FORMATS)
def test_part_of_a_storage_is_counted_from_its_start(form, tmp_path):
    part = tensor((2,), (1,), offset=1, length=10, view=[("whole", 4, 3)])
    entries = np.arange(10, dtype=np.float32)
    assert read(tmp_path, FORMATS[form](dictionary({"a": part}), {"0": entries.tobytes()}))["a"].tolist() == [5, 6]
    beyond = tensor((2,), (1,), offset=2, length=10, view=[("whole", 4, 3)])
    line = refused(tmp_path, FORMATS[form](dictionary({"a": beyond}), {"0": entries.tobytes()}))
    assert "'a' has the shape [2] and needs entry 3 of storage '0', which has 3" in line


def test_byte_order_of_an_archive_is_followed(tmp_path):
    turned = np.frombuffer(FOUR, "<f4").astype(">f4").tobytes()
    found = read(tmp_path, as_zip(SMALL, {"0": turned}, byteorder=b"big"))["layer.weight"]
    assert (found.tolist(), found.dtype.isnative) == ([[1, 2], [3, 4]], True)
    assert read(tmp_path, as_zip(SMALL, {"0": FOUR}, byteorder=b"little"))["layer.weight"].tolist() == [[1, 2], [3, 4]]
    assert "byteorder says b'middle'" in refused(tmp_path, as_zip(SMALL, {"0": FOUR}, byteorder=b"middle"))


def test_untyped_storage_is_read_in_the_dtype_of_the_tensor(tmp_path):
    rest = [instructions(1), instructions((3,)), instructions((1,)), instructions(False)]
    parts = [storage("torch.storage.UntypedStorage", "0", 8), *rest, called("collections.OrderedDict")]
    body = dictionary({"a": called("torch._utils._rebuild_tensor_v3", *parts, looked_up("torch.int16"))})
    assert read(tmp_path, as_zip(body, {"0": struct.pack("<4h", 5, -6, 7, 8)}))["a"].tolist() == [-6, 7, 8]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrappers_and_prefixes_are_taken_off(form, wrapper, tmp_path):
    inner = dictionary({"module.a": tensor((4,), (1,))})
    body = dictionary({"epoch": instructions(3), wrapper: dictionary({"state_dict": inner})})
    assert read(tmp_path, FORMATS[form](body, {"0": FOUR}))["a"].tolist() == [1, 2, 3, 4]


def test_layer_called_model_is_no_wrapper(tmp_path):
    found = read(tmp_path, as_zip(dictionary({"model": tensor((4,), (1,)), "b": tensor((1,), (1,))}), {"0": FOUR}))
    assert found.keys() == {"model", "b"}


# What the refusal says, and the content of the file.
ODD = {
    "not names and tensors": instructions([1, 2]),
    "'a' is not a tensor but a value of type int": dictionary({"a": instructions(3)}),
    "'state_dict' is not a tensor but a value of type int": dictionary({"state_dict": instructions(3)}),
    "it holds a dictionary, not names": b"}" + instructions(5) + tensor((4,), (1,)) + b"s",
    "it holds no arrays": b"}",
    "'a' has no entries: [0, 3]": dictionary({"a": tensor((0, 3), (3, 1))}),
    "'a' twice": dictionary({"a": tensor((4,), (1,)), "module.a": tensor((4,), (1,))}),
    "'a' needs 20 bytes in storage '0'; the file has 16": dictionary({"a": tensor((4,), (1,), length=5)}),
    "needs entry 4 of storage '0', which has 4": dictionary({"a": tensor((4,), (1,), offset=1)}),
    "needs the entry 'archive/data/7'": dictionary({"a": tensor((4,), (1,), key="7")}),
    "a file of": dictionary({"a": tensor((2**20, 2**20), (0, 0))}),
    "stores fewer entries": dictionary({"a": tensor((2**62, 2**62), (2**62, 1))}),
    "impossible shape": dictionary({"a": tensor((-4,), (1,))}),
    "an impossible shape": dictionary({"a": tensor((4,), (-1,), offset=3)}),
    "with an impossible shape": dictionary({"a": tensor((2**63,), (0,))}),
    "a tensor with an impossible shape": dictionary({"a": tensor((2, 2), (1,))}),
    "tensor with an impossible": dictionary({"a": tensor((1,) * 65, (1,) * 65)}),
    "describes a tensor in an unknown way": dictionary({"a": called("torch._utils._rebuild_tensor_v2")}),
    "a parameter in an unknown way": dictionary({"a": called("torch._utils._rebuild_parameter", instructions(3))}),
    "a storage of -4 entries": dictionary({"a": tensor((4,), (1,), length=-4)}),
    "storage in an unknown way": b"(" + instructions("storage") + b"tQ",
    "whole module": b"(" + instructions("module") + b"tQ",
}


@pytest.mark.parametrize("words", ODD)
def test_other_contents_are_refused_for_what_they_are(words, tmp_path):
    assert words in refused(tmp_path, as_zip(ODD[words], {"0": FOUR}))


def test_entries_that_are_not_finite_are_refused(tmp_path):
    line = refused(tmp_path, as_zip(SMALL, {"0": np.array([1, np.nan, 3, 4], np.float32).tobytes()}))
    assert "'layer.weight' has entries that are not finite" in line


def test_storage_that_two_tensors_describe_differently_is_refused(tmp_path):
    body = dictionary({"a": tensor((4,), (1,)), "b": tensor((2,), (1,), kind="torch.DoubleStorage", length=2)})
    assert "storage '0' is described in two ways" in refused(tmp_path, as_sequence(body, {"0": FOUR}))


FOREIGN = {
    "it is empty": b"",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "a web page": b"\n<!DOCTYPE html><html></html>",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a .npy file": b"\x93NUMPY\x01\x00" + bytes(100),
    "unpack it first": b"\x1f\x8b\x08" + bytes(100),
    "a tar archive": bytes(257) + b"ustar" + bytes(300),
    "not one of torch.save": pickle.dumps({"a": 3}),
    "an unknown version": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1002, 2),
    "damaged at byte 0": b"\xffabc",
    "ends too early": b"\x80",
    "File is not a zip file": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("words", FOREIGN)
def test_other_files_are_refused_for_what_they_are(words, tmp_path):
    assert words in refused(tmp_path, FOREIGN[words])


def test_zip_of_other_things_is_refused(tmp_path):
    write_zip(tmp_path / "a.pth", {"weights.npy": b"x"})
    assert "with 0 entries data.pkl" in refusal(read_pth, tmp_path / "a.pth")
    write_zip(tmp_path / "a.pth", {"a/data.pkl": b"x", "b/data.pkl": b"x"})
    assert "with 2 entries data.pkl" in refusal(read_pth, tmp_path / "a.pth")


def test_compressed_entries_are_refused(tmp_path):
    squeezed = as_zip(SMALL, {"0": FOUR}, zipfile.ZIP_DEFLATED)
    assert "it is compressed" in refused(tmp_path, squeezed) or "compressed" in refused(tmp_path, squeezed)
    bomb = as_zip(
        dictionary({"a": tensor((10**7,), (1,), length=10**7)}), {"0": bytes(4 * 10**7)}, zipfile.ZIP_DEFLATED
    )
    assert "compressed" in refused(tmp_path, bomb)


def test_flipped_bit_in_an_archive_is_found(tmp_path):
    content = bytearray(as_zip(SMALL, {"0": FOUR}))
    content[content.index(struct.pack("<f", 3))] ^= 1
    line = refused(tmp_path, bytes(content))
    assert "'layer.weight' needs the entry 'archive/data/0', which is damaged" in line


@pytest.mark.parametrize("name", ["studiogan-zip.pth", "studiogan-sequence.pth", "tensors-sequence.pth"])
def test_every_beginning_of_a_file_is_refused(name, tmp_path):
    content = (FILES / name).read_bytes()
    for length in range(0, len(content), 23):
        assert refused(tmp_path, content[:length])


def test_cut_storage_is_named_with_its_tensor(tmp_path):
    body = dictionary({"a": tensor((4,), (1,)), "b": tensor((4,), (1,), key="1")})
    whole = as_sequence(body, {"0": FOUR, "1": FOUR})
    assert read(tmp_path, whole).keys() == {"a", "b"}
    assert "'b' needs the storage '1', before which the file ends" in refused(tmp_path, whole[:-1])
    assert "'a' needs the storage '0'" in refused(tmp_path, whole[:-25])


def test_cut_storage_of_an_optimiser_is_found_too(tmp_path):
    body = dictionary({"state_dict": SMALL, "optimizer": dictionary({"m": tensor((4,), (1,), key="1")})})
    whole = as_sequence(body, {"0": FOUR, "1": FOUR})
    assert read(tmp_path, whole).keys() == {"layer.weight"}
    assert "ends before its last tensor" in refused(tmp_path, whole[:-1])


LARGE = instructions("x" * 100_000)
# Pickles that want far more time or memory than their size, and what the refusal says.
BOMBS = {
    "integer of 2 GiB": (b"\x8b" + struct.pack("<i", 2**31 - 1), "an integer of 2147483647 bytes"),
    "integer of a negative size": (b"\x8b" + struct.pack("<i", -1), "an integer of -1 bytes"),
    "string of a negative size": (b"T" + struct.pack("<i", -1), "a string of -1 bytes"),
    "bytes of 2**63": (b"\x8e" + struct.pack("<Q", 2**63), "ends too early"),
    "text of 2**64 - 1": (b"\x8d" + struct.pack("<Q", 2**64 - 1), "ends too early"),
    "text of 4 GiB": (b"X" + struct.pack("<I", 2**32 - 1), "ends too early"),
    "frame of 2**64 - 1": (b"\x95" + struct.pack("<Q", 2**64 - 1) + b"N", "not names and tensors"),
    "fifty thousand lists": (b"]" * 50_000 + b"a" * 49_999, "not names and tensors"),
    "fifty thousand tuples": (b")" + b"\x85" * 50_000, "not names and tensors"),
    # Python hashes a tuple again at each place where it occurs, here 2**60 times.
    "hash of tuples of tuples": (b"})" + b"q\x00h\x00\x86" * 60 + b"Ns", "a key of type tuple"),
    "keys of one hash": (b"}" + instructions(2**61 - 1) + b"Ns", "a key of type int"),
    "the same text encoded again and again": (
        LARGE + b"q\x00" + b"".join([b"c_codecs\nencode\nh\x00", instructions("latin1"), b"\x86R"] * 100),
        "takes more than",
    ),
    "the same pairs made a dictionary again and again": (
        b"](" + instructions(("a", 1)) * 1000 + b"eq\x00" + b"ccollections\nOrderedDict\nh\x00\x85R" * 400,
        "takes more than",
    ),
    "dictionary in itself": (
        b"}q\x00" + instructions("state_dict") + b"h\x00s",
        "'state_dict' is not a tensor but a dictionary",
    ),
    "far index of the memo": (b"Nr\xff\xff\xff\xff", "not names and tensors"),
    "mark after mark": (b"(" * 20_000 + b"t" * 20_000, "not names and tensors"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_is_refused_in_memory_of_its_size(bomb, form, tmp_path, monkeypatch):
    monkeypatch.setattr(restricted_pickle, "_MAX_STEPS", 300_000)
    body, words = BOMBS[bomb]
    content = FORMATS[form](body, {})
    tracemalloc.start()
    try:
        assert words in refused(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(content) + 12_000_000
    finally:
        tracemalloc.stop()


def test_pickle_of_too_many_steps_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(restricted_pickle, "_MAX_STEPS", 1000)
    assert "takes more than 1,000 steps" in refused(tmp_path, as_zip(b"N0" * 1000, {}))


def test_small_file_that_shares_its_entries_a_thousand_times_stays_small(tmp_path):
    entries = bytes(4 * 100_000)
    many = dictionary({f"t{n}": tensor((100_000,), (1,), length=100_000) for n in range(1000)})
    tracemalloc.start()
    try:
        assert "stores fewer entries" in refused(tmp_path, as_zip(many, {"0": entries}))
        assert tracemalloc.get_traced_memory()[1] < 20 * len(entries)
    finally:
        tracemalloc.stop()


def test_archive_whose_entries_overlap_is_refused(tmp_path):
    """Two entries of the directory point to the same bytes, so that a small file seems to hold much."""
    content = as_zip(SMALL, {"0": FOUR, "1": bytes(2000)})
    start = content.index(b"PK\x01\x02")
    last = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    again = content[last:end].replace(b"archive/data/1", b"archive/data/2")
    counts = struct.pack("<HHI", 4, 4, end - start + len(again))
    forged = content[:end] + again + content[end : end + 8] + counts + content[end + 16 :]
    with zipfile.ZipFile(write(tmp_path / "b.zip", forged)) as archive:
        assert len(archive.namelist()) == 4
    assert "overlap" in refused(tmp_path, forged)


def mutated(content, chance):
    """Returns the content with a few bytes changed, removed, repeated or swapped."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed))
        kind = chance.randrange(5)
        if kind == 0:
            changed[place] = chance.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[place : place + chance.randint(1, 9)]
        elif kind == 3:
            changed[place:place] = changed[place : place + chance.randint(1, 30)]
        else:
            changed[place : place + 8] = struct.pack("<q", chance.choice([-1, 0, 2**31 - 1, 2**62, 2**63 - 1]))
    return bytes(changed)


@pytest.mark.parametrize("number", [400, pytest.param(5_000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused_in_one_line(number, tmp_path):
    contents = [path.read_bytes() for path in sorted(FILES.glob("*.pth"))]
    chance, ends = random.Random(number), {True: 0, False: 0}
    for _ in range(number):
        path, line, arrays = write(tmp_path / "a.pth", mutated(chance.choice(contents), chance)), "", {}
        try:
            arrays = read_pth(path).arrays
        except InvalidInputError as error:
            line = str(error)
        assert line == "" or line.isprintable()
        assert len(line) < 2000
        assert sum(array.nbytes for array in arrays.values()) < 4 * path.stat().st_size + 2**20
        ends[bool(arrays)] += 1
    assert min(ends.values()) > number / 50
