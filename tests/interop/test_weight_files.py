"""Weight files, honest and hostile: what is read, and the one line that everything else ends with."""

import io
import json
import os
import pickle
import re
import struct

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.inception import read_inception
from sagan_jax.interop.inception import published_arrays, published_shapes, to_variables
from sagan_jax.interop.pytorch import check_hash_prefix, hash_prefix, read_pth
from sagan_jax.interop.weight_files import read_arrays, to_safetensors
from support.archives import write_zip
from support.assertions import refusal
from support.commands import command, error_line
from support.pickles import MakesFolder

pytestmark = pytest.mark.one_jax

SMALL = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "layer.count": np.array(7)}


def refused(read, path):
    """Returns the one line that reading the file ends with; it names the file."""
    line = refusal(read, path)
    assert path.name in line
    return line


def write(path, content):
    path.write_bytes(content)
    return path


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def safetensors_file(path, header, data=b""):
    """A file with a header of our own making."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return write(path, struct.pack("<Q", len(header)) + header + data)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_arrays_are_read_as_they_were_written(suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "npz":
        npz(path, **SMALL)
    else:
        write(path, to_safetensors(SMALL, {}))
    read = read_arrays(path).arrays
    assert read.keys() == SMALL.keys()
    for name, array in SMALL.items():
        assert (read[name].dtype, read[name].tolist()) == (array.dtype, array.tolist())


def test_sha256_is_that_of_the_file(tmp_path):
    import hashlib

    path = npz(tmp_path / "weights.npz", **SMALL)
    assert read_arrays(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_metadata_is_read_back(tmp_path):
    path = write(tmp_path / "weights.safetensors", to_safetensors(SMALL, {"source_name": "a.pth"}))
    assert read_arrays(path).metadata["source_name"] == "a.pth"


def test_safetensors_are_read_by_the_package_of_that_name(tmp_path):
    from safetensors.numpy import load_file

    path = write(tmp_path / "weights.safetensors", to_safetensors({"turned": SMALL["layer.weight"].T}, {}))
    np.testing.assert_array_equal(load_file(path)["turned"], SMALL["layer.weight"].T)


def test_half_precision_is_widened(tmp_path):
    (array,) = read_arrays(npz(tmp_path / "a.npz", a=np.array([0.5, 3], np.float16))).arrays.values()
    assert (array.dtype, array.tolist()) == (np.float32, [0.5, 3.0])


def test_bfloat16_is_widened(tmp_path):
    path = safetensors_file(tmp_path / "a.safetensors", entry("BF16", (2,), (0, 4)), struct.pack("<HH", 0x3F80, 0xC040))
    (array,) = read_arrays(path).arrays.values()
    assert (array.dtype, array.tolist()) == (np.float32, [1.0, -3.0])


def test_another_byte_order_is_turned(tmp_path):
    (array,) = read_arrays(npz(tmp_path / "a.npz", a=np.array([1.5, 2], ">f4"))).arrays.values()
    assert (array.dtype.isnative, array.tolist()) == (True, [1.5, 2.0])


@pytest.mark.parametrize("name", ["weights.pkl", "weights", "weights.h5"])
def test_another_suffix_is_refused(name, tmp_path):
    line = refused(read_arrays, write(tmp_path / name, b"x"))
    assert "suffix determines the format. sagan-jax convert reads .pth and .pt too" in line


@pytest.mark.parametrize("name", ["weights.pth", "weights.PT"])
def test_pytorch_files_are_sent_to_convert(name, tmp_path):
    assert "sagan-jax convert" in refused(read_arrays, write(tmp_path / name, b"x"))


def torchscript(path):
    """Writes the entries by which a file of `torch.jit.save` is recognised."""
    names = ("data.pkl", "code/__torch__/networks.py", "constants.pkl", "version")
    return write_zip(path, {f"inception/{name}": b"x" for name in names})


@pytest.mark.parametrize("read", [read_arrays, read_pth])
@pytest.mark.parametrize("name", ["inception-2015-12-05.pt", "network.pth"])
def test_torchscript_is_named_with_the_file_to_take(read, name, tmp_path):
    torchscript(tmp_path / name)
    line = refused(read, tmp_path / name)
    assert "TorchScript archive: a program" in line
    assert "weights-inception-2015-12-05-6726825d.pth, which sagan-jax fetch-weights downloads" in line
    assert "damaged" not in line


def test_torchscript_is_refused_by_convert_and_nothing_is_written(tmp_path, capsys):
    torchscript(tmp_path / "inception-2015-12-05.pt")
    out = tmp_path / "out.safetensors"
    assert command("convert", "--from", "inception", tmp_path / "inception-2015-12-05.pt", out) == 2
    assert "TorchScript" in error_line(capsys)
    assert not out.exists()


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_absent_files_are_refused(suffix, tmp_path):
    assert "no such file" in refused(read_arrays, tmp_path / f"absent.{suffix}")


def test_pipes_are_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    assert "needs to be a regular file" in refused(read_arrays, tmp_path / "pipe.npz")


@pytest.mark.parametrize(("suffix", "words"), [("npz", "not a zip file"), ("safetensors", "header too")])
@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"\x80\x04N.", b"\x93NUMPY" * 40], ids=repr)
def test_other_content_is_refused_for_what_it_is_not(suffix, words, content, tmp_path):
    assert words in refused(read_arrays, write(tmp_path / f"weights.{suffix}", content))


@pytest.mark.parametrize(
    ("suffix", "kept", "words"),
    [
        ("npz", 0.3, "not a zip file"),  # its directory is at the end
        ("npz", 0.999, "not a zip file"),
        ("safetensors", 0.3, "header length"),
        ("safetensors", 0.999, "'layer.weight' needs the bytes up to"),
    ],
)
def test_truncated_files_are_refused_for_what_is_missing(suffix, kept, words, tmp_path):
    path = npz(tmp_path / "a.npz", **SMALL) if suffix == "npz" else tmp_path / "a.safetensors"
    content = path.read_bytes() if suffix == "npz" else to_safetensors(SMALL, {})
    assert words in refused(read_arrays, write(path, content[: int(kept * len(content))]))


@pytest.mark.parametrize(
    ("suffix", "words"),
    [("npz", "CRC-32 for file 'layer.weight.npy'"), ("safetensors", "its arrays differ from those that were written")],
)
def test_a_flipped_bit_in_an_array_is_found(suffix, words, tmp_path):
    path = npz(tmp_path / "a.npz", **SMALL) if suffix == "npz" else tmp_path / "a.safetensors"
    content = bytearray(path.read_bytes() if suffix == "npz" else to_safetensors(SMALL, {}))
    content[content.index(struct.pack("<f", 5.0))] ^= 1  # still a finite number
    assert words in refused(read_arrays, write(path, content))


def test_pickled_arrays_are_refused_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    path = npz(tmp_path / "a.npz", a=np.array([MakesFolder(ran)], object))
    assert "'a' cannot be read: Object arrays cannot be loaded" in refused(read_arrays, path)
    assert not ran.exists()
    with np.load(path, allow_pickle=True) as arrays:
        arrays["a"]
    assert ran.exists()


@pytest.mark.parametrize("name", ["a.pkl", "a.npy"])
def test_pickles_packed_into_a_zip_are_refused_and_not_run(name, tmp_path):
    ran = tmp_path / "ran"
    pickled = pickle.dumps(MakesFolder(ran))
    write_zip(tmp_path / "a.npz", {name: pickled})
    assert f"its entry {name!r} is not a numpy array" in refused(read_arrays, tmp_path / "a.npz")
    assert not ran.exists()
    pickle.loads(pickled)
    assert ran.exists()


def test_header_that_promises_terabytes_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    write_zip(tmp_path / "a.npz", {"a.npy": header.getvalue() + bytes(64)})
    line = refused(read_arrays, tmp_path / "a.npz")
    # On a machine that overcommits memory, numpy gets as far as the end of the file.
    assert "Unable to allocate 4.00 TiB" in line or "EOF: reading array data" in line


def test_zip_that_would_unpack_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sagan_jax.interop.weight_files._EXTRA_BYTES", 0)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(100_000, np.float32))
    assert "far beyond its size" in refused(read_arrays, tmp_path / "a.npz")


ODD = {
    "not finite": {"a": np.array([1, np.nan], np.float32)},
    "no entries": {"a": np.zeros((0, 4), np.float32)},
    "not numeric": {"a": np.array(["words"])},
    "no arrays": {},
}


@pytest.mark.parametrize("reason", ODD)
def test_odd_arrays_are_refused(reason, tmp_path):
    assert reason in refused(read_arrays, npz(tmp_path / "a.npz", **ODD[reason]))


TWO = struct.pack("<ff", 1, 2)
# Header, data, and what the refusal says.
MALFORMED = {
    "nothing in the header": (b"", TWO, "EOF while parsing"),
    "not json": (b"{", TWO, "EOF while parsing"),
    "not an object": (b"[]", TWO, "invalid type: sequence"),
    "unknown type": (entry("F31"), TWO, "unknown variant `F31`"),
    "type without a numpy name": (entry("F8_E4M3", (8,)), TWO, "F8_E4M3"),
    "shape and offsets disagree": (entry(shape=(3,)), TWO, "invalid shape, data type, or offset"),
    "offsets beyond the file": (entry(shape=(4,), offsets=(0, 16)), TWO, "not fully covered"),
    "offsets reversed": (entry(offsets=(8, 0)), TWO, "invalid offset for tensor `a`"),
    "negative shape": (entry(shape=(-2,)), TWO, "integer `-2`"),
    "shape overflows": (entry(shape=(2**32, 2**32)), TWO, "overflow"),
    "hole": (entry(shape=(1,), offsets=(4, 8)), TWO, "invalid offset for tensor `a`"),
    "more data than entries": (entry(shape=(1,), offsets=(0, 4)), TWO, "not fully covered"),
    "empty shape": (entry(shape=(0, 2**40), offsets=(0, 0)), b"", "has no entries: [0, 1099511627776]"),
    "overlap": ({**entry(), "b": entry()["a"]}, TWO, "invalid offset for tensor"),
    "metadata of numbers": ({**entry(), "__metadata__": {"a": 1}}, TWO, "integer `1`, expected a string"),
}


@pytest.mark.parametrize(("header", "data", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_safetensors_are_refused_for_what_is_wrong(header, data, words, tmp_path):
    assert words in refused(read_arrays, safetensors_file(tmp_path / "a.safetensors", header, data))


def test_well_formed_safetensors_of_the_same_making_are_read(tmp_path):
    path = safetensors_file(tmp_path / "a.safetensors", entry(), TWO)
    assert read_arrays(path).arrays["a"].tolist() == [1, 2]


@pytest.mark.parametrize(("kept", "name"), [(40, "b"), (20, "d"), (4, "a")])
def test_safetensors_that_were_cut_are_refused_by_the_first_tensor_that_is_missing(kept, name, tmp_path):
    header, stop = {}, 0
    for tensor, size in (("a", 2), ("d", 4), ("b", 6)):
        header |= {tensor: {"dtype": "F32", "shape": [size], "data_offsets": [stop, stop + 4 * size]}}
        stop += 4 * size
    path = safetensors_file(tmp_path / "a.safetensors", header, bytes(kept))
    start = path.stat().st_size - kept
    needed = start + header[name]["data_offsets"][1]
    assert f"{name!r} needs the bytes up to {needed}, and the file has {start + kept}" in refused(read_arrays, path)


@pytest.mark.parametrize(("length", "words"), [(2**60, "header too large"), (3, "header length")])
def test_safetensors_header_longer_than_the_file_is_refused(length, words, tmp_path):
    assert words in refused(read_arrays, write(tmp_path / "a.safetensors", struct.pack("<Q", length) + b"{}"))


def test_hash_prefix_is_read_off_a_published_name():
    assert hash_prefix("weights-inception-2015-12-05-6726825d.pth") == "6726825d"


@pytest.mark.parametrize("name", ["weights.pth", "weights-6726825d.npz", "weights-6726825.pth", "a-6726825d.pth.npz"])
def test_hash_prefix_of_other_names_is_none(name):
    assert hash_prefix(name) is None


def test_hash_prefix_that_the_file_does_not_have_is_an_error_naming_both():
    with pytest.raises(InvalidInputError, match=r"(?s)starts with 0123abcd.*9999"):
        check_hash_prefix("a-0123abcd.pth", "9999" * 16)


@pytest.fixture(scope="module")
def state_dict():
    """Arrays that fit the FID network, all of one value, so that their file compresses well."""
    return {name: np.full(shape, 0.5, np.float32) for name, shape in published_shapes().items()}


def test_networks_of_the_same_arrays_may_count_their_batches(state_dict):
    given = state_dict | {"Mixed_5b.branch1x1.bn.num_batches_tracked": np.array(3)}
    assert published_arrays(given).keys() == state_dict.keys()


FAULTS = {
    "'fc.bias' is missing": {"fc.bias": None},
    "'AuxLogits.fc.weight' is unknown": {"AuxLogits.fc.weight": np.ones((10, 768), np.float32)},
    "'fc.weight' has [1000, 2048] instead of [1008, 2048]": {"fc.weight": np.ones((1000, 2048), np.float32)},
    "'Conv2d_1a_3x3.bn.running_var' has a negative variance": {
        "Conv2d_1a_3x3.bn.running_var": np.full(32, -1, np.float32)
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_of_another_network_are_refused(fault, state_dict):
    given = {name: array for name, array in (state_dict | FAULTS[fault]).items() if array is not None}
    with pytest.raises(InvalidInputError, match=re.escape(fault)):
        to_variables(given)


def test_only_the_first_few_faults_are_named(state_dict):
    given = {name.replace("Mixed", "mixed"): array for name, array in state_dict.items()}
    with pytest.raises(InvalidInputError, match=r"and \d+ more") as caught:
        to_variables(given)
    assert len(str(caught.value)) < 500


@pytest.fixture(scope="module")
def packed(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "state.npz"
    np.savez_compressed(path, **state_dict)
    return path


@pytest.fixture(scope="module")
def converted(packed):
    """What `convert` makes of a state dict."""
    out = packed.with_name("out.safetensors")
    assert command("convert", "--from", "inception", packed, out) == 0
    return out


def test_convert_keeps_names_and_values(converted, state_dict):
    read = read_arrays(converted).arrays
    assert read.keys() == state_dict.keys()
    assert all((read[name] == array).all() for name, array in state_dict.items())


def test_converted_weights_remember_their_source(converted, packed):
    weights = read_inception(converted)
    source = read_arrays(packed)
    assert (weights.source_name, weights.source_sha256) == ("state.npz", source.sha256)
    assert {source.sha256, weights.sha256} <= set(re.findall("[0-9a-f]{64}", weights.origin))


def test_weights_converted_twice_remember_the_first_source(converted, packed, tmp_path):
    assert command("convert", "--from", "inception", converted, tmp_path / "again.safetensors") == 0
    assert read_arrays(tmp_path / "again.safetensors").metadata["source_name"] == "state.npz"


def test_convert_goes_where_evaluations_look_and_prints_both_hashes(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path))
    assert command("convert", "--from", "inception", packed) == 0
    out = tmp_path / "weights" / "inception-2015-12-05.safetensors"
    hashes = re.findall("[0-9a-f]{64}", capsys.readouterr().out)
    assert hashes == [read_arrays(packed).sha256, read_arrays(out).sha256]


def test_convert_of_another_network_writes_nothing_and_exits_2(tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert command("convert", "--from", "inception", npz(tmp_path / "a.npz", **SMALL), out) == 2
    assert "'Conv2d_1a_3x3.conv.weight' is missing" in error_line(capsys)
    assert not out.exists()


def test_convert_to_another_suffix_exits_2(packed, tmp_path, capsys):
    assert command("convert", "--from", "inception", packed, tmp_path / "out.npz") == 2
    assert ".safetensors" in error_line(capsys)
    assert not (tmp_path / "out.npz").exists()


def test_convert_onto_a_file_in_the_way_of_a_folder_exits_6(packed, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert command("convert", "--from", "inception", packed, tmp_path / "file" / "out.safetensors") == 6
    assert "out.safetensors could not be written" in error_line(capsys)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="these files are written by PyTorch, which few machines have")


@pytest.fixture(params=[True, False], ids=["zip", "sequence"])
def save(request, torch):
    """Writes a .pth file in each of PyTorch's two formats."""

    def write_pth(path, content):
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path

    return write_pth


