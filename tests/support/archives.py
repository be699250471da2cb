"""Folders and zips of small files."""

import zipfile
from pathlib import Path


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """Writes the files, given by their path below `root`, and returns `root`."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """Writes the files, given by their path in the archive, and returns `path`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
