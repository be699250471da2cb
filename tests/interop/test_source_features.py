"""Networks with features that the known ones lack: they are converted right, or refused by the feature's name."""

import itertools
import re

import numpy as np
import pytest

from sagan_jax import interop
from support.assertions import assert_near, refusal
from support.pytorch_generators import generate

pytestmark = pytest.mark.one_jax


def read(golden, name):
    with np.load(golden / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key.startswith(("generator/", "discriminator/"))}


def of_generator(arrays):
    return {name.removeprefix("generator/"): array for name, array in arrays.items() if name.startswith("generator/")}


def inputs(networks, batch=2):
    latents = np.random.default_rng(5).normal(size=(batch, networks.latent_size)).astype(np.float32)
    return latents, np.arange(batch) % max(networks.generator.num_classes, 1)


def assert_generates_like_source(networks, arrays, norm_epsilon, last_norm_epsilon):
    latents, labels = inputs(networks)
    wanted = generate(
        of_generator(arrays), latents, labels, norm_epsilon=norm_epsilon, last_norm_epsilon=last_norm_epsilon
    )
    assert_near(networks.generate(latents, labels), wanted.transpose(0, 2, 3, 1), 2e-5)


@pytest.fixture(scope="module")
def studiogan(golden):
    return read(golden, "studiogan-sagan-32")


@pytest.fixture(scope="module")
def biggan(golden):
    return read(golden, "biggan-128")


@pytest.mark.parametrize(("name", "epsilon"), [("studiogan-sagan-32", 1e-4), ("biggan-128", 1e-5)])
def test_oracle_gives_the_images_of_the_released_code(golden, name, epsilon):
    with np.load(golden / f"{name}.npz") as file:
        latents, labels, wanted = (file[key] for key in ("in/z", "in/labels", "out/fake_eval_nchw"))
    arrays = of_generator(read(golden, name))
    found = generate(arrays, latents, labels, norm_epsilon=epsilon, last_norm_epsilon=epsilon)
    assert_near(found, wanted, 1e-4)


def moved_attention(arrays, places):
    """Returns a D with attention after the blocks `places`, counted from 1.

    StudioGAN numbers blocks and attention layers together.
    """
    blocks = {0: "blocks.0.0", 1: "blocks.2.0", 2: "blocks.3.0", 3: "blocks.4.0"}
    moved, number = {}, 0
    for block, old in blocks.items():
        parts = [old, *(["blocks.1.0"] if block + 1 in places else [])]
        for part in parts:
            for name, array in arrays.items():
                if name.startswith(f"discriminator/{part}."):
                    moved[name.replace(part, f"blocks.{number}.0")] = array
            number += 1
    kept = {name: array for name, array in arrays.items() if not name.startswith("discriminator/blocks.")}
    return kept | moved


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([3], "after block 3, and at 8 pixels it can only follow block 2"),
        ([4], "after block 4, and at 8 pixels it can only follow block 2"),
        ([2, 3], "attention twice at a size: the discriminator has it after blocks 2 and 3"),
        ([1, 2, 4], "attention twice at a size: the discriminator has it after blocks 1 and 2 and 4"),
    ],
)
def test_attention_after_a_later_block_of_a_size_is_refused_by_name(places, words, studiogan):
    assert words in refusal(interop.load, "studiogan", moved_attention(studiogan, places))


@pytest.mark.parametrize("places", [[1], [2], [1, 2]])
def test_attention_after_the_first_block_of_a_size_is_kept(places, studiogan):
    networks = interop.load("studiogan", moved_attention(studiogan, places))
    assert networks.discriminator.attention_resolutions == tuple((16, 8)[place - 1] for place in places)


def test_biggan_attention_after_the_last_block_is_refused_by_name(biggan):
    moved = {
        name.replace("blocks.0.1.", "blocks.5.1.") if name.startswith("discriminator/") else name: array
        for name, array in biggan.items()
    }
    assert "after block 6, and at 4 pixels it can only follow block 5" in refusal(interop.load, "biggan-pytorch", moved)


def test_biggan_attention_twice_in_a_block_is_refused_by_name(biggan):
    twice = biggan | {
        name.replace("blocks.0.1.", "blocks.0.2."): array for name, array in biggan.items() if ".0.1." in name
    }
    assert "attention twice at a size" in refusal(interop.load, "biggan-pytorch", twice)


