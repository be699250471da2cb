"""The networks are the ones that the authors released: their weights, their outputs, their gradients."""

import dataclasses
from contextlib import nullcontext

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax import interop
from sagan_jax.errors import InvalidInputError
from sagan_jax.functional import HINGE, spectral_normalize_tree
from sagan_jax.models.sagan import Discriminator, Generator, generator_resolutions

FILES = {"feat32": (32,), "feat64": (64,), "none": ()}


def read(golden, name):
    with np.load(golden / f"official-{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def variables(vectors):
    return {key.removeprefix("var/"): array for key, array in vectors.items() if key.startswith("var/")}


def error(ours, theirs):
    """The largest difference over the largest magnitude."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module", params=FILES)
def release(request, golden):
    vectors = read(golden, request.param)
    return request.param, vectors, interop.load("official", variables(vectors))


@pytest.fixture(scope="module")
def feat32(golden):
    vectors = read(golden, "feat32")
    return vectors, interop.load("official", variables(vectors))


def test_release_places_attention_where_its_name_says(release):
    name, _, networks = release
    places = (networks.generator.attention_resolutions, networks.discriminator.attention_resolutions)
    assert places == (FILES[name], FILES[name])


@pytest.mark.parametrize("train", [True, False], ids=["batch-statistics", "stored-statistics"])
def test_release_generates_the_same_images(release, train):
    _, vectors, networks = release
    images = networks.generate(vectors["in/z"], vectors["in/fake_labels"], train=train)
    assert error(images, vectors["out/fake_train" if train else "out/fake_eval"]) < 1e-4


def test_release_gives_the_same_logits_and_losses(release):
    _, vectors, networks = release
    real = networks.discriminate(vectors["in/real_images"], vectors["in/real_labels"])
    fake = networks.discriminate(vectors["out/fake_train"], vectors["in/fake_labels"])
    on_real, on_fake = HINGE.discriminator(real, fake)
    found = {
        "out/real_logits": real[:, None],
        "out/fake_logits": fake[:, None],
        "out/d_loss": on_real.mean() + on_fake.mean(),
        "out/g_loss": HINGE.generator(fake).mean(),
    }
    assert {name: value for name, value in found.items() if error(value, vectors[name]) >= 1e-4} == {}


def test_release_moves_u_as_we_do(release):
    _, vectors, networks = release
    stored = networks.generator_variables
    _, moved, _ = spectral_normalize_tree(stored["params"], stored["spectral"], **networks.spectral_rule)
    ours = networks.source_names(moved)
    theirs = {name.removeprefix("u_after_g/"): u for name, u in vectors.items() if name.startswith("u_after_g/")}
    assert ours.keys() == theirs.keys()
    assert max(np.abs(ours[name] - theirs[name]).max() for name in theirs) < 1e-5


UNIT = (3, 103, 68, 1)
"""The image, place and channel of the input of G's last ReLU that rounding made positive in the release.

In float64 it is -3.4e-6. This one sign changes gradients by up to 8e-4 of their largest magnitude.
"""


def with_sign_of_unit(call, args, kwargs, context):
    """Gives `UNIT` the sign that it has in the release, without a change of the slope."""
    found = call(*args, **kwargs)
    if context.module.path != ("norm",) or context.method_name != "__call__":
        return found
    return found + jax.lax.stop_gradient(jnp.zeros_like(found).at[UNIT].set(-2 * found[UNIT]))


def in_float64(tree):
    """Returns the tree with its float32 arrays in float64."""
    return jax.tree.map(lambda array: array.astype(np.float64) if array.dtype == np.float32 else array, tree)


def gradients(network, vectors, networks, differentiate_vectors=True, interceptor=None):
    """Returns the gradients of one network's hinge loss, under the release's names."""
    rule = networks.spectral_rule | {"differentiate_vectors": differentiate_vectors}
    fixed_generator, fixed_discriminator = networks.generator_variables, networks.discriminator_variables
    latents, fake_labels = vectors["in/z"], vectors["in/fake_labels"]

    def generate(params):
        params, _, _ = spectral_normalize_tree(params, fixed_generator["spectral"], **rule)
        collections = {"params": params, "batch_stats": fixed_generator["batch_stats"]}
        with nn.intercept_methods(interceptor) if interceptor else nullcontext():
            return networks.generator.apply(collections, latents, fake_labels, train=True)

    def discriminate(params, images, labels):
        params, _, _ = spectral_normalize_tree(params, fixed_discriminator["spectral"], **rule)
        return networks.discriminator.apply({"params": params}, images, labels, train=False)

    def generator_loss(params):
        return HINGE.generator(discriminate(fixed_discriminator["params"], generate(params), fake_labels)).mean()

    def discriminator_loss(params):
        real = discriminate(params, vectors["in/real_images"], vectors["in/real_labels"])
        fake = discriminate(params, vectors["out/fake_train"], fake_labels)
        return sum(loss.mean() for loss in HINGE.discriminator(real, fake))

    losses = {"G": (generator_loss, fixed_generator), "D": (discriminator_loss, fixed_discriminator)}
    loss, fixed = losses[network]
    return networks.source_names(jax.jit(jax.grad(loss))(fixed["params"]))


def released(vectors, prefix):
    """Returns the release's own gradients, and the largest magnitude among them all."""
    theirs = {name.removeprefix(prefix): g for name, g in vectors.items() if name.startswith(prefix)}
    return theirs, max(np.abs(gradient).max() for gradient in theirs.values())


def cancelled_biases(generator):
    """Returns the biases of G that a batch norm cancels. Their true gradient is zero.

    A norm directly follows the first convolution of each block. The biases of a block's output pass only 1x1
    convolutions and additions before the next norms, which cancel them. Attention after the block prevents that.
    """
    attended = max(size.bit_length() - 3 for size in generator.attention_resolutions)
    last = len(generator_resolutions(generator.resolution))
    return {f"model/g_block{number}/snconv1/biases" for number in range(1, last + 1)} | {
        f"model/g_block{number}/snconv{index}/biases" for number in range(attended + 1, last + 1) for index in (2, 3)
    }


def test_release_has_rounding_alone_at_the_biases_that_norms_take_away(feat32):
    vectors, networks = feat32
    theirs, largest = released(vectors, "grad_g_loss/")
    tiny = {name for name, gradient in theirs.items() if np.abs(gradient).max() < 1e-6 * largest}
    assert tiny == cancelled_biases(networks.generator)


def differing_gradients(ours, theirs, largest, cancelled, tolerance):
    """Returns the gradients that differ by more than the tolerance, relative to the largest magnitude of each."""
    assert ours.keys() == theirs.keys()
    allowed = {name: 1e-5 * largest if name in cancelled else tolerance * np.abs(theirs[name]).max() for name in theirs}
    differences = {name: np.abs(ours[name] - theirs[name]).max() for name in theirs}
    return {name: off for name, off in differences.items() if not off < allowed[name]}


@pytest.mark.slow
@pytest.mark.parametrize(("network", "prefix", "tolerance"), [("D", "grad_d_loss/", 5e-5), ("G", "grad_g_loss/", 1e-3)])
def test_release_has_the_same_gradients(feat32, network, prefix, tolerance):
    vectors, networks = feat32
    cancelled = cancelled_biases(networks.generator) if network == "G" else set()
    ours = gradients(network, vectors, networks)
    assert differing_gradients(ours, *released(vectors, prefix), cancelled, tolerance) == {}


@pytest.mark.slow
def test_release_has_the_same_gradients_of_g_but_for_the_sign_of_one_unit(feat32):
    """In float64, the other units near zero have the same sign on every CPU and with every jax."""
    vectors, networks = feat32
    wide = dataclasses.replace(
        networks,
        generator_variables=in_float64(networks.generator_variables),
        discriminator_variables=in_float64(networks.discriminator_variables),
    )
    with jax.enable_x64(True):
        ours = gradients("G", in_float64(vectors), wide, interceptor=with_sign_of_unit)
    assert {gradient.dtype for gradient in ours.values()} == {np.dtype(np.float64)}
    theirs, largest = released(vectors, "grad_g_loss/")
    assert differing_gradients(ours, theirs, largest, cancelled_biases(networks.generator), tolerance=1e-4) == {}


@pytest.mark.slow
def test_release_gradient_flows_through_the_power_iteration(feat32):
    """With u and v held constant, only the gradients of D's normalised kernels differ from the release's."""
    vectors, networks = feat32
    stopped = gradients("D", *feat32, differentiate_vectors=False)
    off = {name: error(stopped[name], vectors[f"grad_d_loss/{name}"]) for name in stopped}
    normalised = {entry.source.rpartition("/")[0] for entry in networks.entries if entry.collection == "spectral"}
    kernels = {name for name in off if name.rpartition("/")[0] in normalised and not name.endswith(("bias", "biases"))}
    assert max(off[name] for name in kernels) > 1e-2
    assert max(off[name] for name in off.keys() - kernels) < 1e-3


def test_source_names_give_every_variable_back_as_it_was(release):
    _, vectors, networks = release
    ours = networks.source_names(
        {"generator": networks.generator_variables, "discriminator": networks.discriminator_variables}
    )
    theirs = variables(vectors)
    assert ours.keys() == theirs.keys()
    as_they_were = {
        name
        for name, array in theirs.items()
        if (ours[name].shape, ours[name].dtype, ours[name].tobytes()) == (array.shape, array.dtype, array.tobytes())
    }
    assert theirs.keys() - as_they_were == set()


def test_source_names_take_a_collection_alone(feat32):
    vectors, networks = feat32
    ours = networks.source_names(networks.generator_variables["batch_stats"])
    theirs = {
        name: array
        for name, array in variables(vectors).items()
        if name.rpartition("/")[2] in ("mean", "var", "moving_mean", "moving_variance")
    }
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not np.array_equal(ours[name], theirs[name])] == []


