import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.interpolation import interpolate, slerp
from sagan_jax.runtime.image_files import save_animation
from support.generators import make_generator


def varied_generator(num_classes=3):
    """A generator whose parameters are far from their initial values, at which all classes look alike."""
    untrained, drawn = make_generator(num_classes), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: leaf + 0.3 * drawn.normal(size=leaf.shape).astype(np.float32), untrained.variables
    )
    positive = jax.tree.map(np.abs, variables["batch_stats"])
    return dataclasses.replace(untrained, variables={"params": variables["params"], "batch_stats": positive})


@pytest.fixture(scope="module")
def generator():
    return varied_generator()


def latents_of(generator, seed, numbers):
    return np.asarray(generator.latents(jax.random.key(seed), np.asarray(numbers)))


def test_slerp_keeps_the_length_of_latents_of_one_length_and_the_angle_uniform():
    drawn = np.random.default_rng(0).normal(size=(2, 3, 7))
    first, second = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    path = slerp(first, second, np.linspace(0, 1, 5))
    assert path.shape == (3, 5, 7)
    assert np.allclose(np.linalg.norm(path, axis=-1), 1)
    steps = np.arccos((path[:, 1:] * path[:, :-1]).sum(-1))
    assert np.allclose(steps, steps[:, :1])


def test_slerp_of_equal_latents_is_constant():
    latent = np.random.default_rng(0).normal(size=(2, 7))
    assert np.allclose(slerp(latent, latent, np.linspace(0, 1, 4)), latent[:, None], atol=1e-5)


@pytest.mark.parametrize("between", ["z", "class", "both"])
def test_ends_of_a_row_are_the_two_samples(generator, between):
    images = interpolate(generator, between=between, rows=3, steps=4, classes=(2, 0, 1), seed=5)
    assert images.shape == (3, 4, 32, 32, 3)
    for row, (start, end) in enumerate([(2, 0), (0, 1), (1, 2)]):
        latents = latents_of(generator, 5, [2 * row, 2 * row + 1])
        last_latent = latents[0 if between == "class" else 1]
        last_class = start if between == "z" else end
        for image, latent, label in ((images[row, 0], latents[0], start), (images[row, -1], last_latent, last_class)):
            wanted = generator.images(latent[None], np.array([label], np.int32))[0]
            assert np.abs(image.astype(int) - wanted).max() <= 1


def test_images_between_the_ends_differ_from_both(generator):
    images = interpolate(generator, between="both", rows=1, steps=3).astype(int)
    assert np.abs(images[0, 1] - images[0, 0]).max() > 3
    assert np.abs(images[0, 1] - images[0, 2]).max() > 3


def test_mixture_of_one_class_is_that_class(generator):
    latents = latents_of(generator, 0, range(4))
    labels = np.array([2, 0, 1, 2], np.int32)
    mixtures = np.eye(3, dtype=np.float32)[labels]
    assert np.abs(generator.images(latents, labels).astype(int) - generator.images(latents, mixtures)).max() <= 1


def test_unconditional_generator_interpolates_latents_only():
    generator = varied_generator(num_classes=0)
    assert interpolate(generator, between="z", rows=2, steps=3).shape == (2, 3, 32, 32, 3)
    with pytest.raises(InvalidInputError, match="no classes"):
        interpolate(generator, between="class", rows=2, steps=3)


@pytest.mark.parametrize(("rows", "steps", "classes"), [(0, 3, ()), (2, 1, ()), (2, 3, (3,))])
def test_numbers_out_of_range_are_refused(generator, rows, steps, classes):
    with pytest.raises(InvalidInputError):
        interpolate(generator, between="z", rows=rows, steps=steps, classes=classes)


@pytest.mark.parametrize(("kind", "channels"), [("gif", 3), ("webp", 1), ("webp", 3)])
def test_animation_holds_every_frame_in_order(tmp_path, kind, channels):
    frames = [np.full((6, 8, channels), level, np.uint8) for level in (10, 120, 240)]
    path = tmp_path / f"frames.{kind}"
    save_animation(path, frames)
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.info["loop"] == 0
        for number, frame in enumerate(frames):
            image.seek(number)
            found = np.asarray(image.convert("RGB")).astype(int)
            assert found.shape == (6, 8, 3)
            assert np.abs(found - frame).max() <= 4
