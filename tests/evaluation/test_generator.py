"""Sampling from a generator: streams, labels, and the statistics of its batch norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.generator import TrainedGenerator, draw_labels
from sagan_jax.models import biggan, dcgan
from support.assertions import refusal
from support.generators import make_generator


@pytest.fixture(scope="module")
def generator():
    return make_generator()


def test_stream_is_what_generate_returns_for_any_number_of_shards(generator):
    labels = draw_labels(3, 21, seed=5)
    whole = generator.generate(21, labels=labels, seed=5, batch_size=8).images
    for shard_count in (1, 2, 4):
        images, times_drawn = np.zeros_like(whole), np.zeros(21, int)
        for shard_index in range(shard_count):
            shard = {"shard_index": shard_index, "shard_count": shard_count}
            for batch in generator.stream(labels, seed=5, batch_size=8, **shard):
                count = len(batch.labels)
                images[batch.start : batch.start + count] = np.asarray(batch.images)[:count]
                times_drawn[batch.start : batch.start + count] += 1
                assert np.array_equal(batch.labels, labels[batch.start : batch.start + count])
        assert np.array_equal(images, whole)
        assert times_drawn.tolist() == [1] * 21


def test_drawn_labels_are_uniform_and_follow_from_the_seed():
    labels = draw_labels(7, 70_000, seed=1)
    assert np.bincount(labels) == pytest.approx(10_000, rel=0.05)
    assert np.array_equal(labels[:50], draw_labels(7, 70_000, seed=1)[:50])
    assert not np.array_equal(labels, draw_labels(7, 70_000, seed=2))
    assert draw_labels(0, 5, seed=1).tolist() == [0] * 5


def test_batch_statistics_are_those_of_the_images_of_one_batch(generator):
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    images = generator.with_batch_statistics().generate(8, labels=labels, batch_size=8).images
    latents = generator.latents(jax.random.key(0), np.arange(8), None)
    drawn = generator.generator.apply(generator.variables, latents, jnp.asarray(labels), train=True)
    assert np.abs(images.astype(int) - (np.asarray(drawn) + 1) * 127.5).max() <= 0.51


@pytest.mark.slow
def test_standing_statistics_of_one_batch_are_its_own(generator):
    standing = generator.with_standing_statistics(batches=1, batch_size=12, seed=4)
    latents = generator.latents(jax.random.fold_in(jax.random.key(4), 2**31), np.arange(12), None)
    labels = draw_labels(3, 12, 4)
    with_batch = generator.generator.apply(generator.variables, latents, labels, train=True)
    with_standing = generator.generator.apply(standing.variables, latents, labels, train=False)
    assert np.abs(np.asarray(with_batch) - np.asarray(with_standing)).max() < 1e-5
    stored = generator.generator.apply(generator.variables, latents, labels, train=False)
    assert np.abs(np.asarray(stored) - np.asarray(with_standing)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", [dcgan, biggan])
def test_standing_statistics_of_one_batch_are_its_own_in_every_family(family):
    network = family.Generator(32, 3, 2, attention_resolutions=())
    variables = network.init(jax.random.key(0), jnp.zeros((2, 12)), jnp.zeros(2, jnp.int32), train=False)
    trained = TrainedGenerator(network, variables, 12, 3, step=0)
    standing = trained.with_standing_statistics(batches=1, batch_size=8, seed=4)
    latents = trained.latents(jax.random.fold_in(jax.random.key(4), 2**31), np.arange(8), None)
    labels = draw_labels(3, 8, 4)
    with_batch = network.apply(variables, latents, labels, train=True)
    with_standing = network.apply(standing.variables, latents, labels, train=False)
    assert np.abs(np.asarray(with_batch) - np.asarray(with_standing)).max() < 1e-5


@pytest.mark.slow
def test_standing_statistics_are_the_mean_over_batches(generator):
    many = generator.with_standing_statistics(batches=2, batch_size=6, seed=4).variables["batch_stats"]
    key, labels = jax.random.fold_in(jax.random.key(4), 2**31), draw_labels(3, 12, 4)
    first = generator.generator.clone(norm_decay=0.0, final_norm_decay=0.0)
    moments = [
        first.apply(
            generator.variables,
            generator.latents(key, numbers, None),
            labels[numbers],
            train=True,
            mutable=["batch_stats"],
        )[1]["batch_stats"]
        for numbers in (np.arange(6), np.arange(6, 12))
    ]
    mean = jax.tree.map(lambda one, two: (np.asarray(one) + np.asarray(two)) / 2, *moments)
    for found, wanted in zip(jax.tree.leaves(many), jax.tree.leaves(mean), strict=True):
        assert np.allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["num_images", "batch_size", "seed"])
@pytest.mark.parametrize("number", [2.0, 1.5, "2", None, True, -1])
def test_generate_refuses_numbers_that_are_no_counts_in_one_line(generator, name, number):
    with pytest.raises(InvalidInputError, match=rf"generate needs .*{name}.*; got {number!r}\.$"):
        generator.generate(**{name: number})


@pytest.mark.parametrize("truncation", ["half", 0, float("nan"), -1.0])
def test_generate_refuses_a_truncation_that_is_no_positive_number(generator, truncation):
    with pytest.raises(InvalidInputError, match="truncation above 0; got"):
        generator.generate(2, truncation=truncation)


def test_standing_statistics_need_a_batch(generator):
    with pytest.raises(InvalidInputError, match="with_standing_statistics needs batches of at least 1; got 0"):
        generator.with_standing_statistics(batches=0)


def test_generate_takes_numpys_integers(generator):
    wanted = generator.generate(2, seed=5, batch_size=8).images
    assert np.array_equal(generator.generate(np.int64(2), seed=np.uint32(5), batch_size=np.int32(8)).images, wanted)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, 1.5], "integer labels [N]; got float64 [2]"),
        (np.array([0.0, 1.0], np.float32), "got float32 [2]"),
        ([True, False], "got bool [2]"),
        ([[0, 1]], "got int64 [1, 2]"),
        (1, "got int64 []"),
        ([0, 3], "labels from 0 to 2; got some from 0 to 3"),
        ([-1], "got some from -1 to -1"),
        ([2**40], "got some from"),
    ],
)
def test_stream_refuses_labels_that_are_no_classes_in_one_line(generator, labels, said):
    message = refusal(lambda: next(generator.stream(labels)))
    assert message.startswith("stream needs ")
    assert said in message


def test_stream_of_no_labels_is_empty(generator):
    assert list(generator.stream([])) == []