def test_source_names_refuse_a_tree_of_neither_network(feat32):
    with pytest.raises(ValueError, match="one of the two networks"):
        feat32[1].source_names({"block_9": {"kernel": np.ones(3)}})


def test_source_names_refuse_a_foreign_tree_of_a_named_network(feat32):
    with pytest.raises(ValueError, match="one of the two networks"):
        feat32[1].source_names({"generator": {"block_9": {"kernel": np.ones(3)}}})


def test_load_reads_past_the_scope_and_the_optimisers_slots(golden):
    vectors = read(golden, "none")
    arrays = {name.replace("model/", "tower/net/"): array for name, array in variables(vectors).items()}
    slots = {f"{name}/{slot}": 5 + array for name, array in arrays.items() for slot in ("Adam", "Adam_1")}
    images = interop.load("official", {"global_step": np.int64(7)} | slots | arrays).generate(
        vectors["in/z"], vectors["in/fake_labels"]
    )
    assert error(images, vectors["out/fake_eval"]) < 1e-4


# Each kind of variable once.
@pytest.mark.parametrize(
    "name",
    [
        "g_snh0/Matrix",
        "g_snh0/u",
        "g_block2/cbn_1/beta",
        "g_block3/cbn_0/var",
        "g_block4/snconv3/w",
        "g_non_local/sn_conv_attn/w",
        "g_bn/gamma",
        "g_bn/moving_mean",
        "g_snconv_last/biases",
        "d_optimized_block1/sn_conv1/w",
        "d_block6/sn_conv2/u",
        "d_non_local/sn_conv_phi/u",
        "d_sn_linear/bias",
        "d_embedding/embedding_map",
        "g_non_local/sigma_ratio",
        "d_non_local/sigma_ratio",
    ],
)
def test_load_names_a_variable_that_is_missing(feat32, name):
    arrays = variables(feat32[0])
    del arrays[f"model/{name}"]
    with pytest.raises(InvalidInputError, match=name):
        interop.load("official", arrays)