def without_classes(arrays, size=5):
    """Returns StudioGAN's BigGAN without classes at 32 pixels. Each norm and the first layer read `size` numbers."""
    rng = np.random.default_rng(0)
    changed = {}
    for name, array in arrays.items():
        if re.match(r"generator/(linear0|.*\.bn\d\.(gain|bias))\.weight_(orig|v)", name):
            array = rng.normal(size=(*array.shape[:-1], size)).astype(np.float32)
        changed[name] = array
    return {name: array for name, array in changed.items() if not name.startswith("discriminator/embedding")}


@pytest.mark.parametrize("alone", [True, False])
def test_studiogan_biggan_without_classes_does_not_become_a_sagan_with_classes(alone, studiogan):
    arrays = without_classes(studiogan)
    if alone:
        arrays = {name: array for name, array in arrays.items() if name.startswith("generator/")}
    line = refusal(interop.load, "studiogan", arrays)
    assert "StudioGAN's unconditional BigGAN" in line
    assert "--source-config" in line


def test_as_many_classes_as_latent_numbers_are_read_where_the_discriminator_has_them(studiogan):
    arrays = without_classes(studiogan, size=10)
    arrays |= {name: array for name, array in studiogan.items() if name.startswith("discriminator/")}
    assert interop.load("studiogan", arrays).generator.num_classes == 10


def test_biggan_without_classes_reads_a_part_of_the_latent_in_each_norm(biggan):
    arrays = {}
    for name, array in biggan.items():
        if not name.startswith("generator/") or "/shared" in name:
            continue
        arrays[name] = array[:, -4:] if name.endswith((".gain.weight", ".bias.weight")) else array
    networks = interop.load("biggan-pytorch", arrays)
    assert (networks.generator.num_classes, networks.generator.hierarchical, networks.latent_size) == (0, True, 24)
    assert_generates_like_source(networks, arrays, 1e-5, 1e-5)


def renamed(arrays, network, pattern, name):
    """Returns the arrays and a copy of the first one of the network that matches `pattern`, under `name`."""
    found = next(other for other in arrays if re.match(f"{network}/{pattern}", other))
    return arrays | {f"{network}/{name}": arrays[found]}


STUDIOGAN_FEATURES = {
    "a shared class embedding": ("generator", "linear0.weight_orig", "shared.weight"),
    "InfoGAN": ("generator", "linear0.weight_orig", "info_mix_linear.weight_orig"),
    "BigGAN-deep": ("generator", "linear0.weight_orig", "blocks.0.0.conv2d3.weight_orig"),
    "an auxiliary classifier or a contrastive head": ("discriminator", "linear1.weight_orig", "linear2.weight_orig"),
    "a twin auxiliary classifier": ("discriminator", "linear1.weight_orig", "linear_mi.weight_orig"),
    "no spectral norm": ("discriminator", "linear1.bias", "blocks.2.0.bn0.weight"),
}


@pytest.mark.parametrize("feature", STUDIOGAN_FEATURES)
def test_studiogan_network_with_another_feature_is_refused_by_its_name(feature, studiogan):
    network, pattern, name = STUDIOGAN_FEATURES[feature]
    line = refusal(interop.load, "studiogan", renamed(studiogan, network, pattern, name))
    assert feature in line
    assert repr(name) in line


def head_of(arrays, name, outputs):
    changed = {}
    for key, array in arrays.items():
        if key.startswith(f"discriminator/{name}.") and array.ndim:
            rows = array.shape[0] == 1 and not key.endswith((".u0", ".sv0"))
            array = np.repeat(array, outputs, axis=0 if rows else -1) if rows or key.endswith(".u0") else array
        changed[key] = array
    return changed


@pytest.mark.parametrize("outputs", [10, 11])
def test_head_with_several_outputs_is_refused_by_its_name(outputs, studiogan, biggan):
    for source, arrays, name in (("studiogan", studiogan, "linear1"), ("biggan-pytorch", biggan, "linear")):
        line = refusal(interop.load, source, head_of(arrays, name, outputs))
        assert "multi-hinge or multi-class head" in line
        assert f"{outputs} outputs" in line


