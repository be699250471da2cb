"""Images as files."""

import io

import numpy as np
import pytest
from PIL import Image

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.image_files import encode_png, save_png

pytestmark = pytest.mark.one_jax


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5, 3), np.uint8)],
)
def test_save_png_refuses_what_is_no_image(tmp_path, image):
    with pytest.raises(InvalidInputError, match=r"needs an image \[H, W, 1 or 3\] of uint8; got \["):
        save_png(tmp_path / "a.png", image)


@pytest.mark.parametrize("channels", [1, 3])
def test_optimized_png_is_smaller_and_has_the_same_pixels(channels):
    image = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] // 9 * 31, (1, 80, channels))
    plain, optimized = encode_png(image), encode_png(image, optimize=True)
    assert len(optimized) < len(plain)
    for content in (plain, optimized):
        with Image.open(io.BytesIO(content), formats=["PNG"]) as found:
            np.testing.assert_array_equal(np.asarray(found).reshape(image.shape), image)