@pytest.mark.parametrize(
    ("name", "axes"),
    [("d_block3/sn_conv2/w", (3, 2, 0, 1)), ("d_embedding/embedding_map", (1, 0)), ("g_block2/cbn_0/gamma", (1, 0))],
)
def test_load_refuses_an_array_of_the_right_size_in_another_layout(feat32, name, axes):
    arrays = variables(feat32[0])
    arrays[f"model/{name}"] = arrays[f"model/{name}"].transpose(axes)
    with pytest.raises(InvalidInputError, match=name):
        interop.load("official", arrays)


def test_load_names_a_variable_of_another_shape(golden):
    arrays = variables(read(golden, "none"))
    arrays["model/d_block3/sn_conv2/w"] = np.ones((3, 3, 5, 7), np.float32)
    with pytest.raises(InvalidInputError, match=r"d_block3/sn_conv2/w .*\(3, 3, 5, 7\)"):
        interop.load("official", arrays)


@pytest.mark.parametrize(
    ("name", "shape"), [("g_block4/snconv1/u", (1, 5)), ("d_block3/sn_conv2/u", (1, 64)), ("d_embedding/u", (1, 7))]
)
def test_load_names_a_vector_of_another_length(feat32, name, shape):
    arrays = variables(feat32[0])
    assert arrays[f"model/{name}"].shape != shape
    arrays[f"model/{name}"] = np.ones(shape, np.float32)
    with pytest.raises(InvalidInputError, match=name):
        interop.load("official", arrays)


