"""Images in a folder."""

import os
from pathlib import Path

from sagan_jax.data import decoding
from sagan_jax.data.encoded import EncodedImages, Notify, digest_files
from sagan_jax.data.label_files import MAX_LABEL_FILE_BYTES, label_images
from sagan_jax.data.layouts import is_hidden, is_image, wrapper_folder
from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.files import open_regular


def open_folder(path: Path, notify: Notify) -> EncodedImages:
    """Returns the images in the folder `path`.

    The images lie at the top, in class folders, or in class folders inside a single folder. A file `dataset.json` may
    hold their labels: see `sagan_jax.data.label_files`.

    Args:
        path: the folder.
        notify: receives a line when labels come from a file, and when files are passed over.

    Raises:
        InvalidInputError: when the folder cannot be listed or has another layout, when a pipe or a broken link has the
            name of an image, or when the file of labels is wrong.
    """
    where = repr(str(path))
    files, folders = _list_folder(path, where)
    prefix = wrapper_folder(files, folders)
    outside = [name for name in files if prefix and not name.startswith(prefix)]
    if prefix:
        files, folders = _list_folder(path / prefix, where)
    everything = {*outside, *(prefix + name for name in files)}

    def read_start(name: str) -> bytes:
        with open_regular(path / name) as file:
            return file.read(MAX_LABEL_FILE_BYTES + 1)

    names, labels, class_names = label_images(files, folders, everything, prefix, read_start, where, notify)

    def read(index: int) -> bytes:
        with open_regular(path / names[index]) as file:
            data = file.read(decoding.MAX_FILE_BYTES + 1)
        if len(data) > decoding.MAX_FILE_BYTES:
            raise ValueError(f"it has more than {decoding.MAX_FILE_BYTES:,} bytes")
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
    """Returns the relative names of the files and folders in `path` and in its direct subfolders."""
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
                elif is_image(name):  # reading a pipe could block forever
                    raise InvalidInputError(f"{where} needs regular files; {name!r} is a pipe or a broken link.")

    try:
        scan("")
        for folder in sorted(folders):
            scan(folder)
    except OSError as error:
        raise InvalidInputError(f"Cannot list {where}: {one_line(error)}.") from error
    return files, folders
