"""`sagan-jax convert --from dinov2`: what it writes, and what it refuses."""

import numpy as np
import pytest

from sagan_jax.evaluation.dinov2 import default_weights_path, read_dinov2
from sagan_jax.interop.dinov2 import published_shapes
from sagan_jax.interop.weight_files import read_arrays, to_safetensors
from sagan_jax.models.dinov2 import DinoV2
from support.commands import command, error_line
from support.pytorch_files import as_zip, dictionary, tensor

pytestmark = pytest.mark.one_jax

TINY = DinoV2(width=48, depth=2, num_heads=4, hidden=7, patch_size=3, table_side=2)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    shapes = published_shapes(TINY) | {"mask_token": (1, 48)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def file(arrays, tmp_path):
    np.savez(tmp_path / "state.npz", **arrays)
    return tmp_path / "state.npz"


def convert(*arguments):
    return command("convert", "--from", "dinov2", *arguments)


def test_converted_dinov2_keeps_its_arrays_and_says_its_heads(file, arrays, tmp_path, capsys):
    assert convert(file, tmp_path / "out.safetensors", "--num-heads", "4") == 0
    assert "width 48, depth 2, 4 heads and patches of 3 pixels" in capsys.readouterr().out
    found = read_arrays(tmp_path / "out.safetensors").arrays
    assert found.keys() == arrays.keys() - {"mask_token"}
    assert all((found[name] == arrays[name]).all() for name in found)
    weights = read_dinov2(tmp_path / "out.safetensors")
    assert weights.network == TINY
    assert not weights.is_standard
    assert weights.origin == f"state.npz sha256:{read_arrays(file).sha256}"


def test_dinov2_converted_twice_keeps_its_heads_and_its_first_source(file, tmp_path):
    assert convert(file, tmp_path / "once.safetensors", "--num-heads", "4") == 0
    assert convert(tmp_path / "once.safetensors", tmp_path / "twice.safetensors") == 0
    metadata = read_arrays(tmp_path / "twice.safetensors").metadata
    assert (metadata["num_heads"], metadata["source_name"]) == ("4", "state.npz")


def test_pth_of_dinov2_is_read_without_pytorch(tmp_path):
    network = DinoV2(width=64, depth=1, num_heads=1, hidden=2, patch_size=1, table_side=1)
    tensors, storages = {}, {}
    for key, (name, shape) in enumerate(published_shapes(network).items()):
        array = np.random.default_rng(key).normal(size=shape).astype(np.float32)
        strides = tuple(step // 4 for step in array.strides)
        tensors[name] = tensor(shape, strides, key=str(key), length=array.size)
        storages[str(key)] = array.tobytes()
    (tmp_path / "state.pth").write_bytes(as_zip(dictionary(tensors), storages))
    assert convert(tmp_path / "state.pth", tmp_path / "out.safetensors") == 0
    assert read_dinov2(tmp_path / "out.safetensors").network == network


def test_heads_that_weights_do_not_say_are_asked_for(file, tmp_path, capsys):
    assert convert(file, tmp_path / "out.safetensors") == 2
    assert "'state.npz': DINOv2 of width 48 needs a number of heads" in (line := error_line(capsys))
    assert "--num-heads" in line
    assert not (tmp_path / "out.safetensors").exists()


def test_another_size_than_the_standard_needs_a_place_of_its_own(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    assert convert(file, "--num-heads", "4") == 2
    assert "The default place is only for ViT-L/14" in error_line(capsys)
    assert default_weights_path().parent == tmp_path / "cache" / "weights"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_truncated_dinov2_is_refused_in_a_line_and_nothing_is_written(kept, file, tmp_path, capsys):
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    assert convert(file, tmp_path / "out.safetensors", "--num-heads", "4") == 2
    assert "state.npz" in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("stated", ["four", "", "-4", "4.0", "٤"])
def test_heads_in_the_metadata_need_to_be_a_number(stated, arrays, tmp_path, capsys):
    (tmp_path / "state.safetensors").write_bytes(to_safetensors(arrays, {"num_heads": stated}))
    assert convert(tmp_path / "state.safetensors", tmp_path / "out.safetensors") == 2
    assert f"'state.safetensors' needs a number as 'num_heads' in its metadata; got {stated!r}" in error_line(capsys)


def test_inception_that_is_another_network_is_named_with_its_file(file, tmp_path, capsys):
    assert command("convert", "--from", "inception", file, tmp_path / "out.safetensors") == 2
    assert "'state.npz': the FID network needs the 472 arrays" in error_line(capsys)