def test_pth_with_the_wrong_hash_in_its_name_is_refused_before_it_is_parsed(tmp_path):
    assert "starts with 0123abcd" in refused(read_pth, write(tmp_path / "a-0123abcd.pth", b"x"))


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state, "epoch": 3}], ids=["plain", "wrapped"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pth_is_read_as_it_was_written(wrap, prefix, save, torch, tmp_path):
    state = {f"{prefix}a.weight": torch.arange(6.0).reshape(2, 3).T, f"{prefix}a.count": torch.tensor(7)}
    read = read_pth(save(tmp_path / "a.pth", wrap(state))).arrays
    assert {name: array.tolist() for name, array in read.items()} == {
        "a.weight": [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]],
        "a.count": 7,
    }


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_pth_of_half_precision_is_widened(half, save, torch, tmp_path):
    path = save(tmp_path / "a.pth", {"a": torch.tensor([0.5, 3], dtype=getattr(torch, half))})
    (array,) = read_pth(path).arrays.values()
    assert (array.dtype, array.tolist()) == (np.float32, [0.5, 3.0])


def test_pth_of_parameters_is_read(save, torch, tmp_path):
    path = save(tmp_path / "a.pth", {"a": torch.nn.Parameter(torch.tensor([2.0]))})
    assert read_pth(path).arrays["a"].tolist() == [2.0]


