"""Pickles that would run code."""

import os
from pathlib import Path


class MakesFolder:
    """Makes a folder when it is unpickled: a test looks whether the folder is there."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