def test_biggan_thin_discriminator_is_refused_by_name(biggan):
    arrays = dict(biggan)
    arrays["discriminator/blocks.1.0.conv1.weight"] = np.ones((8, 8, 3, 3), np.float32)
    arrays["discriminator/blocks.1.0.conv2.weight"] = np.ones((16, 8, 3, 3), np.float32)
    assert "a thin D (D_wide False); in block 2" in refusal(interop.load, "biggan-pytorch", arrays)
    arrays = dict(biggan)
    arrays["discriminator/blocks.0.0.conv1.weight"] = np.ones((3, 3, 3, 3), np.float32)
    arrays["discriminator/blocks.0.0.conv2.weight"] = np.ones((8, 3, 3, 3), np.float32)
    assert "a thin D (D_wide False); in block 1" in refusal(interop.load, "biggan-pytorch", arrays)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_biggan_several_singular_values_are_refused_by_name(network, biggan):
    arrays = renamed(biggan, network, r"linear\.u0", "linear.u1")
    assert "several singular values" in refusal(interop.load, "biggan-pytorch", arrays)


def test_biggan_without_batch_norm_is_refused_by_name(biggan):
    arrays = {name: array for name, array in biggan.items() if not name.endswith(("_mean", "_var"))}
    assert "another norm than batch norm, or none" in refusal(interop.load, "biggan-pytorch", arrays)


def test_biggan_deep_is_refused_by_name(biggan):
    for network in ("generator", "discriminator"):
        arrays = renamed(biggan, network, r"blocks\.0\.0\.conv2\.weight", "blocks.0.0.conv3.weight")
        assert "BigGAN-deep" in refusal(interop.load, "biggan-pytorch", arrays)


def test_biggan_plain_norms_are_refused_by_name(biggan):
    arrays = {name: array for name, array in biggan.items() if not re.search(r"\.bn\d\.(gain|bias)\.", name)}
    arrays |= {f"generator/blocks.{block}.0.bn1.gain": np.ones(8, np.float32) for block in range(5)}
    assert "plain norms in G's blocks" in refusal(interop.load, "biggan-pytorch", arrays)


def before_version_0_4(arrays, spectral):
    """Returns the arrays with the class tables of StudioGAN's older versions, which are transposed maps."""
    changed = {}
    for name, array in arrays.items():
        old = re.sub(r"\.(gain|bias)\.weight", lambda at: f".embed{int(at[1] == 'bias')}.weight", name)
        if old != name and "/blocks" in name:
            if name.endswith(("_u", "_v")):
                if not spectral:
                    continue
                old = old[:-1] + ("v" if name.endswith("u") else "u")
            elif not spectral:
                old = old.removesuffix("_orig")
            array = array.T
        else:
            old = name
        changed[old] = array
    return changed


def test_class_tables_of_older_studiogan_versions_are_read(studiogan):
    arrays = before_version_0_4(studiogan, spectral=True)
    assert any(".embed0." in name for name in arrays)
    networks, new = interop.load("studiogan", arrays), interop.load("studiogan", studiogan)
    latents, labels = inputs(networks)
    assert_near(networks.generate(latents, labels), new.generate(latents, labels), 1e-6)
    assert_generates_like_source(networks, arrays, 1e-4, 1e-4)
    back = networks.source_names(networks.generator_variables["spectral"])
    name = "generator/blocks.0.0.bn1.embed0.weight_u"
    assert np.array_equal(back[name], arrays[name])


def at_64(arrays, network, width):
    """Returns the arrays of G or D at 64 pixels. New tensors have the right shapes and are all ones."""
    widths = {"generator": [width, 8, 4, 2, 1], "discriminator": [1, 2, 4, 8, width]}[network]
    changed = {name: array for name, array in arrays.items() if not name.startswith(f"{network}/blocks.")}
    inputs = [4 * size for size in widths] if network == "generator" else [3, *(4 * size for size in widths)]
    for block, (into, out) in enumerate(itertools.pairwise(inputs)):
        for layer, size in (("conv2d0", 1), ("conv2d1", 3), ("conv2d2", 3)):
            shape = (out, into if layer != "conv2d2" else out, size, size)
            changed[f"{network}/blocks.{block}.0.{layer}.weight"] = np.ones(shape, np.float32)
    if network == "generator":
        changed["generator/conv2d5.weight"] = np.ones((3, 4, 3, 3), np.float32)
        del changed["generator/conv2d5.weight_orig"]
    return changed


