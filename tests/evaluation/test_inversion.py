"""Inversion by gradients: it finds the latent and the class of an image that the generator made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.errors import NonFiniteError
from sagan_jax.evaluation import inversion
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.inversion import LatentSearch, _nearest_of_each, invert
from sagan_jax.models.sagan import Generator
from support.assertions import refusal
from support.generators import make_generator
from support.images import noise
from support.params import draw_tree, variable_shapes

pytestmark = pytest.mark.one_jax

SEARCH = LatentSearch(starts=6, steps=120, prior=1e-5)


@pytest.fixture(scope="module")
def trained():
    """A generator with drawn variables. Its images show the class and every entry of the latent."""
    network = Generator(resolution=32, num_classes=3, base_channels=2, attention_resolutions=(16,))
    return TrainedGenerator(network, draw_tree(dict(variable_shapes(network, 5)), 0), 5, 3, step=7)


@pytest.fixture(scope="module")
def made(trained):
    """An image of that generator `[H, W, C]` uint8, with its latent `[5]` and its class."""
    latent, label = np.float32([[0.7, -1.1, 0.2, 1.6, -0.4]]), np.int32([1])
    return trained.images(latent, label)[0], latent[0], int(label[0])


@pytest.fixture(scope="module")
def found(trained, made):
    return invert(trained, made[0], search=SEARCH)


@pytest.mark.slow
def test_image_that_the_generator_made_is_found_again(found, made):
    image, latent, label = made
    assert found.label == label
    assert np.abs(found.latent - latent).max() < 0.05
    assert found.psnr > 40
    assert found.ssim > 0.98
    assert np.abs(found.image.astype(int) - image).max() < 20


def test_image_that_the_generator_made_is_far_from_the_draws_that_the_search_starts_from(trained, made):
    drawn = trained.generate(8 * SEARCH.starts, labels=1, seed=SEARCH.seed).images
    error = np.square((drawn.astype(float) - made[0]) / 127.5).mean(axis=(1, 2, 3))
    assert 10 * np.log10(4 / error.min()) < 25


def test_image_of_another_class_is_not_found_in_a_given_one(trained, made, found):
    elsewhere = invert(trained, made[0], labels=[2], search=SEARCH)
    assert elsewhere.label == 2
    assert elsewhere.psnr < found.psnr - 10


def test_image_that_no_generator_made_is_not_found(trained):
    assert invert(trained, noise(32, 32, 3), search=SEARCH).psnr < 15


def test_larger_prior_gives_a_shorter_latent(trained, made, found):
    pulled = invert(trained, made[0], labels=[1], search=LatentSearch(starts=6, steps=120, prior=1.0))
    assert np.linalg.norm(pulled.latent) < 0.8 * np.linalg.norm(found.latent)


@pytest.mark.slow
def test_loss_is_that_of_pixels_activations_and_prior(trained, made, monkeypatch):
    class Halved:
        def apply(self, variables, images):
            return [variables["gain"] * images[:, ::2]]

    monkeypatch.setattr(inversion, "Lite0Activations", Halved)
    search = LatentSearch(starts=6, steps=3, prior=0.25, perceptual=0.5)
    found = invert(trained, made[0], search=search, lite0={"gain": jnp.float32(2.0)})
    drawn = trained.generator.apply(trained.variables, found.latent[None], np.int32([found.label]), train=False)
    drawn, target = np.float64(drawn[0]), made[0] / 127.5 - 1
    units = [
        2 * rows[::2] / np.sqrt(np.square(2 * rows[::2]).sum(-1, keepdims=True) + 1e-6) for rows in (drawn, target)
    ]
    distance = np.square(units[0] - units[1]).sum(-1).mean()
    wanted = np.square(drawn - target).mean() + 0.5 * distance + 0.25 * np.square(np.float64(found.latent)).mean()
    assert found.loss == pytest.approx(wanted, rel=1e-4)


def test_starts_are_the_nearest_of_each_class_and_then_the_second_nearest():
    losses, classes = np.array([5.0, 1.0, 3.0, 2.0, 4.0, 0.0]), np.array([7, 4, 7, 4, 9, 4])
    assert _nearest_of_each(losses, classes, 5).tolist() == [5, 2, 4, 1, 0]


def test_generator_that_has_diverged_is_an_error(trained, made):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, trained.variables)
    other = TrainedGenerator(trained.generator, broken, 5, 3, step=7)
    with pytest.raises(NonFiniteError, match="has diverged"):
        invert(other, made[0], search=SEARCH)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": LatentSearch(starts=0)}, "starts of at least 1; got 0"),
        ({"search": LatentSearch(steps=0)}, "steps of at least 1; got 0"),
        ({"search": LatentSearch(prior=-1.0)}, "prior of at least 0; got -1.0"),
        ({"search": LatentSearch(learning_rate=0.0)}, "a learning_rate above 0; got 0.0"),
        ({"search": LatentSearch(seed=-1)}, r"a seed in [0, 2**32); got -1"),
        ({"search": LatentSearch(perceptual=1.0)}, "the variables of EfficientNet-Lite0"),
        ({"labels": [3]}, "has the 3 classes 0 to 2; got the classes [3]"),
    ],
)
def test_search_that_cannot_be_is_refused(trained, made, options, said):
    assert said in refusal(invert, trained, made[0], **options)


@pytest.mark.parametrize("image", [noise(16, 32, 3), noise(32, 32, 1), noise(32, 32, 3).astype(float)])
def test_image_of_another_kind_is_refused(trained, image):
    assert "an image of uint8 [32, 32, 3], as the generator draws them; got" in refusal(invert, trained, image)


@pytest.mark.slow
def test_unconditional_generator_has_no_class():
    trained = make_generator(num_classes=0)
    image = trained.generate(1).images[0]
    assert invert(trained, image, search=LatentSearch(starts=1, steps=1)).label is None
