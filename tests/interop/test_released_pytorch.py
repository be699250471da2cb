"""Networks that others trained in PyTorch: their weights and outputs, and weights that do not belong together."""

import re

import numpy as np
import pytest

from sagan_jax import interop
from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.networks import IDENTITY, TRANSPOSED, Layout
from sagan_jax.interop.state_dicts import CONVOLUTION, DECONVOLUTION, channels_last_layout, left_vector_layout
from support.assertions import refusal

FILES = {
    "studiogan-sagan-32": "studiogan",
    "studiogan-sagan-128": "studiogan",
    "studiogan-dcgan-32": "studiogan",
    "biggan-128": "biggan-pytorch",
}


def read(golden, name):
    with np.load(golden / f"{name}.npz") as file:
        vectors = {key: file[key] for key in file.files}
    return vectors, {key: array for key, array in vectors.items() if key.startswith(("generator/", "discriminator/"))}


def large_is_slow(name):
    return pytest.param(name, marks=[pytest.mark.slow] * name.endswith("128"))


@pytest.fixture(scope="module", params=map(large_is_slow, FILES))
def released(request, golden):
    vectors, arrays = read(golden, request.param)
    return vectors, arrays, interop.load(FILES[request.param], arrays), FILES[request.param]


@pytest.fixture(scope="module", params=map(large_is_slow, ["studiogan-sagan-32", "studiogan-dcgan-32", "biggan-128"]))
def weights(request, golden):
    return FILES[request.param], read(golden, request.param)[1]


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


def test_released_generator_draws_the_same_images(released):
    vectors, _, networks, _ = released
    images = networks.generate(vectors["in/z"], vectors["in/labels"])
    assert np.abs(images - nhwc(vectors["out/fake_eval_nchw"])).max() < 1e-4


@pytest.mark.parametrize("which", ["real", "fake"])
def test_released_discriminator_gives_the_same_logits(released, which):
    vectors, _, networks, _ = released
    images = vectors["in/images_nchw" if which == "real" else "out/fake_eval_nchw"]
    logits = networks.discriminate(nhwc(images), vectors["in/labels"])
    assert np.abs(logits - vectors[f"out/{which}_logits"]).max() < 1e-4


def test_every_array_leads_back_to_its_name_and_layout(released):
    _, arrays, networks, _ = released
    back = {}
    for variables in (networks.generator_variables, networks.discriminator_variables):
        for collection in ("params", "batch_stats", "spectral"):
            back |= networks.source_names(variables.get(collection, {}))
    left_out = {name for name in arrays if name.endswith(("num_batches_tracked", "sv0"))}
    assert back.keys() == arrays.keys() - left_out
    assert [name for name in back if not np.array_equal(back[name], arrays[name])] == []


def test_generator_alone_draws_the_same_and_says_that_there_is_no_discriminator(released):
    vectors, arrays, networks, source = released
    alone = interop.load(source, {name: array for name, array in arrays.items() if name.startswith("generator/")})
    latents, labels = vectors["in/z"], vectors["in/labels"]
    assert np.array_equal(alone.generate(latents, labels), networks.generate(latents, labels))
    with pytest.raises(InvalidInputError, match="these weights have only a generator"):
        alone.discriminate(nhwc(vectors["in/images_nchw"]), labels)


def test_what_is_no_weight_and_the_prefix_of_several_devices_change_nothing(released):
    vectors, arrays, networks, source = released
    others = {name.replace("/", "/module.", 1): array for name, array in arrays.items()}
    others |= {f"generator/{name}": np.ones(1) for name in ("num_batches_tracked", "linear.sv1", "global_step")}
    images = interop.load(source, others).generate(vectors["in/z"], vectors["in/labels"])
    assert np.array_equal(images, networks.generate(vectors["in/z"], vectors["in/labels"]))


@pytest.mark.parametrize("spelling", ["0.3", "2d"])
def test_dcgan_is_read_in_every_spelling(golden, spelling):
    vectors, arrays = read(golden, "studiogan-dcgan-32")
    if spelling == "0.3":
        names = {"discriminator/conv1.": "discriminator/conv.", "discriminator/bn1.": "discriminator/bn."}
    else:
        names = {".deconv0": ".deconv2d0", ".conv0": ".conv2d0", ".conv1": ".conv2d1", "/conv": "/conv2d"}
    renamed = {}
    for name, array in arrays.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = array
    assert renamed.keys() != arrays.keys()
    logits = interop.load("studiogan", renamed).discriminate(nhwc(vectors["in/images_nchw"]), None)
    assert np.abs(logits - vectors["out/real_logits"]).max() < 1e-4


def layer_of(name):
    """Returns the layer of a tensor. An error may name the bias of a layer whose weight has changed."""
    return re.match(r"blocks\.\d+\.\d+\.\w+|\w+", name.split("/", 1)[1])[0]


def test_missing_tensor_is_named_or_another_of_its_layer(weights):
    source, arrays = weights
    # Without the shared embedding, the file is of another kind of network. Then the refusal names other tensors.
    left_out = ("num_batches_tracked", "sv0", "u0", "shared.weight")
    needed = [name for name in arrays if not name.endswith(left_out)]
    for name in needed[::7]:
        rest = {other: array for other, array in arrays.items() if other != name}
        assert layer_of(name) in refusal(interop.load, source, rest), name


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_unknown_tensor_is_named(weights, network):
    source, arrays = weights
    with pytest.raises(InvalidInputError, match=f"no place for the variable '{network}/mapping.weight'"):
        interop.load(source, arrays | {f"{network}/mapping.weight": np.ones(3, np.float32)})


