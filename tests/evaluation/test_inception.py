"""The FID network, against golden features of torch-fidelity at every size and tap and an independent resize."""

import runpy

import jax
import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import inception
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch, as_clean_fid
from sagan_jax.evaluation.inception import (
    default_weights_path,
    find_weights,
    inception_features,
    inception_taps,
    read_inception,
    resize_like_tensorflow_1,
)
from sagan_jax.evaluation.pillow_resize import bicubic_in_floats
from sagan_jax.interop.inception import published_shapes, to_variables
from sagan_jax.models.inception import FEATURE_LAYERS, average_pool, conv_relu, max_pool, strided_max_pool
from sagan_jax.runtime.cache_folders import weights_folder

SIZES = (32, 128, 299, 350)
WIDTHS = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits_unbiased": 1008, "logits": 1008}


@pytest.fixture(scope="session")
def state_dict(golden):
    """The arrays that the golden features were made with. A rule makes each of them from its name."""
    return runpy.run_path(str(golden / "inception_rule.py"))["state_dict"]()


@pytest.fixture(scope="session")
def weights(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "rule.npz"
    np.savez(path, **state_dict)
    return path


@pytest.fixture(scope="session")
def features(golden, weights):
    """The features that our network gives for the golden images, by the size of the images."""
    with np.load(golden / "inception-features.npz") as file:
        return {size: inception_features(file[f"in/images_{size}"], weights) for size in SIZES}


@pytest.fixture(scope="session")
def expected(golden):
    with np.load(golden / "inception-features.npz") as file:
        return dict(file)


@pytest.mark.parametrize("tap", FEATURE_LAYERS)
@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_the_published_network(size, tap, features, expected):
    wanted = expected[f"out/{size}/{tap}"]
    np.testing.assert_allclose(features[size][tap], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("tap", FEATURE_LAYERS)
def test_features_are_float32_of_the_width_in_the_name(tap, features):
    assert (features[32][tap].dtype, features[32][tap].shape) == (np.float32, (4, WIDTHS[tap]))


def test_features_come_in_the_order_of_the_taps(features):
    assert tuple(features[32]) == FEATURE_LAYERS


def test_logits_differ_from_the_unbiased_ones_by_the_biases(features, state_dict):
    difference = features[32]["logits"] - features[32]["logits_unbiased"]
    np.testing.assert_allclose(difference, np.tile(state_dict["fc.bias"], (4, 1)), atol=1e-5)


def test_features_of_an_image_do_not_depend_on_its_batch(features, weights, expected):
    images = expected["in/images_32"][[2, 0, 1]]
    in_twos = inception_features(images, weights, batch_size=2)
    for tap in FEATURE_LAYERS:
        wanted = features[32][tap][[2, 0, 1]]
        np.testing.assert_allclose(in_twos[tap], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_resize_treats_both_axes_alike():
    images = np.random.default_rng(0).integers(0, 256, (1, 5, 8, 3), dtype=np.uint8)
    turned = resize_like_tensorflow_1(images.swapaxes(1, 2), 11).swapaxes(1, 2)
    np.testing.assert_allclose(resize_like_tensorflow_1(images, 11), turned, atol=1e-4)


def resize_by_scalars(image, size):
    """TensorFlow 1's bilinear resize of one channel, pixel by pixel. Coordinates are float32, all else is float64."""
    height, width = image.shape
    scales = np.float32(height / size), np.float32(width / size)
    result = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            y, x = (float(np.float32(place) * scale) for place, scale in zip((row, column), scales, strict=True))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            up = float(image[top, left]) * (1 - (x - left)) + float(image[top, right]) * (x - left)
            down = float(image[bottom, left]) * (1 - (x - left)) + float(image[bottom, right]) * (x - left)
            result[row, column] = up * (1 - (y - top)) + down * (y - top)
    return result


@pytest.mark.parametrize("sides", [(5, 8), (1, 2), (13, 7), (31, 23), (11, 11)])
def test_resize_is_that_of_tensorflow_1(sides):
    images = np.random.default_rng(1).integers(0, 256, (2, *sides, 3), dtype=np.uint8)
    resized = np.asarray(resize_like_tensorflow_1(images, 11))
    for image, ours in zip(images, resized, strict=True):
        for channel in range(3):
            np.testing.assert_allclose(ours[..., channel], resize_by_scalars(image[..., channel], 11), atol=2e-4)


def test_resize_takes_its_places_in_float32():
    """With coordinates in float64, the result differs by up to 0.012 grey levels."""
    board = 255 * (np.indices((32, 32)).sum(axis=0) % 2).astype(np.uint8)
    places = np.arange(299, dtype=np.float32) * np.float32(32 / 299)
    low = places.astype(int)
    high, share = np.minimum(low + 1, 31), (places - low.astype(np.float32)).astype(float)
    columns = board[:, low] + (board[:, high].astype(float) - board[:, low]) * share
    wanted = columns[low] + (columns[high] - columns[low]) * share[:, None]
    resized = resize_like_tensorflow_1(np.repeat(board[None, ..., None], 3, axis=3), 299)
    np.testing.assert_allclose(resized[0, ..., 1], wanted, rtol=0, atol=1e-4)


def test_resize_to_the_same_size_changes_nothing():
    images = np.random.default_rng(2).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_like_tensorflow_1(images, 9), images)


def windows_by_scalars(channel, combine, stride, border):
    """Combines the 3x3 windows of one channel, which are cut off at the borders."""
    rows, columns = channel.shape
    places = [range(0 if border else 1, side if border else side - 1, stride) for side in (rows, columns)]
    return [
        [combine(channel[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].astype(float)) for x in places[1]]
        for y in places[0]
    ]


@pytest.mark.parametrize(
    ("pool", "combine", "stride", "border"),
    [(average_pool, np.mean, 1, True), (max_pool, np.max, 1, True), (strided_max_pool, np.max, 2, False)],
)
def test_pools_ignore_pixels_beyond_the_border(pool, combine, stride, border):
    x = np.random.default_rng(3).standard_normal((2, 5, 9, 4)).astype(np.float32) - 5  # padded zeros would win
    pooled = np.asarray(pool(x))
    for n in range(2):
        for c in range(4):
            wanted = windows_by_scalars(x[n, :, :, c], combine, stride, border)
            np.testing.assert_allclose(pooled[n, :, :, c], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("sides", "window", "strides"), [((9, 8), (3, 3), 1), ((9, 8), (3, 3), 2), ((7, 9), (1, 3), 1)]
)
def test_valid_convolution_is_the_plain_one(sides, window, strides):
    """Our layer computes it in another, faster way."""
    import flax.linen as nn

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return conv_relu(x, "layer", 6, window, strides=strides, padding="VALID")

    x = jax.random.normal(jax.random.key(0), (2, *sides, 5))
    variables = Layer().init(jax.random.key(1), x)
    plain = nn.relu(nn.Conv(6, window, strides, "VALID").apply({"params": variables["params"]["layer"]}, x))
    np.testing.assert_allclose(Layer().apply(variables, x), plain, atol=1e-5)


def test_names_and_shapes_that_the_network_needs_are_the_published_ones(state_dict):
    assert published_shapes() == {name: array.shape for name, array in state_dict.items()}


def test_taps_are_shaped_like_the_features_before_anything_is_computed(state_dict):
    images = jax.ShapeDtypeStruct((3, 40, 50, 3), np.uint8)
    shapes = jax.eval_shape(inception_taps, to_variables(state_dict), images)
    assert {tap: leaf.shape for tap, leaf in shapes.items()} == {tap: (3, WIDTHS[tap]) for tap in FEATURE_LAYERS}


BATCHES = [
    np.zeros((2, 8, 8, 3), np.float32),
    np.zeros((2, 8, 8, 1), np.uint8),
    np.zeros((8, 8, 3), np.uint8),
    np.zeros((0, 8, 8, 3), np.uint8),
    np.zeros((2, 0, 8, 3), np.uint8),
]


@pytest.mark.parametrize("images", BATCHES, ids=lambda images: f"{images.dtype}{images.shape}")
def test_features_refuse_images_of_another_shape_or_dtype(images, weights):
    with pytest.raises(InvalidInputError, match=r"needs images \[N, H, W, 3\] of uint8"):
        inception_features(images, weights)


def test_features_refuse_a_batch_size_of_zero(weights):
    with pytest.raises(InvalidInputError, match="batch_size of at least 1"):
        inception_features(np.zeros((2, 8, 8, 3), np.uint8), weights, batch_size=0)


def test_weights_are_read_once(weights, monkeypatch):
    first = read_inception(weights)
    monkeypatch.setattr(inception, "read_arrays", None)
    assert read_inception(str(weights)) is first


def test_weights_that_changed_are_read_again(state_dict, tmp_path):
    path = tmp_path / "weights.npz"
    hashes = []
    for bias in (0.0, 1.0):
        np.savez(path, **state_dict | {"fc.bias": np.full(1008, bias, np.float32)})
        hashes.append(read_inception(path).sha256)
    assert hashes[0] != hashes[1]


def test_batch_norms_are_folded_as_the_formula_says(state_dict):
    name, kernel = "Mixed_6c.branch7x7_2", to_variables(state_dict)["params"]["Mixed_6c"]["branch7x7_2"]
    x = np.random.default_rng(4).standard_normal(160)
    mean, variance, gain, shift = (
        state_dict[f"{name}.bn.{part}"].astype(float) for part in ("running_mean", "running_var", "weight", "bias")
    )
    column = state_dict[f"{name}.conv.weight"][:, :, 0, 5].astype(float)  # (out, in), at column 5 of 7
    wanted = (column @ x - mean) / np.sqrt(variance + 1e-3) * gain + shift
    np.testing.assert_allclose(x @ kernel["kernel"][0, 5] + kernel["bias"], wanted, atol=1e-5)


def test_weights_default_to_those_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path))
    assert find_weights() is None
    default_weights_path().parent.mkdir()
    default_weights_path().touch()
    assert find_weights() == tmp_path / "weights" / "inception-2015-12-05.safetensors"


