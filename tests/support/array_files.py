"""Files of arrays, read and closed."""

from pathlib import Path

import numpy as np


def arrays_of(path: Path | str) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name, and closes it."""
    with np.load(path) as file:
        return dict(file)
