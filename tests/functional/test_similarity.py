import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sagan_jax import functional


@pytest.fixture
def images():
    """Two float64 [2, 13, 17, 3] in [0, 1] that have something in common."""
    first, other = np.random.default_rng(0).uniform(0, 1, (2, 2, 13, 17, 3))
    return first, 0.7 * first + 0.3 * other


def theirs(first, second, value_range):
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    return structural_similarity(first, second, data_range=value_range, full=True, **settings)


@pytest.mark.parametrize("value_range", [2.0, 1.0])
def test_structural_similarity_is_that_of_scikit_image(images, value_range):
    first, second = images
    found = np.asarray(functional.structural_similarity(*map(jnp.float32, images), value_range))
    for row in range(len(first)):
        score, where = theirs(first[row], second[row], value_range)
        np.testing.assert_allclose(found[row], where.mean(axis=-1), atol=2e-6)
        np.testing.assert_allclose(found[row, 5:-5, 5:-5].mean(), score, atol=2e-6)


def test_structural_similarity_has_no_order(images):
    first, second = map(jnp.float32, images)
    one, other = functional.structural_similarity(first, second), functional.structural_similarity(second, first)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_peak_signal_to_noise_is_that_of_scikit_image(images):
    first, second = images
    found = functional.peak_signal_to_noise(jnp.float32(((first - second) ** 2).mean(axis=(1, 2, 3))))
    wanted = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_masked_mean_leaves_out_nan_outside_its_mask(images):
    values, masks = images[0].astype(np.float32), np.random.default_rng(1).random((2, 13, 17)) < 0.3
    masks[1] = False
    broken = np.where(masks[..., None], values, np.nan)
    found = functional.masked_mean(jnp.asarray(broken), jnp.asarray(masks))
    np.testing.assert_allclose(found, [values[0][masks[0]].mean(), 0], rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 17, 3), (2, 17, 5, 3)])
def test_structural_similarity_refuses_images_smaller_than_its_window(shape):
    with pytest.raises(AssertionError, match=r"structural_similarity needs H and W of at least 6; got \(2, "):
        functional.structural_similarity(jnp.zeros(shape), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("first", "second"), [((13, 17, 3), (13, 17, 3)), ((2, 13, 17, 3), (2, 13, 17, 1)), ((2, 9, 7, 3), (3, 9, 7, 3))]
)
def test_structural_similarity_refuses_images_of_other_axes_or_shapes(first, second):
    with pytest.raises(AssertionError, match=r"first \[B, H, W, C\], floating second \[B, H, W, C\]; got"):
        functional.structural_similarity(jnp.zeros(first), jnp.zeros(second))


@pytest.mark.parametrize(
    ("values", "masks"),
    [
        (jnp.zeros((2, 5, 7)), jnp.ones((2, 5, 7), bool)),
        (jnp.zeros((2, 5, 7, 3)), jnp.ones((2, 7, 5), bool)),
        (jnp.zeros((2, 5, 7, 3)), jnp.ones((2, 5, 7))),
        (jnp.zeros((2, 5, 7, 3), jnp.int32), jnp.ones((2, 5, 7), bool)),
    ],
)
def test_masked_mean_refuses_shapes_and_dtypes_that_do_not_fit(values, masks):
    with pytest.raises(AssertionError, match=r"floating values \[B, H, W, C\], bool masks \[B, H, W\]; got"):
        functional.masked_mean(values, masks)


def test_masked_mean_of_float16_sums_in_float32():
    found = functional.masked_mean(jnp.full((1, 160, 160, 3), 2, jnp.float16), jnp.ones((1, 160, 160), bool))
    assert (found.tolist(), found.dtype) == ([2.0], jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_peak_signal_to_noise_of_no_error_is_finite_in_every_dtype(dtype):
    assert float(functional.peak_signal_to_noise(jnp.zeros((), dtype))) == pytest.approx(106.0206, abs=1e-3)


def test_structural_similarity_of_float16_is_that_of_float32(images):
    narrow = [jnp.asarray(255 * image, jnp.float16) for image in images]
    found = functional.structural_similarity(*narrow, 255.0)
    wanted = functional.structural_similarity(*(image.astype(jnp.float32) for image in narrow), 255.0)
    np.testing.assert_array_equal(found, wanted)


def test_scores_of_an_empty_batch_are_empty():
    images = jnp.zeros((0, 13, 17, 3))
    assert functional.masked_mean(images, jnp.zeros((0, 13, 17), bool)).shape == (0,)
    assert functional.structural_similarity(images, images).shape == (0, 13, 17)