def test_named_weights_that_are_absent_are_an_error(tmp_path):
    with pytest.raises(InvalidInputError, match="fetch-weights"):
        find_weights(tmp_path / "absent.npz")


FOLDERS = [
    ({"SAGAN_JAX_CACHE": "/a", "XDG_CACHE_HOME": "/x"}, "/a/weights"),
    ({"SAGAN_JAX_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/sagan_jax/weights"),
    ({"XDG_CACHE_HOME": "/x"}, "/x/sagan_jax/weights"),
    ({}, "/home/me/.cache/sagan_jax/weights"),
]


@pytest.mark.parametrize(("environment", "expected"), FOLDERS)
def test_weights_folder_is_that_of_the_environment(environment, expected, monkeypatch):
    for variable in ("SAGAN_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(variable, value)
    assert str(weights_folder()) == expected


def test_clean_images_reach_the_network_as_clean_fid_scales_them(monkeypatch):
    class Pixels:
        def apply(self, variables, images):
            return {"2048": variables * images[:, 7], "logits_unbiased": images[:, 7, :5]}

    monkeypatch.setattr("sagan_jax.models.inception.Inception", Pixels)
    network = Embedding("inception", "plain", inception_taps, np.float32(2), 2048)
    images = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), np.uint8)
    ((outputs, _),) = as_clean_fid(network)([ImageBatch(images, np.zeros(2, np.int32))])
    wanted = (bicubic_in_floats(images, 299)[:, 7] - 128) / 128
    np.testing.assert_allclose(outputs["features"], 2 * wanted, atol=1e-6)
    np.testing.assert_allclose(outputs["logits_unbiased"], wanted[:, :5], atol=1e-6)
