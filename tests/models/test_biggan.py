"""BigGAN: sizes, numbers of parameters, and how the latent and the class reach the blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import init_spectral
from sagan_jax.models import sagan
from sagan_jax.models.biggan import Discriminator, Generator
from support.assertions import assert_rows_are_their_own
from support.params import draw_tree, drawn_function, num_parameters, variable_shapes


def small(**fields):
    """Returns a generator, latents `[4, 12]`, and drawn variables, for which the classes look different."""
    generator = Generator(**({"resolution": 32, "num_classes": 3, "base_channels": 2, "shared_size": 5} | fields))
    generator = generator.clone(attention_resolutions=())
    latents = jax.random.normal(jax.random.key(1), (4, 12))
    return generator, latents, draw_tree(dict(variable_shapes(generator, 12)), 0)


def test_networks_have_as_many_parameters_as_published():
    generator, discriminator = variable_shapes(Generator(), 120), variable_shapes(Discriminator(), 128, 128, 3)
    assert (num_parameters(generator["params"]), num_parameters(discriminator["params"])) == (70_433_988, 87_982_370)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize("classes", [0, 7])
def test_networks_give_each_row_an_image_and_a_logit_of_its_own(resolution, classes):
    generator = Generator(resolution, classes, 2, attention_resolutions=(16,))
    discriminator = Discriminator(resolution, classes, 2, attention_resolutions=(16,))
    labels = np.array([4, 1, 4], np.int32) if classes else None
    latents = np.random.default_rng(0).normal(size=(3, 2 * len(sagan.generator_resolutions(resolution)) + 2))
    images = assert_rows_are_their_own(drawn_function(generator, latents.shape[1]), latents, labels)
    assert images.shape == (3, resolution, resolution, 3)
    logits = assert_rows_are_their_own(drawn_function(discriminator, *images.shape[1:]), images, labels)
    assert logits.shape == (3,)


@pytest.mark.slow
@pytest.mark.one_jax
def test_networks_at_512_pixels_give_images_and_logits():
    generator = Generator(512, 3, 1, attention_resolutions=(16,))
    discriminator = Discriminator(512, 3, 1, attention_resolutions=(16,))
    latents = np.random.default_rng(0).normal(size=(2, 16))
    images = drawn_function(generator, 16)(latents, np.int32([2, 0]))
    assert images.shape == (2, 512, 512, 3)
    assert np.ptp(images[:, ::2, ::2], axis=(1, 2)).min() > 0.1  # no flat colour
    logits = drawn_function(discriminator, 512, 512, 3)(images, np.int32([2, 0]))
    assert logits.shape == (2,)
    assert np.abs(np.diff(logits)) > 1e-3


def test_discriminator_is_as_wide_as_the_reference_at_32_pixels():
    params = variable_shapes(Discriminator(32, 7, 3, attention_resolutions=()), 32, 32, 3)["params"]
    assert [params[f"block_{number}"]["conv_2"]["kernel"].shape[-1] for number in (1, 2, 3, 4)] == [12, 12, 12, 12]


def test_generator_is_as_wide_as_the_reference_at_64_pixels():
    params = variable_shapes(Generator(64, 7, 1, attention_resolutions=()), 15)["params"]
    assert params["linear"]["kernel"].shape[-1] == 16 * 16
    assert [params[f"block_{number}"]["conv_2"]["kernel"].shape[-1] for number in (1, 2, 3, 4)] == [16, 8, 4, 2]


def test_each_block_uses_its_own_part_of_the_latent():
    generator, latents, variables = small()

    def images(latents, blocks):
        seen = apply(variables, latents, jnp.zeros(4, jnp.int32))[1]["intermediates"]
        return {name: seen[name]["__call__"][0] for name in blocks}

    blocks = ["linear", "block_1", "block_2", "block_3"]
    asked = {"capture_intermediates": lambda module, _: module.name in blocks, "mutable": ["intermediates"]}
    apply = jax.jit(partial(generator.apply, train=False, **asked))
    before = images(latents, blocks)
    for part, name in enumerate(blocks):
        after = images(latents.at[:, 3 * part : 3 * part + 3].add(1.0), blocks)
        same = [np.allclose(before[other], after[other]) for other in blocks]
        assert same == [True] * part + [False] * (4 - part), name


def test_class_reaches_the_image_through_the_shared_embedding_alone():
    generator, latents, variables = small()
    labels, others = jnp.array([0, 1, 2, 0]), jnp.array([2, 2, 2, 2])
    one, other = (generator.apply(variables, latents, which, train=False) for which in (labels, others))
    assert not np.allclose(one[0], other[0])
    assert np.allclose(one[2], other[2])
    table = variables["params"]["shared_embedding"]
    assert table.shape == (3, 5)
    params = variables["params"] | {"shared_embedding": jnp.zeros_like(table)}
    one, other = (
        generator.apply(variables | {"params": params}, latents, which, train=False) for which in (labels, others)
    )
    assert np.array_equal(one, other)


def test_mixture_of_one_class_is_that_class():
    generator, latents, variables = small()
    labels = jnp.array([2, 0, 1, 2])
    mixtures = jax.nn.one_hot(labels, 3)
    one, other = (generator.apply(variables, latents, which, train=False) for which in (labels, mixtures))
    assert np.allclose(one, other, atol=1e-6)


def test_shared_embedding_is_not_spectrally_normalised_and_the_maps_that_read_it_are():
    _, _, variables = small()
    vectors = init_spectral(jax.random.key(0), variables["params"])
    assert "shared_embedding" not in vectors
    assert set(vectors["block_1"]["norm_1"]) == {"scale_kernel", "shift_kernel"}


@pytest.mark.parametrize(
    ("fields", "entries"),
    [
        ({}, 5 + 3),
        ({"hierarchical": False}, 5),
        ({"num_classes": 0}, 3),
        ({"num_classes": 0, "shared_size": 0}, 3),
    ],
    ids=["both", "shared", "unconditional", "latent"],
)
def test_norm_inputs_depend_on_classes_and_latent_parts(fields, entries):
    _, _, variables = small(**fields)
    assert variables["params"]["block_2"]["norm_1"]["scale_kernel"].shape == (entries, 8)
    first = 12 if fields.get("hierarchical") is False else 3
    assert variables["params"]["linear"]["kernel"].shape[0] == first


def test_classes_without_embedding_are_refused_where_the_norms_see_parts_of_the_latent():
    with pytest.raises(ValueError, match="needs shared_size of at least 1, or its images would not depend on the"):
        variable_shapes(Generator(32, 3, 2, attention_resolutions=(), shared_size=0), 12)


def test_without_embedding_and_parts_it_is_sagan_with_tables():
    generator, latents, variables = small(shared_size=0, hierarchical=False)
    ours = sagan.Generator(32, 3, 2, attention_resolutions=())
    assert "norm_1" not in init_spectral(jax.random.key(0), variables["params"])["block_1"]
    labels = jnp.array([2, 0, 1, 2])
    assert np.allclose(
        generator.apply(variables, latents, labels, train=False),
        ours.apply(variables, latents, labels, train=False),
        atol=1e-6,
    )


@pytest.mark.slow
@pytest.mark.one_jax
def test_kernels_start_orthogonal():
    generator = Generator(32, 3, 2, attention_resolutions=(16,), shared_size=5)
    variables = generator.init(jax.random.key(0), jnp.zeros((2, 12)), jnp.zeros(2, jnp.int32), train=False)
    kernels = [
        leaf.reshape(-1, leaf.shape[-1])
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if path[-1].key.endswith("kernel")
    ]
    assert len(kernels) > 15
    for kernel in kernels:
        wide = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
        assert np.allclose(wide.T @ wide, np.eye(wide.shape[1]), atol=1e-5)


def test_latent_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="4 parts; got 13"):
        variable_shapes(Generator(32, 3, 2, attention_resolutions=()), 13)
