"""Images as files."""

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.image_files import save_png


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5, 3), np.uint8)],
)
def test_save_png_refuses_what_is_no_image(tmp_path, image):
    with pytest.raises(InvalidInputError, match=r"needs an image \[H, W, 1 or 3\] of uint8; got \["):
        save_png(tmp_path / "a.png", image)