def test_pth_with_a_payload_is_refused_and_not_run(save, tmp_path):
    ran = tmp_path / "ran"
    line = refused(read_pth, save(tmp_path / "a.pth", {"a": MakesFolder(ran)}))
    assert "posix.mkdir" in line
    assert not ran.exists()


def test_pth_that_promises_more_than_it_stores_is_refused(save, torch, tmp_path):
    path = save(tmp_path / "a.pth", {"a": torch.zeros(1).as_strided((2**20, 2**20), (0, 0))})
    assert path.stat().st_size < 4096
    assert "stores fewer" in refused(read_pth, path)


def test_pth_of_other_things_is_refused(save, torch, tmp_path):
    odd = [[torch.ones(2)], {"a": 3}, {"state_dict": 3}, {5: torch.ones(2)}, {}, {"a": torch.tensor([np.nan])}]
    for content in [*odd, {"a": torch.zeros(0)}]:
        assert "state dict of finite tensors" in refused(read_pth, save(tmp_path / "a.pth", content))
    for content, name in [
        (torch.ones(2, 2).to_sparse(), "_rebuild_sparse_tensor"),
        (torch.tensor([1j]), "ComplexFloat"),
    ]:
        assert name in refused(read_pth, save(tmp_path / "a.pth", {"a": content}))


@pytest.mark.parametrize("kept", [0, 0.3, 0.99])
def test_pth_that_was_cut_short_is_refused(kept, save, torch, tmp_path):
    path = save(tmp_path / "a.pth", {"a": torch.arange(100.0)})
    content = path.read_bytes()
    line = refused(read_pth, write(path, content[: int(kept * len(content))]))
    assert "incomplete" in line or "before which the file ends" in line


def test_convert_reads_pth_and_the_hash_in_its_name(state_dict, save, torch, tmp_path):
    import hashlib

    path = save(tmp_path / "a.pth", {name: torch.from_numpy(array) for name, array in state_dict.items()})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(tmp_path / f"a-{sha256[:8]}.pth")
    out = tmp_path / "out.safetensors"
    assert command("convert", "--from", "inception", path, out) == 0
    assert read_arrays(out).metadata["source_sha256"] == sha256
