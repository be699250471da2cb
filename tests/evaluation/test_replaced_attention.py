"""Generators whose attention maps are replaced."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import replaced_attention
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.replaced_attention import (
    images_of_maps,
    knock_out,
    learned_maps,
    replaceable_layers,
    without_partner,
)
from sagan_jax.models.attention import attention_layer
from sagan_jax.models.layers import SelfAttention
from sagan_jax.models.sagan import Generator
from support.params import draw_tree

pytestmark = pytest.mark.one_jax

KINDS = ("release", "article", "multi_head")
COUNT = 60


def trained(module, latent_size, variables):
    return TrainedGenerator(module, variables, latent_size, num_classes=0, step=0)


@pytest.fixture(scope="module", params=KINDS)
def drawing(request):
    """A small SAGAN generator whose attention is far from even, and what it draws."""
    module = Generator(32, 0, base_channels=2, attention_resolutions=(16, 8), attention=request.param)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 5)), None, train=False))
    variables = draw_tree(dict(shapes), 0)
    generator = trained(module, 5, variables)
    latents, labels = generator.latents(jax.random.key(1), np.arange(6)), np.zeros(6, np.int32)
    return generator, latents, labels, learned_maps(generator, latents, labels)


@pytest.mark.slow
def test_learned_maps_put_back_change_no_bit(drawing):
    generator, latents, labels, (images, maps) = drawing
    assert replaceable_layers(generator) == ("attention_8", "attention_16")
    assert set(maps) == {"attention_8", "attention_16"}
    assert np.ptp(images) > 100
    plain = generator.images(latents, labels)  # another program, whose last bits may round to another level
    assert abs(images.astype(int) - plain).max() <= 1
    assert (images != plain).mean() < 1e-3
    assert np.array_equal(images_of_maps(generator, latents, labels, maps), images)
    for layer, learned in maps.items():
        assert np.array_equal(images_of_maps(generator, latents, labels, {layer: learned}), images)
        moved = images_of_maps(generator, latents, labels, {layer: np.roll(learned, 1, axis=0)})
        assert (moved != images).any(axis=(1, 2, 3)).all(), layer


class OneLayer(nn.Module):
    """A "generator" whose latents are the features of an attention layer."""

    attention: str

    @nn.compact
    def __call__(self, latents, labels, *, train):
        return attention_layer(self.attention, 6)(latents.reshape(-1, 6, 6, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_output_of_a_map_is_that_of_sums_in_float64(kind):
    module, random = OneLayer(kind), np.random.default_rng(0)
    features = random.normal(size=(2, 6, 6, 8))
    keys, heads = (9 if kind == "release" else 36), (4 if kind == "multi_head" else 1)
    beta = random.dirichlet(np.ones(keys), (2, heads, 36))
    variables = module.init(jax.random.key(0), features.reshape(2, -1), None, train=False)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), variables["params"]["attention_6"])
    wanted = features.copy()
    for image in range(2):
        values = features[image] @ params["value_kernel"]
        if kind == "release":
            values = np.array([[values[y : y + 2, x : x + 2].max((0, 1)) for x in (0, 2, 4)] for y in (0, 2, 4)])
        values = values.reshape(keys, -1)
        for query in range(36):
            parts = np.split(values, heads, axis=1)
            gathered = np.concatenate(
                [sum(beta[image, head, query, i] * part[i] for i in range(keys)) for head, part in enumerate(parts)]
            )
            if kind != "article":
                gathered = gathered @ params["output_kernel"]
            wanted[image, query // 6, query % 6] += params["gamma"] * gathered
    given = {"attention_6": np.float32(beta if kind == "multi_head" else beta[:, 0])}
    variables = {"params": {"attention_6": jax.tree.map(np.float32, params)}}
    inputs = np.float32(features.reshape(2, -1)), np.zeros(2, np.int32)
    found, _ = replaced_attention._draw(module, variables, *inputs, given, {"attention_6": np.array(True)})
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("heads", [(), (3,)])
def test_blobs_lose_their_view_of_each_other_alone(heads):
    random = np.random.default_rng(0)
    regions = [np.zeros((32, 32), bool) for _ in range(3)]
    regions[0][0:8, 0:8] = regions[1][16:24, 20:28] = regions[2][24:32, 0:8] = True  # whole positions of 4x4 pixels
    queries = [{8 * y + x for y in ys for x in xs} for ys, xs in (((0, 1), (0, 1)), ((4, 5), (5, 6)), ((6, 7), (0, 1)))]
    # A key has 8x8 pixels. The second blob covers half of each of two keys, so both belong to it.
    keys = [{0}, {4 * 2 + 2, 4 * 2 + 3}, {4 * 3 + 0}]
    blobs = [[], regions]
    learned = np.float32(random.dirichlet(np.ones(16), (2, *heads, 64)))
    learned[1, ..., 9, :] = np.isin(np.arange(16), [10, 11]) / 2  # looks only at the second blob
    found = np.asarray(without_partner(jnp.asarray(learned), blobs))
    wanted = learned.copy()
    for index, own in enumerate(queries):
        others = [key for other, of in enumerate(keys) if other != index for key in of]
        for query in own:
            row = wanted[1, ..., query, :]
            row[..., others] = 0
            total = row.sum(axis=-1, keepdims=True, dtype=np.float64)
            row[...] = np.where(total > 0, row / np.where(total > 0, total, 1), ~np.isin(np.arange(16), others) / 13)
    assert found == pytest.approx(wanted, rel=1e-6)
    untouched = np.setdiff1d(np.arange(64), list(set().union(*queries)))
    assert np.array_equal(found[0], learned[0])
    assert np.array_equal(found[1][..., untouched, :], learned[1][..., untouched, :])


class Copier(nn.Module):
    """Draws two squares, a painter and a copier. The copier has a faint hue, and attention paints it like the painter.

    Latents `[8]` hold the painter's hue in three numbers and the copier's in three. The seventh swaps their places. The
    eighth decides whether the image has light or stays black.
    """

    @nn.compact
    def __call__(self, latents, labels, *, train):
        hue, own = (jax.nn.one_hot(latents[:, at : at + 3].argmax(axis=-1), 3) for at in (0, 3))
        features = jnp.zeros((len(latents), 8, 8, 8))
        first, second = jnp.zeros((2, 8, 8, 1)).at[0, :2, :2].set(1).at[1, 4:6, 5:7].set(1)
        swapped, lit = (latents[:, at, None, None, None] > 0 for at in (6, 7))
        painter, copier = jnp.where(swapped, second, first), jnp.where(swapped, first, second)
        features = features.at[..., :3].set(painter * hue[:, None, None] + 0.3 * copier * own[:, None, None])
        features = features.at[..., 3:4].set(painter).at[..., 4:5].set(copier)
        seen = SelfAttention("article", name="layer")(features)[..., :3]
        light = seen.max(axis=-1, keepdims=True)
        image = jnp.where((light > 0.2) & lit, seen / jnp.maximum(light, 1e-6), 0)
        return 2 * jnp.repeat(jnp.repeat(image, 4, axis=1), 4, axis=2) - 1


def test_agreement_is_lost_where_the_map_that_made_it_is_replaced():
    query, key = np.zeros((2, 8, 1), np.float32)
    query[4], key[3] = 8, 8  # the copier looks at the painter
    layer = {"query_kernel": query, "key_kernel": key, "value_kernel": np.eye(8, dtype=np.float32)}
    generator = trained(Copier(), 8, {"params": {"layer": layer | {"gamma": np.float32(1)}}, "batch_stats": {}})
    rule = Pairs(hues=3, forms=1)
    found = knock_out(generator, rule, ("layer",), count=COUNT, seed=3, batch_size=COUNT // 2)
    latents = np.asarray(generator.latents(jax.random.key(3), np.arange(COUNT)))
    batches = [part[part[:, 7] > 0] for part in np.split(latents, 2)]
    lucky = [part[:, :3].argmax(axis=1) == part[:, 3:6].argmax(axis=1) for part in batches]
    same_place = [(part[:, 6] > 0) == (np.roll(part, -1, axis=0)[:, 6] > 0) for part in batches]
    images = sum(map(len, batches))
    by_luck = sum(map(np.sum, lucky)) / images
    of_another = sum(np.sum(one | other) for one, other in zip(lucky, same_place, strict=True)) / images
    assert 0.2 < by_luck < of_another - 0.2 < 0.8
    assert found.images == images
    shares = {name: scores["hue"] for name, scores in found.scores.items()}
    wanted = {"learned": 1, "uniform": by_luck, "another image's": of_another, "without the partner": by_luck}
    assert shares == pytest.approx(wanted)
    assert {scores["parts"] for scores in found.scores.values()} == {1}


def test_uniform_maps_are_even_and_every_other_is_of_the_next_image_with_blobs():
    learned = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(16), (5, 2, 64)))
    found = replaced_attention._replaced({"layer": learned}, [[]] * 5, np.array([0, 3, 4]))
    assert found["uniform"]["layer"] == pytest.approx(np.full((5, 2, 64, 16), 1 / 16))
    assert np.array_equal(found["another image's"]["layer"], np.asarray(learned)[[3, 1, 2, 4, 0]])


def test_images_without_blobs_say_nothing(drawing):
    generator = drawing[0]
    assert knock_out(generator, Pairs(size=20), ("attention_8",), count=3) == (0, {})


@pytest.mark.parametrize(
    ("rule", "layers", "count", "words"),
    [
        (Pairs(), ("attention_4",), 3, r"layers among \('attention_8', 'attention_16'\); got \('attention_4',\)"),
        (Pairs(), (), 3, r"got \(\)"),
        (Pairs(blobs=1), ("attention_8",), 3, "got 1, 3 and 100"),
        (Pairs(), ("attention_8",), 0, "got 2, 0 and 100"),
    ],
)
def test_what_cannot_be_knocked_out_is_said(drawing, rule, layers, count, words):
    with pytest.raises(InvalidInputError, match=words):
        knock_out(drawing[0], rule, layers, count=count)


def test_batches_of_one_image_have_no_other_image(drawing):
    with pytest.raises(InvalidInputError, match="batches of 2 or more; got 2, 3 and 1"):
        knock_out(drawing[0], Pairs(), ("attention_8",), count=3, batch_size=1)


@pytest.mark.parametrize("attention", ["uniform", "squeeze_excite", "residual", "none"])
def test_layers_without_a_learned_map_have_none_to_replace(attention):
    module = Generator(32, 0, base_channels=2, attention_resolutions=(16,), attention=attention)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 5)), None, train=False))
    assert replaceable_layers(trained(module, 5, dict(variables))) == ()