@pytest.mark.slow
@pytest.mark.one_jax
def test_shape_that_contradicts_the_others_is_named(weights):
    source, arrays = weights
    shaped = [(name, array) for name, array in arrays.items() if array.size > 1]
    for name, array in shaped[::7]:
        changed = arrays | {name: array[:-1] if array.shape[0] > 1 else array[:, :-1]}
        # The size of an embedding is the number of classes of both networks, so the refusal names that.
        said = "number of classes" if layer_of(name) in ("shared", "embed", "embedding") else layer_of(name)
        assert said in refusal(interop.load, source, changed), name


def test_weights_of_another_code_base_are_refused(golden):
    _, arrays = read(golden, "biggan-128")
    for source, others in (("studiogan", arrays), ("biggan-pytorch", read(golden, "studiogan-sagan-32")[1])):
        with pytest.raises(InvalidInputError, match="needs"):
            interop.load(source, others)
    with pytest.raises(InvalidInputError, match="needs"):
        interop.load("studiogan", {})


def test_networks_of_two_sizes_are_refused(golden):
    _, small = read(golden, "studiogan-sagan-32")
    _, large = read(golden, "studiogan-sagan-128")
    mixed = {name: array for name, array in small.items() if name.startswith("generator/")}
    mixed |= {name: array for name, array in large.items() if name.startswith("discriminator/")}
    with pytest.raises(InvalidInputError, match="same image size"):
        interop.load("studiogan", mixed)


@pytest.mark.parametrize(
    ("layout", "shape", "ours"),
    [
        (IDENTITY, (1, 5), (5,)),
        (TRANSPOSED, (3, 7), (7, 3)),
        (CONVOLUTION, (2, 3, 4, 5), (4, 5, 3, 2)),
        (CONVOLUTION, (2, 3, 1, 1), (3, 2)),
        (DECONVOLUTION, (2, 3, 4, 5), (4, 5, 2, 3)),
        (channels_last_layout((48, 5)), (48, 5), (5, 48)),
        (channels_last_layout((48,)), (48,), (48,)),
        (left_vector_layout((7, 3, 2, 5)), (30,), (30,)),
        (left_vector_layout((3, 7, 2, 5), transposed=True), (30,), (30,)),
        (Layout((2, 0, 1)), (2, 3, 4), (4, 2, 3)),
        (Layout((1, 0), plus=1.0), (2, 3), (3, 2)),
    ],
)
def test_layout_goes_there_and_back(layout, shape, ours):
    array = np.random.default_rng(0).normal(size=shape)
    assert layout.fits(shape, ours)
    assert not layout.fits(shape, (*ours[:-1], ours[-1] + 1))
    there = layout.to_ours(array, ours)
    assert there.shape == ours
    assert np.allclose(layout.to_source(there, shape), array, rtol=0, atol=1e-15 if layout.plus else 0)


def test_left_vector_belongs_to_the_kernel_it_was_made_of():
    rng = np.random.default_rng(0)
    for layout, weight, kernel in (
        (CONVOLUTION, rng.normal(size=(7, 3, 2, 5)), lambda w: w.reshape(7, -1)),
        (DECONVOLUTION, rng.normal(size=(3, 7, 2, 5)), lambda w: w.transpose(1, 0, 2, 3).reshape(7, -1)),
    ):
        # PyTorch's v runs over the columns of its matrix [out, in kh kw], ours over the rows of [kh kw in, out].
        theirs = rng.normal(size=30)
        ours = left_vector_layout(weight.shape, layout is DECONVOLUTION).to_ours(theirs, (30,))
        turned = layout.to_ours(weight, (2, 5, 3, 7)).reshape(-1, 7)
        assert np.allclose(kernel(weight) @ theirs, turned.T @ ours)


def test_biggan_without_embedding_is_read_as_the_script_for_sagan_writes_it(golden):
    """Gains come from a table of classes without spectral norm. The latent enters only the first layer."""
    _, arrays = read(golden, "biggan-128")
    rng = np.random.default_rng(0)
    changed = {}
    for name, array in arrays.items():
        if "/shared" in name or name.endswith((".gain.u0", ".gain.sv0", ".bias.u0", ".bias.sv0")):
            continue
        if name.endswith((".gain.weight", ".bias.weight")):
            array = rng.normal(size=(7, array.shape[0])).astype(np.float32)
        if name == "generator/linear.weight":
            array = rng.normal(size=(array.shape[0], 9)).astype(np.float32)
        changed[name] = array
    networks = interop.load("biggan-pytorch", changed)
    assert (networks.generator.num_classes, networks.generator.shared_size) == (7, 0)
    norm = networks.generator_variables["params"]["block_1"]["norm_1"]
    name = "generator/blocks.0.0.bn1.gain.weight"
    assert np.array_equal(norm["scale"], 1 + changed[name])
    back = networks.source_names(networks.generator_variables["params"])[name]
    assert np.abs(back - changed[name]).max() < 3e-7
    assert "norm_1" not in networks.generator_variables["spectral"]["block_1"]
    latents = rng.normal(size=(2, 9)).astype(np.float32)
    one, other = (np.asarray(networks.generate(latents, labels)) for labels in ([0, 1], [6, 1]))
    assert not np.allclose(one[0], other[0])
    assert np.allclose(one[1], other[1])