def test_widths_of_older_studiogan_versions_at_64_pixels_are_refused_by_name(studiogan):
    generator = {name: array for name, array in studiogan.items() if name.startswith("generator/")}
    older = refusal(interop.load, "studiogan", at_64(generator, "generator", 8))
    assert "widths that StudioGAN had at 64 pixels before version 0.4" in older
    assert "before version 0.4" not in refusal(interop.load, "studiogan", at_64(generator, "generator", 16))
    older = refusal(interop.load, "studiogan", at_64(studiogan, "discriminator", 8))
    assert "widths that StudioGAN had at 64 pixels before version 0.4" in older
    assert "before version 0.4" not in refusal(interop.load, "studiogan", at_64(studiogan, "discriminator", 16))


@pytest.mark.parametrize(
    ("name", "source", "tensor"),
    [
        ("studiogan-sagan-32", "studiogan", "linear0.weight_orig"),
        ("studiogan-dcgan-32", "studiogan", "linear0.weight"),
        ("biggan-128", "biggan-pytorch", "linear.weight"),
    ],
)
def test_first_layer_that_was_cut_is_named_itself(name, source, tensor, golden):
    arrays = read(golden, name)
    arrays[f"generator/{tensor}"] = arrays[f"generator/{tensor}"][:-1]
    assert repr(tensor) in refusal(interop.load, source, arrays)


def test_missing_first_block_of_a_dcgan_is_named_itself(golden):
    arrays = read(golden, "studiogan-dcgan-32")
    del arrays["generator/blocks.0.0.deconv0.weight"]
    line = refusal(interop.load, "studiogan", arrays)
    assert "blocks.0.0.deconv0" in line
    assert "generator" in line


@pytest.mark.parametrize("name", ["studiogan-sagan-32", "studiogan-dcgan-32", "biggan-128"])
def test_swapped_generator_and_discriminator_are_refused(name, golden):
    arrays = read(golden, name)
    source = "studiogan" if name.startswith("studiogan") else "biggan-pytorch"
    parts = {part: {} for part in ("generator", "discriminator")}
    for key, array in arrays.items():
        part, tensor = key.split("/")
        parts[part][tensor] = array
    as_generator = {f"generator/{tensor}": array for tensor, array in parts["discriminator"].items()}
    as_discriminator = {f"discriminator/{tensor}": array for tensor, array in parts["generator"].items()}
    for given in (as_generator, as_generator | as_discriminator):
        assert "given as the generator are those of a discriminator" in refusal(interop.load, source, given)
    twice = {key: array for key, array in arrays.items() if key.startswith("generator/")} | as_discriminator
    assert "given as the discriminator are those of a generator" in refusal(interop.load, source, twice)


@pytest.mark.parametrize("tensor", ["sigma", "conv1x1_theta.weight_orig"])
def test_missing_tensor_of_an_attention_layer_is_named_itself(tensor, studiogan):
    arrays = {name: array for name, array in studiogan.items() if name != f"discriminator/blocks.1.0.{tensor}"}
    assert f"blocks.1.0.{tensor}".removesuffix("_orig") in refusal(interop.load, "studiogan", arrays)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("studiogan", "discriminator/blocks.1.0.conv1x1_theta.weight_orig"),
        ("studiogan", "generator/blocks.0.0.bn1.gain.weight_orig"),
        ("studiogan", "generator/linear0.weight_orig"),
        ("studiogan", "discriminator/embedding.weight_u"),
        ("biggan-pytorch", "discriminator/blocks.0.1.g.weight"),
        ("biggan-pytorch", "generator/linear.u0"),
    ],
)
def test_kernel_or_vector_of_zeros_is_refused_by_name(source, name, studiogan, biggan):
    arrays = dict(studiogan if source == "studiogan" else biggan)
    arrays[name] = np.zeros_like(arrays[name])
    assert f"{name!r} is all zeros" in refusal(interop.load(source, arrays).refuse_zeros)


def test_zeros_are_no_fault_where_there_is_no_spectral_norm(golden):
    arrays = read(golden, "studiogan-dcgan-32")
    arrays["generator/conv4.weight"] = np.zeros_like(arrays["generator/conv4.weight"])
    interop.load("studiogan", arrays).refuse_zeros()
