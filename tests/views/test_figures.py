"""Grids of images, and figures as files."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.image_files import save_png
from sagan_jax.views.figures import class_rows, completion_sheet, encode_figure, image_grid

pytestmark = pytest.mark.one_jax


def make_images(number=5, height=2, width=3, channels=3):
    return np.random.default_rng(4).integers(0, 255, (number, height, width, channels), np.uint8)


@pytest.mark.parametrize(("padding", "scale"), [(0, 1), (2, 1), (1, 4)])
def test_image_grid_puts_each_pixel_where_it_belongs(padding, scale):
    images = make_images()
    grid = image_grid(images, 4, padding=padding, scale=scale, background=255)
    expected = np.full((2 * 2 * scale + padding, 4 * 3 * scale + 3 * padding, 3), 255, np.uint8)
    for n in range(5):
        for y in range(2 * scale):
            for x in range(3 * scale):
                top, left = n // 4 * (2 * scale + padding), n % 4 * (3 * scale + padding)
                expected[top + y, left + x] = images[n, y // scale, x // scale]
    np.testing.assert_array_equal(grid, expected)


def test_image_grid_of_one_image_is_that_image():
    images = make_images(number=1, channels=1)
    np.testing.assert_array_equal(image_grid(images, 1), images[0])


def test_image_grid_leaves_the_background_it_is_given():
    grid = image_grid(make_images(number=3), 2, padding=1, background=9)
    assert np.all(grid[2] == 9)
    assert np.all(grid[3:, 4:] == 9)


@pytest.mark.parametrize(
    "images", [np.zeros((5, 2, 3, 1)), np.zeros((2, 3, 1), np.uint8), np.zeros((0, 2, 3, 1), np.uint8)]
)
def test_image_grid_refuses_what_are_no_images(images):
    with pytest.raises(InvalidInputError, match=r"needs images \[N, H, W, C\] of uint8; got \["):
        image_grid(images, 2)


@pytest.mark.parametrize("option", [{"columns": 0}, {"padding": -1}, {"scale": 0}, {"background": 256}])
def test_image_grid_refuses_a_number_out_of_range(option):
    with pytest.raises(InvalidInputError, match="columns >= 1"):
        image_grid(make_images(), **{"columns": 2, **option})


def test_save_png_makes_the_folders_and_leaves_nothing_else(tmp_path):
    images = make_images()
    save_png(tmp_path / "a" / "b.png", images[0])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]
    with Image.open(tmp_path / "a" / "b.png") as found:
        np.testing.assert_array_equal(np.asarray(found), images[0])


def test_class_rows_put_each_class_into_a_row_of_its_own():
    images = np.array([5, 6, 7, 8, 9, 4], np.uint8).reshape(6, 1, 1, 1)
    picture = class_rows(images, np.array([2, 0, 2, 0, 2, 0]))
    assert picture[::3, ::3, 0].tolist() == [[6, 8, 4], [5, 7, 9]]


def test_class_rows_never_mix_two_classes():
    images = np.array([5, 6, 7, 8, 9], np.uint8).reshape(5, 1, 1, 1)
    picture = class_rows(images, np.array([3, 1, 3, 1, 3]))
    assert picture[::3, ::3, 0].tolist() == [[6, 8, 255], [5, 7, 9]]


def test_class_rows_wrap_after_ten():
    picture = class_rows(np.arange(26, dtype=np.uint8).reshape(26, 1, 1, 1), np.arange(26) % 2)
    assert picture[::3, ::3, 0].tolist() == [
        [*range(0, 20, 2)],
        [20, 22, 24, *[255] * 7],
        [*range(1, 21, 2)],
        [21, 23, 25, *[255] * 7],
    ]


def test_class_rows_of_one_class_make_a_square():
    assert class_rows(np.zeros((7, 1, 1, 3), np.uint8), np.zeros(7)).shape == (3 + 2 * 2, 3 + 2 * 2, 3)


def test_completion_sheet_shows_hole_completions_and_original_in_a_row():
    images = np.array([5, 6, 7, 8], np.uint8).reshape(2, 1, 2, 1)
    masks = np.array([[[True, False]], [[False, True]]])
    sheet = completion_sheet(images, masks, [images + 10, images + 20])
    rows = [[128, 6, 15, 16, 25, 26, 5, 6], [7, 128, 17, 18, 27, 28, 7, 8]]
    columns = [0, 1, 4, 5, 8, 9, 12, 13]  # two pixels lie between neighbours
    assert sheet[::3, columns, 0].tolist() == rows
    assert completion_sheet(images, masks, [images + 10], original=False).shape == (4, 6, 1)


def make_figure():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 3, 2])
    return figure


def test_encoded_png_has_160_pixels_an_inch_and_is_the_same_each_time():
    content = encode_figure(make_figure(), "png")
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        assert image.size == (320, 160)
    assert encode_figure(make_figure(), "png") == content


def test_encoded_svg_holds_no_date():
    content = encode_figure(make_figure(), "svg").decode()
    assert content.rstrip().endswith("</svg>")
    assert "date" not in content
