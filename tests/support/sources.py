"""Sources of images and labels: made-up ones, and what is in one."""

from typing import Any

import numpy as np


class NoiseImages:
    """Square uint8 images that all differ, of five classes; `read` holds the indices that were asked for."""

    def __init__(self, count: int, size: int):
        self.count, self.size, self.read = count, size, set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.add(index)
        shape = (self.size, self.size, 3)
        return np.random.default_rng(index).integers(0, 256, shape).astype(np.uint8), index % 5


def contents(source: Any) -> tuple[list, list[int]]:
    """Returns every image, as nested lists, and every label of the source."""
    rows = [source[index] for index in range(len(source))]
    return [image.tolist() for image, _ in rows], [label for _, label in rows]
