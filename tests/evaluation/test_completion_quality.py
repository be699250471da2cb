"""Scores of completions, on arrays and on an untrained network."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from sagan_jax.data import open_source
from sagan_jax.data.masks import draw_masks
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import completion_quality
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.completion_quality import (
    completion_scores,
    diversity,
    lite0_distance,
    reconstruction_quality,
)
from sagan_jax.evaluation.image_sets import CompletedImages
from sagan_jax.models.completion import CompletionNetwork
from support.images import smooth_images

pytestmark = pytest.mark.one_jax

SIZE, COUNT = 64, 7


@pytest.fixture(scope="module")
def images():
    return smooth_images(COUNT, SIZE)


@pytest.fixture(scope="module")
def path(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs") / "photographs.npy"
    np.save(path, images)
    return path


@pytest.fixture(scope="module")
def source(path):
    return open_source(str(path), resolution=SIZE)


@pytest.fixture(scope="module")
def completer(images):
    network = CompletionNetwork(base_channels=2, latent_size=5, attention_resolutions=(16,))
    masks = np.zeros(images.shape[:3], bool)
    params = network.init(jax.random.key(0), images[:1] / 127.5 - 1, masks[:1])["params"]
    # An untrained network is nearly constant: its images would hardly depend on the latents.
    return TrainedCompleter(network, jax.tree.map(lambda leaf: 3 * leaf, params), step=11)


def test_reconstruction_quality_is_what_scikit_image_measures(images):
    masks = draw_masks("strokes", SIZE, SIZE, seed=0, indices=range(COUNT))
    noise = np.random.default_rng(1).integers(-40, 41, images.shape)
    completed = np.where(masks[..., None], np.clip(images + noise, 0, 255), images).astype(np.uint8)
    found = reconstruction_quality(completed, images, masks)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    for row, (one, other, mask) in enumerate(zip(completed / 255, images / 255, masks, strict=True)):
        error = (one - other)[mask]
        score, where = structural_similarity(one, other, data_range=1, full=True, **settings)
        wanted = {
            "psnr": -10 * np.log10((error**2).mean()),
            "l1": abs(error).mean(),
            "ssim": where[mask].mean(),
            "psnr_image": -10 * np.log10(((one - other) ** 2).mean()),
            "l1_image": abs(one - other).mean(),
            "ssim_image": score,
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name][row], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("count", [2, 5])
def test_diversity_is_the_mean_over_pairs(images, count):
    masks = draw_masks("centre", SIZE, SIZE, seed=0, indices=range(3))
    samples = np.random.default_rng(2).integers(0, 256, (count, 3, SIZE, SIZE, 3), np.uint8)
    found = diversity(samples, masks)
    for row, mask in enumerate(masks):
        holes = samples[:, row][:, mask].astype(float) / 255
        pairs = [abs(one - other).mean() for one, other in itertools.combinations(holes, 2)]
        np.testing.assert_allclose(found[row], np.mean(pairs), rtol=1e-5)


def test_equal_samples_have_no_diversity(images):
    masks = draw_masks("centre", SIZE, SIZE, seed=0, indices=range(COUNT))
    assert diversity(np.stack([images] * 3), masks).tolist() == [0.0] * COUNT


@pytest.mark.slow
def test_scores_are_those_of_completions_by_the_mean_latents(completer, source, images):
    found = completion_scores(completer, source, "rectangle", num_images=5, samples=3, seed=4, batch_size=2)
    masks = draw_masks("rectangle", SIZE, SIZE, seed=4, indices=range(5))
    wanted = reconstruction_quality(completer.complete(images[:5], masks), images[:5], masks)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(
        found["diversity"], diversity(completer.sample(images[:5], masks, 3, seed=4), masks), rtol=1e-2
    )
    assert found["diversity"].min() > 0


class Scaled(nn.Module):
    """Stands in for the network: one layer, whose activations are pixels times a variable."""

    @nn.compact
    def __call__(self, images):
        return [images * self.param("scale", nn.initializers.ones, (3,))[None, None, None]]


def test_lite0_distance_is_that_of_whole_images_in_batches_of_any_size(images, monkeypatch):
    monkeypatch.setattr(completion_quality, "Lite0Activations", Scaled)
    monkeypatch.setattr(completion_quality, "_BATCH", 3)
    completed = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    scale = np.array([1.0, 2.0, 0.5])
    ends = [(pixels / 127.5 - 1) * scale for pixels in (completed, images)]
    ends = [end / np.sqrt((end**2).sum(-1, keepdims=True) + 1e-6) for end in ends]
    wanted = ((ends[0] - ends[1]) ** 2).sum(-1).mean((1, 2))
    found = lite0_distance(completed, images, {"params": {"scale": jnp.asarray(scale, jnp.float32)}})
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert lite0_distance(images, images, {"params": {"scale": jnp.ones(3)}}).max() == 0


@pytest.mark.slow
def test_scores_have_the_lite0_distance_where_its_network_is_given(completer, source, images, monkeypatch):
    monkeypatch.setattr(completion_quality, "lite0_distance", lambda completed, originals, variables: variables["d"])
    found = completion_scores(completer, source, "centre", num_images=2, samples=0, lite0={"d": np.array([0.5, 0.25])})
    assert found["lite0_image"].tolist() == [0.5, 0.25]
    assert "lite0_image" not in completion_scores(completer, source, "centre", num_images=2, samples=0)


def drawn(completer, source, batch_size, count=10, seed=3):
    batches = CompletedImages(completer, source, ("centre", "half_left"), batch_size).draw(count, seed)
    return np.concatenate([batch.images[: len(batch.labels)] for batch in batches])


def test_drawn_completions_do_not_depend_on_the_batch_size(completer, source):
    one, other = drawn(completer, source, 4), drawn(completer, source, 10)
    assert one.shape == (10, SIZE, SIZE, 3)
    assert abs(one.astype(int) - other).max() <= 1  # rounded from values that differ in their last bits


def test_drawn_completions_take_photographs_and_holes_in_turn(completer, source, images):
    completions = drawn(completer, source, 4)
    order = np.random.default_rng([3, 2]).permutation(COUNT)
    left = np.zeros((SIZE, SIZE), bool)
    left[:, : SIZE // 2] = True
    centre = draw_masks("centre", SIZE, SIZE, seed=0, indices=[0])[0]
    for number, completed in enumerate(completions):
        hole, photo = (centre, left)[number % 2], images[order[number % COUNT]]
        assert np.array_equal(completed[~hole], photo[~hole])
        assert not np.array_equal(completed[hole], photo[hole])
    # The eighth photograph is the first again, with another hole and other latents.
    assert not np.array_equal(completions[0], completions[7])


def test_completions_have_no_classes(completer, source):
    with pytest.raises(InvalidInputError, match="no classes"):
        CompletedImages(completer, source, ("centre",)).draw_class(0, 1, 0)
