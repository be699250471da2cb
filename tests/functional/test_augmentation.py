"""Each augmentation against the same in numpy, and what all of them promise about keys and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import augment

AUGMENTATIONS = ("color", "translation", "cutout")
ROWS, HEIGHT, WIDTH = 3, 16, 24


def keys(count=ROWS, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def some_images(count=ROWS, channels=3, dtype=np.float32):
    return np.random.default_rng(1).uniform(-1, 1, (count, HEIGHT, WIDTH, channels)).astype(dtype)


def moved(image, down, right):
    """The image moved by whole pixels, with zeros where it leaves a gap."""
    result = np.zeros_like(image)
    height, width, _ = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[row, column] = image[row - down, column - right]
    return result


def test_translation_moves_whole_pixels_and_fills_with_zeros():
    images = some_images()
    for before, after in zip(images, np.asarray(augment(keys(), images, ["translation"])), strict=True):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if np.array_equal(moved(before, down, right), after)
        ]
        assert len(fits) == 1


def test_translation_goes_as_far_in_each_direction_as_an_eighth_and_equally_often():
    count = 3500
    # One bright point in the middle tells where the image went.
    images = np.zeros((count, HEIGHT, WIDTH, 1), np.float32)
    images[:, 8, 12] = 1
    _, rows, columns, _ = np.nonzero(np.asarray(augment(keys(count), images, ["translation"])))
    down, right = np.bincount(rows - 6), np.bincount(columns - 9)
    assert (len(down), len(right)) == (5, 7)
    for found in (down, right):
        expected = count / len(found)
        assert np.abs(found - expected).max() < 5 * expected**0.5
    # The two directions are drawn independently.
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_translation_moves_a_pixel_that_is_not_finite_and_leaves_the_others(bad):
    images = some_images()
    broken = images.copy()
    broken[1, 8, 12, 0] = bad
    found, whole = (np.asarray(augment(keys(), each, ["translation"])) for each in (broken, images))
    differs = found != whole
    assert np.argwhere(differs)[:, [0, 3]].tolist() == [[1, 0]]
    np.testing.assert_array_equal(found[differs], bad)


def test_translation_has_a_gradient_without_any_scatter():
    def total(images):
        return augment(keys(), images, ["translation"]).sum()

    assert "scatter" not in jax.jit(jax.grad(total)).lower(jnp.asarray(some_images())).as_text()


def test_cutout_is_a_rectangle_of_half_of_each_side_wherever_its_middle_lies():
    count = 4000
    holes = np.asarray(augment(keys(count), np.ones((count, HEIGHT, WIDTH, 1), np.float32), ["cutout"]))[..., 0] == 0
    for axis, size in ((1, HEIGHT), (2, WIDTH)):
        lines = holes.any(axis=3 - axis)
        first = lines.argmax(axis=1)
        length = lines.sum(axis=1)
        last = first + length - 1
        # Without gaps, so the hole is a rectangle.
        assert np.array_equal(lines, (np.arange(size) >= first[:, None]) & (np.arange(size) <= last[:, None]))
        # Its middle is uniform from one border to the other: a start before the border shortens it.
        start = np.where(first > 0, first, length - size // 2)
        found = np.bincount(start + size // 2 - size // 4, minlength=size + 1)
        inside = found[size // 4 : -1]
        assert (start.min(), start.max()) == (-(size // 4), size - size // 4)
        assert last.max() == size - 1
        assert np.abs(inside[inside > 0] - count / (size + 1)).max() < 5 * (count / (size + 1)) ** 0.5
    assert np.array_equal(holes, holes.any(axis=2, keepdims=True) & holes.any(axis=1, keepdims=True))


def test_sides_that_do_not_divide_are_rounded_half_up():
    images = np.ones((300, 12, 21, 1), np.float32)
    holes = np.asarray(augment(keys(300), images, ["cutout"]))[..., 0] == 0
    assert holes.any(axis=2).sum(axis=1).max() == 6
    assert holes.any(axis=1).sum(axis=1).max() == 11
    zeros = np.asarray(augment(keys(300), images, ["translation"]))[..., 0] == 0
    assert zeros.all(axis=2).sum(axis=1).max() == 2
    assert zeros.all(axis=1).sum(axis=1).max() == 3


def test_cutout_leaves_the_rest_as_it_is():
    images = some_images()
    after = np.asarray(augment(keys(), images, ["cutout"]))
    hole = (after == 0).all(axis=-1)
    assert hole.any()
    assert np.array_equal(after[~hole], images[~hole])


def test_color_is_brightness_then_saturation_then_contrast():
    images = some_images().astype(np.float64)
    after = np.asarray(augment(keys(), images.astype(np.float32), ["color"]), np.float64)
    for before, found in zip(images, after, strict=True):
        grey, grey_found = before.mean(axis=-1), found.mean(axis=-1)
        contrast, shift = np.polyfit(grey.ravel(), grey_found.ravel(), 1)
        saturation = np.polyfit((before - grey[..., None]).ravel(), (found - grey_found[..., None]).ravel(), 1)[0]
        brightness = grey_found.mean() - grey.mean()
        np.testing.assert_allclose(shift, brightness + grey.mean() * (1 - contrast), atol=1e-5)
        assert abs(brightness) <= 0.5
        assert 0.5 <= contrast <= 1.5
        assert 0 <= saturation / contrast <= 2
        brightened = before + brightness
        level = brightened.mean(axis=-1, keepdims=True)
        saturated = level + (brightened - level) * saturation / contrast
        wanted = saturated.mean() + (saturated - saturated.mean()) * contrast
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_color_draws_over_its_whole_ranges():
    count = 2000
    images = np.zeros((count, 2, 2, 3), np.float32)
    images[:, 0, 0, 0] = 0.6
    after = np.asarray(augment(keys(count), images, ["color"]))
    brightness = after.mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))
    grey = after.mean(axis=-1)
    contrast = (grey[:, 0, 0] - grey[:, 1, 1]) / 0.2
    saturation = (after[:, 0, 0, 0] - grey[:, 0, 0]) / 0.4 / contrast
    for found, low, high in ((brightness, -0.5, 0.5), (contrast, 0.5, 1.5), (saturation, 0, 2)):
        assert low - 1e-4 <= found.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < found.max() <= high + 1e-4
        np.testing.assert_allclose(found.mean(), (low + high) / 2, atol=0.03 * (high - low))
    draws = np.corrcoef([brightness, contrast, saturation])
    assert np.abs(draws - np.eye(3)).max() < 0.1


def test_grey_stays_grey():
    after = np.asarray(augment(keys(), some_images(channels=1).repeat(3, axis=-1), ["color"]))
    np.testing.assert_allclose(after.min(axis=-1), after.max(axis=-1), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels_is_taken(channels):
    assert augment(keys(), some_images(channels=channels), AUGMENTATIONS).shape == (ROWS, HEIGHT, WIDTH, channels)


def test_image_depends_on_its_own_key_alone():
    images = some_images()
    together = np.asarray(augment(keys(), images, AUGMENTATIONS))
    alone = np.asarray(augment(keys()[2:], images[2:], AUGMENTATIONS))
    np.testing.assert_allclose(together[2:], alone, atol=1e-6)
    assert not np.allclose(together, np.asarray(augment(keys(seed=1), images, AUGMENTATIONS)))
    same = np.asarray(augment(keys(), np.repeat(images[:1], ROWS, axis=0), AUGMENTATIONS))
    assert not np.allclose(same[0], same[1])


def test_augmentations_are_applied_in_the_order_given_each_with_its_own_draws():
    images = some_images()
    for one, other in (("translation", "cutout"), ("cutout", "translation")):
        whole = augment(keys(), images, [one, other])
        assert np.array_equal(whole, augment(keys(), augment(keys(), images, [one]), [other]))
    # If two augmentations shared a random number, the hole would move with the image.
    rows = np.ones((400, HEIGHT, WIDTH, 1), np.float32)
    holes = np.asarray(augment(keys(400), rows, ["cutout"]))[..., 0] == 0
    shifted = np.asarray(augment(keys(400), rows, ["translation"]))[..., 0] == 0
    top, down = holes.any(axis=2).argmax(axis=1), shifted[:, :2].all(axis=2).sum(axis=1)
    assert abs(np.corrcoef(top, down)[0, 1]) < 0.2


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_second_augmentation_of_a_name_draws_anew(name):
    images = some_images()
    once = augment(keys(), images, [name])
    twice = np.asarray(augment(keys(), images, [name, name]))
    assert np.array_equal(once, augment(keys(), images, (name,)))
    assert not np.allclose(twice, augment(keys(), once, [name]), atol=1e-6)


def test_no_augmentations_return_the_images_themselves():
    images = jnp.asarray(some_images())
    assert augment(keys(), images, ()) is images


@pytest.mark.slow
@pytest.mark.one_jax
def test_gradient_is_that_of_finite_differences():
    images = some_images(2)
    weights = np.random.default_rng(2).normal(size=images.shape).astype(np.float32)
    direction = np.random.default_rng(3).normal(size=images.shape).astype(np.float32)

    def total(images):
        return (augment(keys(2), images, AUGMENTATIONS) * weights).sum()

    # All three are linear in the image, so that a long step has no error of its own.
    difference = (total(images + direction) - total(images - direction)) / 2
    np.testing.assert_allclose((jax.grad(total)(jnp.asarray(images)) * direction).sum(), difference, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtype_stays(dtype):
    images = jnp.asarray(some_images(), dtype)
    found = augment(keys(), images, AUGMENTATIONS)
    assert found.dtype == dtype
    exact = augment(keys(), images, ["translation"])
    assert set(np.unique(np.asarray(exact, np.float32))) <= set(np.unique(np.asarray(images, np.float32))) | {0.0}


def test_compiled_and_eager_agree():
    images = some_images()
    found = jax.jit(lambda images: augment(keys(), images, AUGMENTATIONS))(images)
    np.testing.assert_allclose(found, augment(keys(), images, AUGMENTATIONS), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "images", "error", "words"),
    [
        (2, np.zeros((3, 4, 4, 3), np.float32), AssertionError, "keys"),
        (3, np.zeros((3, 4, 4), np.float32), AssertionError, "images"),
        (3, np.zeros((3, 4, 4, 3), np.uint8), AssertionError, "floating"),
    ],
)
def test_wrong_shapes_are_refused(count, images, error, words):
    with pytest.raises(error, match=words):
        augment(keys(count), jnp.asarray(images), AUGMENTATIONS)


def test_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="color, translation, cutout; got 'colour'"):
        augment(keys(), some_images(), ["colour"])


def test_function_of_a_user_gets_a_key_of_each_image_and_of_its_place():
    images = some_images()

    def noisy(key, image):
        return image + jax.random.normal(key, image.shape)

    once, twice = (np.asarray(augment(keys(), images, (noisy,) * count)) for count in (1, 2))
    drawn = np.concatenate([once - images, twice - once])
    assert drawn.std() == pytest.approx(1, abs=0.1)
    correlations = np.corrcoef(drawn.reshape(2 * ROWS, -1))
    assert np.abs(correlations - np.eye(2 * ROWS)).max() < 0.15


def test_function_of_a_user_changes_the_images_in_its_turn():
    moved_up = augment(keys(), some_images(), (lambda key, image: image + 1, "translation"))
    assert np.array_equal(moved_up, augment(keys(), some_images() + 1, ["translation"]))
