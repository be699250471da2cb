"""Images in a folder of the file system."""

import os
from pathlib import Path

from sagan_jax.data import decoding
from sagan_jax.data.encoded import EncodedImages, digest_files
from sagan_jax.data.layouts import arrange, is_hidden, is_image, wrapper_of
from sagan_jax.errors import InvalidInputError, one_line


def open_folder(path: Path) -> EncodedImages:
    """Returns the images in `path`: at its top, in class folders, or in class folders in just one folder.

    Raises:
        InvalidInputError: it cannot be listed, its layout is another, or a pipe or broken link is named like an image.
    """
    where = repr(str(path))
    files, folders = _list_folder(path, where)
    prefix = wrapper_of(files, folders)
    if prefix:
        files, folders = _list_folder(path / prefix, where)
    names, labels, class_names = arrange(files, folders, where, prefix)

    def read(index: int) -> bytes:
        with (path / names[index]).open("rb") as file:
            data = file.read(decoding.LARGEST_FILE + 1)
        if len(data) > decoding.LARGEST_FILE:
            raise ValueError(f"it has more than {decoding.LARGEST_FILE:,} bytes")
        return data

    return EncodedImages(
        title=path.resolve().name,
        where=where,
        count=len(names),
        name=names.__getitem__,
        read=read,
        labels=labels,
        class_names=class_names,
        content=lambda: digest_files(path, names),
    )


def _list_folder(path: Path, where: str) -> tuple[list[str], set[str]]:
    """Returns the relative names of the files and of the folders in `path` and, one level down, in its folders."""
    files: list[str] = []
    folders: set[str] = set()

    def scan(parent: str) -> None:
        with os.scandir(path / parent) as entries:
            for entry in entries:
                name = f"{parent}/{entry.name}" if parent else entry.name
                if is_hidden(name):
                    continue
                if entry.is_dir():
                    folders.add(name)
                elif entry.is_file():
                    files.append(name)
                elif is_image(name):  # reading a pipe would wait for ever
                    raise InvalidInputError(f"{where} needs regular files; {name!r} is a pipe or a broken link.")

    try:
        scan("")
        for folder in sorted(folders):
            scan(folder)
    except OSError as error:
        raise InvalidInputError(f"Cannot list {where}: {one_line(error)}.") from error
    return files, folders