@pytest.mark.parametrize("labels", [[0, 1, 10, 2], [-1, 0, 1, 2], [[0], [1], [2], [3]], [0, 1], [0.0, 1.0, 2.0, 3.0]])
def test_networks_refuse_labels_that_are_no_classes_of_theirs(feat32, labels):
    vectors, networks = feat32
    for call, inputs in ((networks.generate, "in/z"), (networks.discriminate, "in/real_images")):
        with pytest.raises(InvalidInputError, match=r"4 integer labels \[B\] in \[0, 10\)"):
            call(vectors[inputs], labels)


def test_networks_take_lists_and_are_traceable(feat32):
    vectors, networks = feat32
    expected = networks.discriminate(vectors["in/real_images"], vectors["in/real_labels"])
    lists = networks.discriminate(vectors["in/real_images"].tolist(), vectors["in/real_labels"].tolist())
    assert lists.tolist() == expected.tolist()
    traced = jax.jit(networks.discriminate)(vectors["in/real_images"], vectors["in/real_labels"])
    np.testing.assert_allclose(traced, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "arrays", "words"),
    [("unofficial", {}, "official"), ("official", {"layer1.weight": np.ones(3)}, "g_snh0/Matrix")],
)
def test_load_refuses_what_is_no_release(source, arrays, words):
    with pytest.raises(InvalidInputError, match=words):
        interop.load(source, arrays)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "in_generator", "in_discriminator"), [((2, 5), 16, 8), ((3, 1), 8, 4)])
def test_load_reads_width_classes_and_places_off_the_arrays(base, in_generator, in_discriminator):
    """Weights of our own, under the release's names, with sizes that no golden file has."""
    generator = Generator(128, 7, base[0], attention_resolutions=(in_generator,))
    discriminator = Discriminator(128, 7, base[1], attention_resolutions=(in_discriminator,))
    labels = jnp.zeros((1,), jnp.int32)
    made = {
        "g": jax.eval_shape(lambda: generator.init(jax.random.key(0), jnp.zeros((1, 11)), labels, train=False)),
        "d": jax.eval_shape(
            lambda: discriminator.init(jax.random.key(0), jnp.zeros((1, 128, 128, 3)), labels, train=False)
        ),
    }
    theirs = {"kernel": "w", "bias": "biases", "scale": "gamma", "shift": "beta", "variance": "var"}
    convolutions = {"conv_1": 1, "conv_2": 2, "shortcut": 3}
    attention = {"query_kernel": "theta", "key_kernel": "phi", "value_kernel": "g", "output_kernel": "attn"}
    arrays = {}

    def put(folder, leaf, shape, name=None):
        arrays[f"{folder}/{name or theirs[leaf]}"] = np.zeros(shape, np.float32)
        if leaf == "kernel":
            arrays[f"{folder}/u"] = np.ones((1, shape[-1]), np.float32)

    for letter, collections in made.items():
        for collection in ("params", "batch_stats"):
            for keys, leaf in jax.tree_util.tree_flatten_with_path(collections.get(collection, {}))[0]:
                path = [key.key for key in keys]
                layer, last = path[0], path[-1]
                number = layer.removeprefix("block_")
                block = (
                    f"d_{'optimized_block' if number == '1' else 'block'}{number}"
                    if letter == "d"
                    else f"g_block{number}"
                )
                if layer.startswith("block_") and path[1].startswith("norm_"):
                    put(f"{block}/cbn_{int(path[1][-1]) - 1}", last, leaf.shape, None if last != "mean" else "mean")
                elif layer.startswith("block_"):
                    put(f"{block}/{'snconv' if letter == 'g' else 'sn_conv'}{convolutions[path[1]]}", last, leaf.shape)
                elif layer.startswith("attention_") and last == "gamma":
                    arrays[f"{letter}_non_local/sigma_ratio"] = np.float32(0)
                elif layer.startswith("attention_"):
                    put(f"{letter}_non_local/sn_conv_{attention[last]}", "kernel", (1, 1, *leaf.shape))
                elif layer == "linear":
                    folder = "g_snh0" if letter == "g" else "d_sn_linear"
                    put(folder, last, leaf.shape, {"kernel": "Matrix", "bias": "bias"}[last])
                elif layer == "norm":
                    moving = {"mean": "moving_mean", "variance": "moving_variance"}
                    put("g_bn", last, leaf.shape, moving.get(last))
                elif layer == "conv":
                    put("g_snconv_last", last, leaf.shape)
                else:
                    arrays["d_embedding/embedding_map"] = np.zeros(leaf.shape[::-1], np.float32)
                    arrays["d_embedding/u"] = np.ones((1, leaf.shape[-1]), np.float32)
    assert interop.load("official", arrays).generator == generator
    assert interop.load("official", arrays).discriminator == discriminator
