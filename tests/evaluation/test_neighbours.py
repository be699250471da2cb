import numpy as np
import pytest

from sagan_jax.data import open_source
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.embeddings import Embedding
from sagan_jax.evaluation.neighbours import NearestSearch, nearest_training_images
from sagan_jax.runtime.progress import NullProgress
from sagan_jax.views.figures import neighbour_sheet

# The feature is the brightness of an image, so the nearest images in features and in pixels differ.
MEANS = Embedding("means", "means", lambda variables, images: {"features": images.mean((1, 2, 3))[:, None]}, (), 1)


@pytest.fixture
def source(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (43, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    return open_source(str(tmp_path / "images.npz"), resolution=32, cache="")


def stacked(source):
    return np.stack([source[index][0] for index in range(len(source))])


@pytest.mark.parametrize("size", [1, 7, 50])
def test_search_finds_the_nearest_of_a_stream_for_any_batch_size(size):
    drawn = np.random.default_rng(1)
    queries, rows = drawn.normal(size=(5, 3)), drawn.normal(size=(41, 3))
    search = NearestSearch(queries, 4)
    for start in range(0, len(rows), size):
        search.update(rows[start : start + size], start)
    distances = np.sqrt(((queries[:, None] - rows) ** 2).sum(-1))
    assert np.array_equal(search.nearest.indices, distances.argsort(1)[:, :4])
    assert np.allclose(search.nearest.distances, np.sort(distances, 1)[:, :4])


def test_copy_of_a_training_image_is_found_at_distance_zero(source):
    copies = stacked(source)[[17, 3]]
    for report in nearest_training_images(copies, source, MEANS, count=2, progress=NullProgress()):
        assert report.nearest.indices[:, 0].tolist() == [17, 3]
        assert report.nearest.distances[:, 0] == pytest.approx(0, abs=1e-3)


def test_nearest_are_those_of_plain_loops_in_pixels_and_in_features(source):
    images = np.random.default_rng(5).integers(0, 255, (3, 32, 32, 3), np.uint8)
    in_pixels, in_features = nearest_training_images(images, source, MEANS, count=4, progress=NullProgress())
    training = stacked(source)
    far = np.sqrt((((images[:, None].astype(float) - training) / 255) ** 2).sum((2, 3, 4)))
    assert np.array_equal(in_pixels.nearest.indices, far.argsort(1)[:, :4])
    assert np.allclose(in_pixels.nearest.distances, np.sort(far, 1)[:, :4], rtol=1e-5)
    difference = np.abs(images.mean((1, 2, 3))[:, None] - training.mean((1, 2, 3)))
    assert np.array_equal(in_features.nearest.indices[:, 0], difference.argmin(1))


def test_distance_between_real_images_leaves_out_the_image_itself(source):
    in_pixels, _ = nearest_training_images(stacked(source)[:1], source, MEANS, count=1, progress=NullProgress())
    training = stacked(source).astype(float) / 255
    far = np.sqrt(((training[:, None] - training) ** 2).sum((2, 3, 4)))
    np.fill_diagonal(far, np.inf)
    assert np.sort(in_pixels.between_real) == pytest.approx(np.sort(far.min(1)), rel=1e-5)


def test_more_neighbours_than_images_are_refused(source):
    with pytest.raises(InvalidInputError, match="43 images"):
        nearest_training_images(stacked(source)[:1], source, MEANS, count=43, progress=NullProgress())


def test_sheet_puts_each_image_beside_its_neighbours():
    drawn = np.random.default_rng(0)
    images = drawn.integers(0, 254, (2, 4, 4, 3), np.uint8)
    near = drawn.integers(0, 254, (2, 2, 3, 4, 4, 3), np.uint8)  # space, image, neighbour
    sheet = neighbour_sheet(images, near, gap=5)
    assert np.array_equal(sheet[6:10, :4], images[1])
    for space in range(2):
        left = 4 + 5 + space * (3 * 4 + 2 * 2 + 5)
        for column in range(3):
            x = left + column * 6
            assert np.array_equal(sheet[6:10, x : x + 4], near[space, 1, column])
